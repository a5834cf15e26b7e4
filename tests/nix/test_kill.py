"""SIGKILL ends the builder daemon, which cannot catch it: no process stays, and nothing half-built counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import NixSettings, Settings
from spoold.host import cgroups
from spoold.nix import cage
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.waiting import until

pytestmark = pytest.mark.nix

DAEMON = """
import sys, threading, msgspec
from spoold.config import Settings
from spoold.nix import cage
from spoold.nix.build import NixBuilder
builder = NixBuilder(msgspec.json.decode(sys.stdin.readline(), type=Settings))
expression = msgspec.json.decode(sys.stdin.readline(), type=str)
builder.prepare()
print("ready", flush=True)
builder.build("killed", expression, "default", threading.Event())
"""
COUNT = "builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: %s) 1000000)"


@pytest.fixture
def aliased(nix_builder: NixBuilder) -> Iterator[Settings]:
    """Yield settings with another name for the state directory, by which this test recognizes its processes."""
    state = Path(nix_builder.settings.nix.state)
    other = state.parent / f"by-another-name-{time.time_ns()}"
    other.symlink_to(state)
    yield msgspec.structs.replace(nix_builder.settings, nix=NixSettings(state=str(other)))
    other.unlink()


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1])
@pytest.mark.parametrize("stage", ["evaluation", "build"])
def test_kill(nix_builder: NixBuilder, aliased: Settings, stage: str, delay: float) -> None:
    mark = f"mark{time.time_ns()}"
    expression = {
        "evaluation": COUNT % f"({COUNT % 'x'})",
        "build": room.SHELL % f'X = pkgs.runCommand "{mark}" {{ }} "mkdir $out; sleep 1000";',
    }[stage]
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon.stdin, daemon.stdout:
        daemon.stdin.write(msgspec.json.encode(aliased) + b"\n" + msgspec.json.encode(expression) + b"\n")
        daemon.stdin.flush()
        assert daemon.stdout.readline() == b"ready\n"
        time.sleep(delay)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    until(lambda: not room.processes_with(aliased.nix.state) and not room.processes_with(mark))
    assert not (nix_builder.store.roots.directory / "builds/killed").is_symlink()
    with nix_builder.store.database() as database:
        assert database.execute("SELECT count(*) FROM ValidPaths WHERE path LIKE ?", [f"%-{mark}"]).fetchone() == (0,)


def test_after_a_kill_all_is_well(nix_builder: NixBuilder) -> None:
    with cage.cage(1 << 30) as group:
        left = [place.with_name(f"{cage.PREFIX}1-0-dead") for place in group.groups.values()]
        for place in left:
            place.mkdir(exist_ok=True)
        runtime = NixBuilder(nix_builder.settings).prepare()
        assert not any(place.exists() for place in left)
    assert room.build(nix_builder, room.SHELL % f"AT = {time.time_ns()};").shell
    assert list(nix_builder.store.temporary.iterdir()) == []
    assert runtime == nix_builder.prepare()
    parents = set(cgroups.parents().values())
    assert [each for parent in parents for each in parent.glob(f"{cage.PREFIX}{os.getpid()}-*")] == []
