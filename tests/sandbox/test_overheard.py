"""Other users of the host read little about a running job and the processes that enter its environment."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from spoold.model.job import Runtime
from spoold.model.response import Outcome, Phase
from spoold.nix.build import NixBuilder
from tests.conftest import build_shell
from tests.overhears import listening
from tests.sandbox.conftest import Run, longer

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]

# Each process that enters an environment looks for a locale first, and waits there until somebody opens the other end.
# So each of them lives long enough to be seen.
SLOW = """
mkdir -p /tmp/locale/x
mkfifo /tmp/locale/x/LC_IDENTIFICATION
while :; do sleep 0.2; : <>/tmp/locale/x/LC_IDENTIFICATION; done &
export LOCPATH=/tmp/locale LC_ALL=x
"""


@pytest.fixture(params=["captured", "nix-shell"])
def slow_shell(request: pytest.FixtureRequest) -> str:
    """Return a shell that takes its time, entered in each way."""
    name = "prepared" if request.param == "captured" else "prepared_for_nix_shell"
    prepared: tuple[NixBuilder, Runtime] = request.getfixturevalue(name)
    return build_shell(prepared, f"shellHook = ''{SLOW}'';")


def test_nobody_else_reads_the_environment_and_the_input_of_a_job(run: Run, slow_shell: str, tmp_path: Path) -> None:
    variable, odd, large, stdin, content, argument = (uuid.uuid4().hex for _ in range(6))
    words = (variable, odd, large, stdin, content)
    heard = ""

    def ran(times: float) -> Phase:
        return run(
            f"#!/bin/sh\nsleep {0.5 * times}; cat; cat file; env -0 | sort -z | tr '\\0' '\\n' | cut -c -40",
            shell=slow_shell,
            compile_sh="sleep 0.5",
            env={"TOKEN": variable, "a-b": odd, "LARGE": large + "x" * 120_000},
            stdin=stdin.encode(),
            files={"file": content.encode()},
            args=(argument,),
        ).run

    def overheard(_: Phase) -> bool:
        nonlocal heard
        heard = found()
        return argument in heard

    with listening(*(word[::-1] for word in (*words, argument)), log=tmp_path / "heard") as found:
        phase = longer(ran, overheard)
        overheard(phase)
    assert phase.outcome is Outcome.OK, phase.stderr
    assert f"TOKEN={variable}" in phase.stdout
    assert "__spoold_" not in phase.stdout
    assert argument in heard  # on the program's own command line, which shows that the listener works
    assert [line for line in heard.splitlines() if any(word in line for word in words)] == []
