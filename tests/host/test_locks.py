"""A lock whose file stays open: it excludes others, and a file that was removed fools nobody."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
import warnings
from pathlib import Path

import pytest

from spoold.host.locks import KeptLock, locked
from tests.rights import in_child


def is_free(path: Path) -> bool:
    """Tell whether another process would get the lock at once."""

    def tried() -> bool:
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return bool(in_child(tried))


def opened(path: Path) -> list[str]:
    """Return the descriptors by which this process has a file open."""
    return [each for each in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{each}") == str(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def test_it_is_held_inside_the_block_again_and_again(path: Path) -> None:
    lock = KeptLock(str(path))
    for _ in range(3):
        with lock.held():
            assert not is_free(path)
        assert is_free(path)


def test_it_is_let_go_of_where_the_block_fails(path: Path) -> None:
    lock = KeptLock(str(path))
    with pytest.raises(ZeroDivisionError), lock.held():
        raise ZeroDivisionError
    assert is_free(path)


def test_who_looks_waits_for_whoever_forgets(path: Path) -> None:
    lock = KeptLock(str(path))
    entered = threading.Event()

    def wait_for_it() -> None:
        with lock.held():
            entered.set()

    with locked(str(path), exclusive=True):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(60)
    thread.join()


def test_two_look_at_once(path: Path) -> None:
    one, other = KeptLock(str(path)), KeptLock(str(path))
    with one.held(), other.held():
        assert not is_free(path)
    assert is_free(path)


def test_a_file_that_was_removed_locks_nobody(path: Path) -> None:
    lock = KeptLock(str(path))
    with lock.held():
        pass
    path.unlink()
    with lock.held():
        assert not is_free(path)
    path.unlink()
    path.touch()
    with lock.held():
        assert not is_free(path)


def test_it_stays_open_and_only_for_reading(path: Path) -> None:
    """So nobody who watches the directory is woken, and the file system can be made read-only."""
    lock = KeptLock(str(path))
    with lock.held():
        pass
    kept = opened(path)
    for _ in range(3):
        with lock.held():
            assert opened(path) == kept
    flags = [Path(f"/proc/self/fdinfo/{each}").read_text().split("flags:")[1].split()[0] for each in kept]
    assert [int(each, 8) & os.O_ACCMODE for each in flags] == [os.O_RDONLY]


@pytest.mark.parametrize("older", [False, True])
def test_its_file_is_closed_though_a_cycle_holds_it(path: Path, older: bool) -> None:
    """No warning about an unclosed file appears, whichever object the garbage collector takes first.

    CPython 3.11 takes objects of its youngest generation before those that have outlived one collection.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # objects of other tests
    lock = KeptLock(str(path))
    if older:
        gc.collect(0)
    with lock.held():
        pass
    assert opened(path)
    cycle: list[object] = []
    cycle.append(cycle)
    lock._cycle = cycle  # type: ignore[attr-defined]
    cycle.append(lock)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        del lock, cycle
        gc.collect()
    assert not heard
    assert not opened(path)
