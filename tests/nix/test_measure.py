"""The output of builders is measured and removed in any shape. Output that cannot be measured is too much."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from spoold.config import Settings
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix import hidden, measure
from spoold.nix.build import NixBuilder
from spoold.nix.store import Store
from tests.nix import room
from tests.nix.setups import SYSTEMS_PYTHON

MIB = 1024**2


def deepen(directory: Path, levels: int) -> None:
    """Make nested directories, deeper than any path can name."""
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d" * 20, dir_fd=here)
        below = os.open("d" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_what_is_within_its_limits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    assert measure.outgrown([tmp_path, tmp_path / "gone"], size=MIB, files=10) == ""


def test_too_many_bytes_and_too_many_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").touch()
    assert "bytes" in measure.outgrown([tmp_path], size=50_000, files=10)
    assert "files" in measure.outgrown([tmp_path], size=MIB, files=1)


def test_what_is_too_deep_to_be_measured_is_too_much_and_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    deepen(top, 3000)
    assert "deep" in measure.outgrown([top], size=100 * MIB, files=100_000)
    measure.remove(top)
    assert not top.exists()


def test_a_directory_that_is_renamed_all_the_time_is_measured(tmp_path: Path) -> None:
    """Otherwise a build could hide by renaming the directory that it fills: a walk has the name of a moment ago."""
    for number in range(300):
        (tmp_path / f"e{number}").mkdir()
    moving = tmp_path / "d"
    moving.mkdir()
    (moving / "large").write_bytes(b"x" * MIB)
    program = (
        "import os, sys\nos.chdir(sys.argv[1])\nname = 'd'\nprint(flush=True)\n"
        "for number in range(1 << 62):\n    os.rename(name, f'd{number}'); name = f'd{number}'\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as renames:
        assert renames.stdout is not None
        renames.stdout.readline()
        try:
            found = [measure.outgrown([tmp_path], size=MIB // 2, files=1000) for _ in range(20)]
        finally:
            renames.kill()
    assert all("bytes were written" in each or "renamed too often" in each for each in found), found


def test_a_directory_is_entered_by_the_name_that_it_has_by_now(tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    inode = (tmp_path / "now").stat().st_ino
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        found = measure._entered(here, "before", inode)
        assert found is not None
        assert os.fstat(found).st_ino == inode
        os.close(found)
        (tmp_path / "now").rmdir()
        assert measure._entered(here, "now", inode) is None
    finally:
        os.close(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user whom modes bind")
def test_a_directory_that_can_be_listed_and_not_entered_ends_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"x" * MIB)
    closed.chmod(0o444)
    for directory in [tmp_path, *tmp_path.parents][:-1]:
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(0o755)
    shutil.copy(measure.__file__, tmp_path / "measure.py")  # other users may be unable to read it where it is
    program = "import sys, runpy; print(runpy.run_path(sys.argv[1] + '/measure.py')['measured']"
    program += "([sys.argv[1]], size=9e9, files=99))"
    found = subprocess.run(
        ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", SYSTEMS_PYTHON, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.endswith("'')\n"), found.stderr


def test_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MIB)
    for number in range(5):
        (tmp_path / f"link{number}").hardlink_to(tmp_path / "file")
    assert measure.outgrown([tmp_path], size=2 * MIB, files=10) == ""


def test_too_many_open_files_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "OPEN", 10)
    with contextlib.ExitStack() as held:
        for number in range(20):
            held.enter_context((tmp_path / str(number)).open("w"))
        with pytest.raises(OverflowError, match="more than 10 files were open"):
            hidden.unnamed([os.getpid()], tmp_path.stat().st_dev)


def test_files_without_a_name_are_counted_once_and_only_on_the_disk(tmp_path: Path) -> None:
    disk = tmp_path.stat().st_dev
    before = hidden.unnamed([os.getpid()], disk)
    with (tmp_path / "file").open("wb") as file, os.fdopen(os.memfd_create("memory"), "wb") as memory:
        file.write(b"x" * 100_000)
        file.flush()
        memory.write(b"x" * 1_000_000)
        memory.flush()
        assert hidden.unnamed([os.getpid()], disk) == before, "a file with a name is not counted here"
        (tmp_path / "file").unlink()
        again = os.dup(file.fileno())
        counted = hidden.unnamed([os.getpid(), 0], disk) - before
        os.close(again)
    assert 100_000 <= counted < 200_000
    assert "no name" in measure.outgrown([tmp_path], size=10, files=10, unnamed=11)


def test_what_others_write_to_the_disk_is_nobodys_build(
    nix_builder: NixBuilder, plain_shell: str, tmp_path: Path
) -> None:
    builder = room.limited(nix_builder, output=4 * MIB, files=1000)
    building = threading.Thread(
        target=lambda: results.append(room.build(builder, DERIVATION % (SLOW, f'NEW = "{uuid.uuid4()}";')))
    )
    results: list[BuildResult] = []
    building.start()
    while building.is_alive():
        with (tmp_path / "large").open("wb") as file:
            file.write(b"x" * 16 * MIB)  # four times the limit for the build
        building.join(0.1)
    assert results[0].phase.outcome is Outcome.OK, results[0].phase.stderr


def test_removal_follows_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(canary)
    measure.remove(tree)
    assert (canary / "file").exists()
    assert not tree.exists()


def test_a_start_removes_what_is_deep_in_the_temporary_directory(tmp_path: Path, nix_settings: Settings) -> None:
    store = Store(type(nix_settings.nix)(state=str(tmp_path), system=nix_settings.nix.system))
    store.prepare()
    left = store.temporary / "left"
    left.mkdir()
    deepen(left, 3000)
    store.prepare()
    assert os.listdir(store.temporary) == []


def test_other_users_of_the_host_do_not_see_the_state(tmp_path: Path, nix_settings: Settings) -> None:
    store = Store(type(nix_settings.nix)(state=str(tmp_path), system=nix_settings.nix.system))
    tmp_path.chmod(0o755)
    store.prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


DERIVATION = (
    '{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { buildInputs = [ (derivation { name = "bad"; '
    'system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; PATH = "${pkgs.coreutils}/bin"; '
    "args = [ \"-c\" ''%s'' ]; %s }) ]; }\n"
)
# mkdir may not be last, or the shell would become it. mkdir closes its output before it ends, and Nix then kills what
# still lives.
SLOW = "sleep 2; mkdir $out; :"
DEEP = 'p=$(printf "a/%.0s" $(seq 400)); for i in 1 2 3 4 5; do mkdir -p $p; cd $p; done; sleep 2; exit 1'
# Each file is below the limit. All together are above it, and none of them has a name.
MANY_UNLINKED = (
    'for n in $(seq 10 40); do eval "exec $n>hidden"; rm hidden; head -c 10000000 /dev/zero >&$n; done; '
    "sleep 600; false"
)
UNLINKED = "exec 3>hidden; rm hidden; exec head -c 60000000 /dev/zero >&3"


@pytest.mark.parametrize(
    ("script", "attributes", "outcome", "word"),
    [
        (DEEP, "", {Outcome.OUTPUT_LIMIT, Outcome.NONZERO_EXIT}, ""),
        (UNLINKED, "", {Outcome.OUTPUT_LIMIT, Outcome.NONZERO_EXIT}, "ile"),
        (MANY_UNLINKED, "", {Outcome.OUTPUT_LIMIT}, "no name any more"),
        ("true", '__json = "garbage{{";', {Outcome.NONZERO_EXIT}, "__json"),
        ("true", '__json = "[1]";', {Outcome.NONZERO_EXIT}, "__json"),
        (
            "true",
            '__json = builtins.concatStringsSep "" (builtins.genList (_: "[") 100000);',
            {Outcome.NONZERO_EXIT},
            "__json",
        ),
    ],
)
def test_shapes_that_once_were_taken_for_a_fault_of_ours(
    nix_builder: NixBuilder, script: str, attributes: str, outcome: set[Outcome], word: str
) -> None:
    builder = room.limited(nix_builder, output=20 * MIB, files=100_000)
    result = room.build(builder, DERIVATION % (script, attributes))
    assert result.phase.outcome in outcome, result.phase.stderr
    assert word in result.phase.stderr
    assert os.listdir(builder.store.temporary) == []
