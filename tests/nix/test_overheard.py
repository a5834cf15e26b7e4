"""Other users of the host can read paths of a running build, and nothing else of its expression."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from pathlib import Path

import pytest

from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.overhears import listening
from tests.waiting import until

pytestmark = [pytest.mark.nix, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")]


@pytest.mark.parametrize("way", ["prepared", "prepared_for_nix_shell"])
def test_nobody_else_reads_the_expression_of_a_build(
    request: pytest.FixtureRequest, runtime: object, tmp_path: Path, way: str
) -> None:
    builder: NixBuilder = request.getfixturevalue(way)[0]
    name, value, script, file, hook = (uuid.uuid4().hex for _ in range(5))
    mark = f"1000.{time.time_ns()}"
    attributes = f"""
        input = derivation {{
          name = "slow"; system = builtins.currentSystem; builder = "${{pkgs.bash}}/bin/bash";
          args = [ (builtins.toFile "{name}" "# {script}\n$sleep {mark}; echo > $out") ];
          value = "{value}"; sleep = "${{pkgs.coreutils}}/bin/sleep";
        }};
        value = "{value}"; file = "{file}"; passAsFile = [ "file" ]; shellHook = "echo {hook}";
    """
    log = tmp_path / "heard"

    def let_it_end() -> None:
        """Keep the build running until the listener has heard it, because the listener may be slow."""
        until(lambda: name in log.read_text() and room.processes_with(mark))
        for pid in room.processes_with(mark):
            os.kill(pid, signal.SIGKILL)

    with listening(*(word[::-1] for word in (name, value, script, file, hook)), log=log) as found:
        ending = threading.Thread(target=let_it_end)
        ending.start()
        result = room.build(builder, room.SHELL % attributes)
        ending.join()
        heard = found()
    assert result.phase.outcome is Outcome.OK, result.phase.stderr
    assert name in heard  # in the path on the builder's command line, which shows that the listener works
    assert [line for line in heard.splitlines() if any(word in line for word in (value, script, file, hook))] == []
