"""Two clocks tell dead workers from live ones. And work that a crash left half done is ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from spoold.config import LeaseSettings
from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry, Private, result_name
from spoold.model.states import State
from spoold.spool import layout
from spoold.spool.owned import OwnedQueue
from spoold.spool.recovery import Watchman, clear_private, publish_committed, recover
from spoold.spool.tar import Tar
from tests.returned import made
from tests.standins import SetClock

LIMIT, RENEWAL = 30.0, 5.0


@pytest.fixture
def queue(tmp_path: Path) -> OwnedQueue:
    layout.create(str(tmp_path))
    return OwnedQueue(str(tmp_path), attempts=3)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def held(queue: OwnedQueue, clock: Clock, attempt: int = 1) -> Entry:
    entry = Entry("a", attempt)
    Path(queue.entry_path(State.RUNNING, entry)).write_bytes(b"entry")
    queue.take_over_id(entry)
    renew(queue, clock, entry)
    return entry


def renew(queue: OwnedQueue, clock: Clock, entry: Entry) -> None:
    os.utime(queue.entry_path(State.RUNNING, entry), (clock.file_system(), clock.file_system()))


def watchman(clock: Clock) -> Watchman:
    return Watchman(clock, LeaseSettings(limit=LIMIT, renewal=RENEWAL))


def test_a_renewed_entry_lives_and_one_that_is_not_dies(queue: OwnedQueue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    for _ in range(20):
        clock.pass_time(5)
        renew(queue, clock, entry)
        assert watching.dead(queue, State.RUNNING) == []
    clock.pass_time(LIMIT - 1)
    assert watching.dead(queue, State.RUNNING) == []
    clock.pass_time(2)
    assert watching.dead(queue, State.RUNNING) == [entry]


def test_an_old_entry_is_not_dead_at_the_first_look(queue: OwnedQueue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    clock.pass_time(3600)
    assert watching.dead(queue, State.RUNNING) == []
    clock.pass_time(2 * RENEWAL)
    assert watching.dead(queue, State.RUNNING) == [entry]


def test_an_operator_can_expire_a_lease_with_touch(queue: OwnedQueue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    watching.dead(queue, State.RUNNING)
    os.utime(queue.entry_path(State.RUNNING, entry), (clock.there - 3600,) * 2)
    assert watching.dead(queue, State.RUNNING) == []
    clock.pass_time(2 * RENEWAL)
    assert watching.dead(queue, State.RUNNING) == [entry]


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_stepped_clock_expires_nothing_that_is_renewed(queue: OwnedQueue, clock: SetClock, step: float) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    watching.dead(queue, State.RUNNING)
    clock.there += step
    for _ in range(20):
        assert watching.dead(queue, State.RUNNING) == []
        clock.pass_time(5)
        renew(queue, clock, entry)


def test_an_mtime_in_the_future_holds_nothing_for_ever(queue: OwnedQueue, clock: SetClock) -> None:
    entry, watching = held(queue, clock), watchman(clock)
    os.utime(queue.entry_path(State.RUNNING, entry), (clock.there + 1e6,) * 2)
    watching.dead(queue, State.RUNNING)
    clock.pass_time(LIMIT)
    assert watching.dead(queue, State.RUNNING) == [entry]


def test_a_dead_entry_goes_back_with_the_next_attempt(queue: OwnedQueue, clock: SetClock) -> None:
    recover(
        queue,
        State.RUNNING,
        held(queue, clock),
        abandon=lambda entry: pytest.fail(str(entry)),
        log=Log("test"),
    )
    assert queue.locate("a") == ("new", Entry("a", 2))


@pytest.mark.parametrize(("attempt", "abandoned"), [(3, 4), (4, 5), (5, 5)])
def test_the_last_attempt_is_fenced_and_abandoned(
    queue: OwnedQueue, clock: SetClock, attempt: int, abandoned: int
) -> None:
    given: list[Entry] = []
    recover(queue, State.RUNNING, held(queue, clock, attempt), abandon=given.append, log=Log("test"))
    assert given == [Entry("a", abandoned)]
    assert queue.locate("a") == ("running", Entry("a", abandoned))


def result(queue: OwnedQueue, attempt: int) -> None:
    fsops.write_private(queue.path("tmp", f"a@{attempt}.response.json"), b"%d" % attempt)


def test_what_was_committed_is_published_with_the_last_attempts_result(queue: OwnedQueue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    for attempt in (0, 1, 3, 2):
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"3"
    assert os.listdir(queue.path("tmp")) == []


def tar(queue: OwnedQueue, attempt: int) -> None:
    fsops.write_private(queue.path("tmp", f"a@{attempt}.outputs.tar"), b"tar %d" % attempt)


def test_returned_files_are_shown_with_the_result_that_they_are_beside(queue: OwnedQueue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    for attempt in (1, 2):
        tar(queue, attempt)
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"2"
    assert Path(queue.path("done", "a.outputs.tar")).read_bytes() == b"tar 2"
    assert os.listdir(queue.path("tmp")) == []


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "full"])
def test_a_commit_that_is_not_made_leaves_no_returned_files(
    queue: OwnedQueue, clock: SetClock, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    entry, real, gone = held(queue, clock), fsops.write_private, list[str]()
    if lost:
        os.unlink(queue.entry_path(State.RUNNING, entry))

    def write(path: str, data: Any, **options: Any) -> None:
        if path.endswith(".json") and not lost:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, **options)

    def remove(path: str) -> None:
        gone.append(os.path.basename(path))
        os.unlink(path)

    monkeypatch.setattr(fsops, "write_private", write)
    monkeypatch.setattr(fsops, "remove", remove)
    with pytest.raises(LeaseLostError if lost else OSError):
        queue.results.commit(entry, State.RUNNING, b"result", tar=Tar({"": made(b"1")}))
    assert gone == ["a@1.outputs.tar", *(["a@1.response.json"] if lost else [])]
    assert os.listdir(queue.path("tmp")) == []


def test_returned_files_of_a_lost_attempt_are_not_shown(queue: OwnedQueue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    tar(queue, 1)
    for attempt in (1, 2):
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert set(os.listdir(queue.path("done"))) == {"a.json", "a.response.json"}
    assert os.listdir(queue.path("tmp")) == []


def test_returned_files_that_another_renamed_are_durable_before_their_response_is_seen(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process renamed them and died before the sync. A loss of power could undo that, but not the response."""
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    result(queue, 1)
    Path(queue.path("done", "a.outputs.tar")).write_bytes(b"tar")
    real, seen = fsops.sync_directory, list[bool]()

    def sync(path: str) -> None:
        if path == queue.path(State.DONE):
            seen.append(os.path.exists(queue.path("done", "a.response.json")))
        real(path)

    monkeypatch.setattr(fsops, "sync_directory", sync)
    publish_committed(queue, Log("test"))
    assert seen[0] is False
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"1"


def test_private_returned_files_stay_as_long_as_their_result(queue: OwnedQueue, clock: SetClock) -> None:
    held(queue, clock, attempt=2)
    names = ["a@2.outputs.tar", "a@2.response.json", "a@1.outputs.tar"]
    for name in names:
        Path(queue.path("tmp", name)).write_bytes(b"")
        os.utime(queue.path("tmp", name), (1, 1))
    clear_private(queue, Clock(queue.path("tmp", "test.probe")))
    assert {name for name in names if os.path.exists(queue.path("tmp", name))} == set(names[:2])


def test_a_second_name_is_removed_and_what_is_published_stays(queue: OwnedQueue) -> None:
    Path(queue.path("done", "a.json")).write_bytes(b"entry")
    Path(queue.path("done", "a.response.json")).write_bytes(b"first")
    result(queue, 1)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"first"
    assert os.listdir(queue.path("tmp")) == []


def test_a_result_that_is_not_committed_stays_private(queue: OwnedQueue, clock: SetClock) -> None:
    held(queue, clock, attempt=2)
    for attempt in (1, 2):
        result(queue, attempt)
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == ["a@2.response.json"], "only the stale attempt's result is removed"
    assert os.listdir(queue.path("done")) == []


def test_the_clock_of_the_file_system_is_read_from_a_probe(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    first = Clock(str(probe)).file_system()
    os.utime(probe, (1, 1))
    assert Clock(str(probe)).file_system() >= first > 1e9


def test_a_result_whose_entry_is_gone_is_not_kept_for_the_ids_next_use(queue: OwnedQueue) -> None:
    """Retention removed the entry, and a loss of power brought the result's private name back."""
    fsops.write_private(queue.path("tmp", "a@2.response.json"), b"of the former one\n")
    fsops.write_private(queue.path("tmp", "b@0.response.json"), b"a refusal that is being made\n")
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == ["b@0.response.json"]


def test_the_results_of_two_owners_under_one_id_are_told_apart(tmp_path: Path, clock: SetClock) -> None:
    """A result of an earlier use of the id has another owner, and says nothing about the current submission."""
    layout.create(str(tmp_path))
    queue = OwnedQueue(str(tmp_path), attempts=3)
    mine, former = Entry("a", 1, 1001), Entry("a", 3, 1002)
    assert queue.add(mine, b"entry")
    queue.claim(mine, State.NEW, State.RUNNING)
    for entry in (mine, former):
        fsops.write_private(queue.path("tmp", result_name(entry)), b"result\n")
    publish_committed(queue, Log("test"))
    assert os.listdir(queue.path("tmp")) == [result_name(mine)]
    assert os.listdir(queue.path("ids")) == ["a"]


def test_no_result_is_removed_because_its_entry_cannot_be_looked_at(
    queue: OwnedQueue, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is committed. A disk that reports errors doesn't prove that it is gone."""
    entry = held(queue, clock)
    result = Path(queue.path("tmp", "a@1.response.json"))
    result.write_bytes(b"result\n")
    os.rename(queue.entry_path(State.RUNNING, entry), queue.path(State.DONE, "a.json"))

    def lstat(path: str, **_: object) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lstat)
        with pytest.raises(OSError, match="error"):
            publish_committed(queue, Log("test"))
    assert result.exists()
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"result\n"


def test_what_an_earlier_version_did_not_live_to_show_goes_too(queue: OwnedQueue) -> None:
    left = Path(queue.path("tmp", "runtime.json"))
    left.write_bytes(b"")
    os.utime(left, (1, 1))
    clear_private(queue, Clock(queue.path("tmp", "test.probe")))
    assert not left.exists()


@pytest.mark.parametrize("name", ["doctor-12", "doctor-12.probe"])
def test_what_a_doctor_did_not_live_to_remove_goes_after_an_hour(queue: OwnedQueue, name: str) -> None:
    path = Path(queue.path("tmp", name))
    path.write_bytes(b"")
    clear_private(queue, Clock(queue.path("tmp", "test.probe")))
    assert path.exists()
    os.utime(path, (1, 1))
    clear_private(queue, Clock(queue.path("tmp", "test.probe")))
    assert not path.exists()


@pytest.mark.parametrize("kind", Private)
def test_what_a_process_did_not_live_to_show_goes_after_an_hour(queue: OwnedQueue, kind: Private) -> None:
    old, young, result = (
        queue.private(kind, "old"),
        queue.private(kind, "young"),
        queue.path("tmp", "a@1.response.json"),
    )
    for path in (old, young, result):
        Path(path).write_bytes(b"")
    for path in (old, result):
        os.utime(path, (1, 1))
    clear_private(queue, Clock(queue.path("tmp", "test.probe")))
    assert (os.path.exists(old), os.path.exists(young), os.path.exists(result)) == (False, True, True)
