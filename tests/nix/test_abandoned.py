"""A killed build leaves files in the store, and they keep nobody from building the same derivation."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path
from threading import Event

import pytest

from spoold.model.errors import TemporaryError
from spoold.nix import abandoned
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.waiting import until


def test_a_root_is_removed_unless_somebody_builds(tmp_path: Path) -> None:
    chroot, outputs, removed = tmp_path / "x.drv.chroot", [tmp_path / "x", tmp_path / "x-dev"], list[Path]()
    abandoned.remove(chroot, outputs, removed.append)
    assert removed == [], "there is none"
    assert list(tmp_path.iterdir()) == []
    chroot.mkdir()
    with (tmp_path / "x-dev.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        abandoned.remove(chroot, outputs, removed.append)
        assert removed == []
    abandoned.remove(chroot, outputs, removed.append)
    assert removed == [chroot]
    abandoned.remove(chroot, [], removed.append)
    assert removed == [chroot], "of which nobody can tell whether it is built"


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_lock_that_is_no_file_is_not_trusted(tmp_path: Path, kind: str) -> None:
    """The group of builds may write into the store's directory."""
    chroot, lock, removed = tmp_path / "x.drv.chroot", tmp_path / "x.lock", list[Path]()
    chroot.mkdir()
    if kind == "link":
        lock.symlink_to(tmp_path / "y")
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    abandoned.remove(chroot, [tmp_path / "x"], removed.append)
    assert removed == []
    assert not (tmp_path / "y").exists()


@pytest.mark.nix
def test_a_build_that_was_cancelled_can_be_built_by_another_user(nix_builder: NixBuilder) -> None:
    users = nix_builder.store.users
    mark = f"left{time.time_ns()}"
    expression = room.SHELL % (
        f'X = pkgs.runCommand "{mark}" {{ }} "mkdir /tmp/own; echo >/tmp/own/x; mkdir $out; sleep 1000";'
    )

    def begun() -> Path:
        """Build until the builder has made its file, cancel, and return the path that this file had."""
        before, cancel, found = time.time_ns(), Event(), list[Path]()

        def has_begun() -> bool:
            for root in nix_builder.store.physical.glob(f"*-{mark}.drv.chroot"):
                for path in (root / "tmp/own/x", root / "root/tmp/own/x"):  # older versions of Nix, and newer ones
                    if path.exists() and path.stat().st_mtime_ns > before:
                        found.append(path)
            return bool(found)

        def to_build() -> None:
            with contextlib.suppress(TemporaryError):  # as the build was cancelled
                nix_builder.build(mark, expression, "default", cancel)

        build = threading.Thread(target=to_build)
        build.start()
        until(lambda: has_begun() or not build.is_alive())
        cancel.set()
        build.join()
        assert found, "it did not begin"
        return found[0]

    room.shell(nix_builder, 'X = pkgs.runCommand "before" { } "mkdir $out";')  # with what both need
    left = begun()
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("left by another user")
    os.utime(left, (0, 0))
    if users is not None and len(users.users.uids) > 1:
        other = [*users.users.uids.values()][-1]  # the first that is free builds
        for path in (left.parent, left):
            os.chown(path, other, -1)
    begun()
