"""A script that starts without a shell in between finds the environment that the shell would have passed on."""

from __future__ import annotations

import os

import pytest

from spoold.model.job import Runtime
from spoold.nix.build import NixBuilder
from spoold.sandbox.orders import ENTER, ZONES
from tests.conftest import build_shell
from tests.sandbox.conftest import Run

pytestmark = [pytest.mark.docker, pytest.mark.nix]

SHELLS = {
    "plain": "",
    "odd": '"a-b" = "c d"; lines = "x\\ny"; empty = ""; HOME = "/tmp"; TZ = "UTC"; quotes = "\\"\'$`\\\\";',
}
SHOW = "while IFS= read -r -d '' pair; do printf '%s\\0' \"$pair\"; done </proc/$$/environ\n"
# The long way, from the environment at the beginning of a phase.
COMPARE = """
env -i PATH={path} HOME=/job NIX_PATH=nixpkgs={nixpkgs} {zones} \
    {bash} --norc --noprofile {enter} 9 9<words
"""


@pytest.mark.parametrize("env", [{}, {"A": "b=c", "a-b": "mine", "PATH": "/own:/bin"}], ids=["", "asked"])
@pytest.mark.parametrize("first", ["#!/bin/sh\n", "#!/usr/bin/env bash\n", ""], ids=["sh", "env", "none"])
@pytest.mark.parametrize("kind", SHELLS)
def test_the_environment_is_the_same_by_either_way(
    run: Run, prepared: tuple[NixBuilder, Runtime], kind: str, first: str, env: dict[str, str]
) -> None:
    _, runtime = prepared
    shell = build_shell(prepared, SHELLS[kind])
    at_once = run(first + SHOW, shell=shell, env=env).run
    assert at_once.stderr == ""
    compare = COMPARE.format(
        path=f"{runtime.coreutils}/bin:{runtime.bash}/bin",
        nixpkgs="",
        zones=f"TZDIR={ZONES}" if runtime.tzdata else "",
        bash=f"{runtime.bash}/bin/bash",
        enter=ENTER,
    )
    words = [shell, *(f"{key}={value}" for key, value in env.items()), "./show.sh"]
    files = {"words": b"".join(os.fsencode(word) + b"\0" for word in words), "show.sh": (first + SHOW).encode()}
    long = run("#!/bin/sh\nchmod +x show.sh\n" + compare, shell=shell, files=files).run
    assert long.stderr == ""
    assert isinstance(at_once.stdout, str)
    assert isinstance(long.stdout, str)
    assert pairs(at_once.stdout) == pairs(long.stdout)
    assert len(pairs(long.stdout)) > 10


def pairs(text: str) -> dict[str, str]:
    """Return an environment from the kernel's text, without the variable that locates nixpkgs."""
    return {
        name: value
        for name, _, value in (pair.partition("=") for pair in text.split("\0") if pair)
        if name != "NIX_PATH"
    }
