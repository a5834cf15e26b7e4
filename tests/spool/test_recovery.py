"""Dead workers are told from live ones by two clocks, and what a crash left half done is ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.ids import Entry, result_name
from spoold.spool import layout
from spoold.spool.queue import Queue
from spoold.spool.recovery import Watchman, publish_committed, recover
from tests.standins import SetClock

LIMIT, RENEWAL = 30.0, 5.0


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    layout.create(str(tmp_path))
    return Queue(str(tmp_path), ("building", "running"), attempts=3)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def held(queue: Queue, clock: Clock, attempt: int = 1) -> Entry:
    entry = Entry("a", attempt)
    Path(queue.entry_path("running", entry)).write_bytes(b"entry")
    renew(queue, clock, entry)
    return entry


def renew(queue: Queue, clock: Clock, entry: Entry) -> None:
    os.utime(queue.entry_path("running", entry), (clock.file_system(), clock.file_system()))


def watchman(clock: Clock) -> Watchman:
    return Watchman(clock, limit=LIMIT, renewal=RENEWAL)


def test_a_renewed_entry_lives_and_one_that_is_not_dies(queue: Queue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    for _ in range(20):
        clock.pass_time(5)
        renew(queue, clock, entry)
        assert watching.dead(queue, "running") == []
    clock.pass_time(LIMIT - 1)
    assert watching.dead(queue, "running") == []
    clock.pass_time(2)
    assert watching.dead(queue, "running") == [entry]


def test_an_old_entry_is_not_dead_at_the_first_look(queue: Queue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    clock.pass_time(3600)
    assert watching.dead(queue, "running") == []
    clock.pass_time(2 * RENEWAL)
    assert watching.dead(queue, "running") == [entry]


def test_an_operator_can_expire_a_lease_with_touch(queue: Queue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    watching.dead(queue, "running")
    os.utime(queue.entry_path("running", entry), (clock.there - 3600,) * 2)
    assert watching.dead(queue, "running") == []
    clock.pass_time(2 * RENEWAL)
    assert watching.dead(queue, "running") == [entry]


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_stepped_clock_expires_nothing_that_is_renewed(queue: Queue, clock: SetClock, step: float) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    watching.dead(queue, "running")
    clock.there += step
    for _ in range(20):
        assert watching.dead(queue, "running") == []
        clock.pass_time(5)
        renew(queue, clock, entry)


def test_an_mtime_in_the_future_holds_nothing_for_ever(queue: Queue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    os.utime(queue.entry_path("running", entry), (clock.there + 1e6,) * 2)
    watching.dead(queue, "running")
    clock.pass_time(LIMIT)
    assert watching.dead(queue, "running") == [entry]


def test_a_dead_entry_goes_back_with_the_next_attempt(queue: Queue, clock: SetClock) -> None:
    recover(
        queue,
        "running",
        held(queue, clock),
        abandon=lambda entry: pytest.fail(str(entry)),
        log=Log("test"),
    )
    assert queue.locate("a") == ("new", Entry("a", 2))


@pytest.mark.parametrize(("attempt", "abandoned"), [(3, 4), (4, 5), (5, 5)])
def test_the_last_attempt_is_fenced_and_abandoned(queue: Queue, clock: SetClock, attempt: int, abandoned: int) -> None:
    given: list[Entry] = []
    recover(queue, "running", held(queue, clock, attempt), abandon=given.append, log=Log("test"))
    assert given == [Entry("a", abandoned)]
    assert queue.locate("a") == ("running", Entry("a", abandoned))


def result(queue: Queue, attempt: int) -> None:
    queue.write_for(queue.path("tmp", f"a@{attempt}.response.json"), b"%d" % attempt, None)


def test_what_was_committed_is_published_with_the_last_attempts_result(queue: Queue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    for attempt in (0, 1, 3, 2):
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"3"
    assert os.listdir(queue.path("tmp")) == []


def test_a_second_name_is_removed_and_what_is_published_stays(queue: Queue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    Path(queue.path("done", "a.response.json")).write_bytes(b"first")
    result(queue, 1)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"first"
    assert os.listdir(queue.path("tmp")) == []


def test_a_result_that_is_not_committed_stays_private(queue: Queue, clock: SetClock) -> None:
    held(queue, clock, attempt=2)
    for attempt in (1, 2):
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == ["a@2.response.json"], "only the stale attempt's result goes"
    assert os.listdir(queue.path("done")) == []


def test_the_clock_of_the_file_system_is_read_from_a_probe(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    first = Clock(str(probe)).file_system()
    os.utime(probe, (1, 1))
    assert Clock(str(probe)).file_system() >= first > 1e9


def test_a_result_whose_entry_is_gone_is_not_kept_for_the_ids_next_use(queue: Queue) -> None:
    """Retention removed the entry, and a loss of power brought the result's private name back."""
    queue.write_for(queue.path("tmp", "a@2.response.json"), b"of the former one\n", None)
    queue.write_for(queue.path("tmp", "b@0.response.json"), b"a refusal that is being made\n", None)
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == ["b@0.response.json"]


def test_the_results_of_two_owners_under_one_id_are_told_apart(tmp_path: Path, clock: SetClock) -> None:
    """What an earlier use of the id left is another owner's; it says nothing of the one that is on its way."""
    layout.create(str(tmp_path))
    queue = Queue(str(tmp_path), ("building", "running"), attempts=3, owned=True)
    mine, former = Entry("a", 1, 1001), Entry("a", 3, 1002)
    assert queue.add(mine, b"entry")
    queue.claim(mine, "new", "running")
    for entry in (mine, former):
        queue.write_for(queue.path("tmp", result_name(entry)), b"result\n", None)
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == [result_name(mine)]
    assert os.listdir(queue.path("ids")) == ["a"]


def test_no_result_is_removed_because_its_entry_cannot_be_looked_at(
    queue: Queue, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is committed; a disk that reports errors is not one without it."""
    entry = held(queue, clock)
    result = Path(queue.path("tmp", "a@1.response.json"))
    result.write_bytes(b"result\n")
    os.rename(queue.entry_path("running", entry), queue.path("done", "a.json"))

    def lstat(path: str, **_: object) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lstat)
        with pytest.raises(OSError, match="error"):
            publish_committed(queue, Log("test"))
    assert result.exists()
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"result\n"
