"""What other users of the host can read of a build while it is made: paths, and nothing of the expression."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.overhears import listening

pytestmark = [pytest.mark.nix, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")]


@pytest.mark.parametrize("way", ["prepared", "prepared_for_nix_shell"])
def test_nobody_else_reads_the_expression_of_a_build(
    request: pytest.FixtureRequest, runtime: object, tmp_path: Path, way: str
) -> None:
    builder: NixBuilder = request.getfixturevalue(way)[0]
    name, value, script, file, hook = (uuid.uuid4().hex for _ in range(5))
    attributes = f"""
        input = derivation {{
          name = "slow"; system = builtins.currentSystem; builder = "${{pkgs.bash}}/bin/bash";
          args = [ (builtins.toFile "{name}" "# {script}\n$sleep 1; echo > $out") ];
          value = "{value}"; sleep = "${{pkgs.coreutils}}/bin/sleep";
        }};
        value = "{value}"; file = "{file}"; passAsFile = [ "file" ]; shellHook = "echo {hook}";
    """
    with listening(*(word[::-1] for word in (name, value, script, file, hook)), log=tmp_path / "heard") as found:
        result = room.build(builder, room.SHELL % attributes)
        heard = found()
    assert result.phase.outcome is Outcome.OK, result.phase.stderr
    assert name in heard  # in the path that the builder was started with: whoever listens does hear
    assert [line for line in heard.splitlines() if any(word in line for word in (value, script, file, hook))] == []
