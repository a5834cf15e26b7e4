"""The wall around builds with all settings of the package's unit, where systemd is process 1, on cgroup v2 too.

tests/boot runs the package on a Debian that boots in a container, with the control groups of this host.
contrib/development/vm runs these tests on version 2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from spoold.host import cgroups
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from tests.nix import room, setups, test_inputs

pytestmark = [
    pytest.mark.nix,
    pytest.mark.skipif(
        os.geteuid() != 0 or not cgroups.SYSTEMD.is_dir(), reason="systemd is not process 1, or we are not root"
    ),
]
MEMORY = 300_000_000  # bytes
TOLERANT = """
  lossy = pkgs.runCommand "lossy-NOW" { } ''(x=0123456789; while :; do x=$x$x; done) || lost=yes; echo $lost > $out'';
"""
CROWD = """
  crowd = pkgs.runCommand "crowd-NOW" { } ''for n in $(seq 9000); do sleep 99 & done; echo > $out'';
"""


@pytest.fixture(scope="module")
def unit(nix_builder: NixBuilder) -> Iterator[setups.Setup]:
    with setups.anothers("systemd", room.limited(nix_builder, memory=MEMORY).settings) as made:
        yield made


def now(text: str) -> str:
    return text.replace("NOW", str(time.time_ns()))


@pytest.mark.parametrize("name", ["a program", "the loader", "the store itself"])
def test_a_build_does_not_change_what_it_depends_on(unit: setups.Setup, name: str) -> None:
    test_inputs.test_a_build_does_not_change_what_it_depends_on(unit, name)


def test_a_build_that_the_kernel_pressed_is_no_build(unit: setups.Setup) -> None:
    result = unit.build(room.SHELL % now(TOLERANT))
    assert result.phase.outcome is Outcome.MEMORY_LIMIT, result.phase
    assert f"more than {MEMORY} bytes of memory" in result.phase.stderr
    left = {path.suffix for path in (unit.state / "nix/nix/store").iterdir() if path.name[33:].startswith("lossy-")}
    assert left <= {".drv", ".chroot", ".lock"}


def test_a_build_with_too_many_processes_is_no_build(unit: setups.Setup) -> None:
    result = unit.build(room.SHELL % now(CROWD))
    assert result.phase.outcome in (Outcome.NONZERO_EXIT, Outcome.MEMORY_LIMIT), result.phase
    assert "more than" in result.phase.stderr


def test_the_store_is_whole_after_all_this(unit: setups.Setup) -> None:
    assert unit.verify().damaged == []
