"""Entries move by one operation, which only one process can do. A worker that lost its lease cannot publish."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from spoold.host import fsops
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry
from spoold.model.states import Kind, State
from spoold.spool import layout
from spoold.spool import lease as lease_module
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.owned import OwnedQueue
from spoold.spool.queue import Queue
from tests.standins import SetClock
from tests.waiting import until


@pytest.fixture
def queue(tmp_path: Path) -> OwnedQueue:
    layout.create(str(tmp_path))
    return OwnedQueue(str(tmp_path), attempts=3)


def claimed(queue: OwnedQueue, id_: str = "a") -> Entry:
    entry = Entry(id_, 1)
    queue.add(entry, b"entry")
    queue.claim(entry, State.NEW, State.RUNNING)
    return entry


def noting(queue: OwnedQueue, interval: float) -> Heartbeat:
    heartbeat = Heartbeat(interval, queue.path("tmp", "test.held"))
    heartbeat.start()
    return heartbeat


def names(queue: OwnedQueue, state: str) -> set[str]:
    return {name for name in os.listdir(queue.path(state)) if not name.endswith((".probe", ".lock"))}


def test_an_entry_is_added_once(queue: OwnedQueue) -> None:
    assert queue.add(Entry("a", 1), b"one")
    assert not queue.add(Entry("a", 1), b"two")
    assert queue.read(State.NEW, Entry("a", 1)) == b"one"
    assert not names(queue, "tmp")


def test_ids_of_one_owner_are_names_of_one_note(queue: OwnedQueue) -> None:
    """A file for each id would take longer than all other notes."""
    for entry in (Entry("a", 1, 1001), Entry("b", 1, 1001), Entry("c", 1, 1002)):
        assert queue.add(entry, b"entry")
    assert [os.readlink(queue.path("ids", id_)) for id_ in "abc"] == ["1001", "1001", "1002"]
    a, b, c = (os.lstat(queue.path("ids", id_)).st_ino for id_ in "abc")
    assert (a == b, a == c) == (True, False)
    queue.release_id("b")
    assert queue.add(Entry("d", 1, 1001), b"entry"), "the last link of the note is gone, so a new one is made"
    assert os.readlink(queue.path("ids", "d")) == "1001"


def test_a_note_that_is_anothers_by_now_is_not_made_again(queue: OwnedQueue) -> None:
    assert queue.add(Entry("a", 1, 1001), b"entry")
    os.unlink(queue.path("ids", "a"))
    os.symlink("1002", queue.path("ids", "a"))
    assert queue.add(Entry("b", 1, 1001), b"entry")
    assert os.readlink(queue.path("ids", "b")) == "1001"


def test_a_note_may_have_as_many_names_as_it_can(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def only_files(source: str, target: str, **options: bool) -> None:
        if os.path.islink(source):
            raise OSError(errno.EMLINK, "Too many links", source)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", only_files)
    for id_ in "ab":
        assert queue.add(Entry(id_, 1, 1001), b"entry")
    assert [os.readlink(queue.path("ids", id_)) for id_ in "ab"] == ["1001", "1001"]


def test_an_id_is_found_by_what_is_noted_of_it(tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    queue = OwnedQueue(str(tmp_path), attempts=3)
    entry = Entry("a", 1, 1001)
    assert queue.add(entry, b"one")
    assert (names(queue, "new"), os.readlink(queue.path("ids", "a"))) == ({"a@1001-1.json"}, "1001")
    assert queue.locate("a") == ("new", entry)
    assert not queue.add(Entry("a", 1, 1002), b"two")
    assert (names(queue, "new"), names(queue, "tmp")) == ({"a@1001-1.json"}, set())
    queue.claim(entry, State.NEW, State.RUNNING)
    second = queue.fence(entry, State.RUNNING)
    assert second == Entry("a", 2, 1001)
    assert queue.locate("a") == ("running", second)
    os.unlink(queue.path("ids", "a"))
    assert queue.locate("a") is None
    assert queue.locate("a", entry) == ("running", second), "with the entry's name no note is needed"
    queue.results.commit(second, State.RUNNING, b"result\n")
    assert queue.locate("a") == ("done", Entry("a", 1))


def test_builds_leave_no_notes(tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    builds = Queue(str(tmp_path / "builds"), Kind.BUILD, attempts=3)
    for id_ in "ab":
        assert builds.add(Entry(id_, 1), b"build")
        builds.claim(Entry(id_, 1), State.NEW, State.BUILDING)
    builds.results.commit(Entry("a", 1), State.BUILDING, b"result\n")
    assert not os.listdir(tmp_path / "ids")


def test_of_many_claims_one_succeeds(queue: OwnedQueue) -> None:
    queue.add(Entry("a", 1), b"entry")
    won: list[str] = []

    def claim() -> None:
        with contextlib.suppress(LeaseLostError):
            won.append(queue.claim(Entry("a", 1), State.NEW, State.RUNNING))

    threads = [threading.Thread(target=claim) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [queue.path("running", "a@1.json")]


def test_a_claim_renews_the_mtime_so_that_a_long_wait_is_no_dead_worker(queue: OwnedQueue) -> None:
    queue.add(Entry("a", 1), b"entry")
    os.utime(queue.path("new", "a.json"), (1, 1))
    queue.claim(Entry("a", 1), State.NEW, State.RUNNING)
    assert os.stat(queue.path("running", "a@1.json")).st_mtime > 1e9


def test_a_claim_that_was_made_is_one_also_where_its_mtime_cannot_be_set_again(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(path: str) -> bool:
        if "/running/" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return True

    queue.add(Entry("a", 1), b"entry")
    monkeypatch.setattr(fsops, "touch", touch)
    assert queue.claim(Entry("a", 1), State.NEW, State.RUNNING) == queue.path(State.RUNNING, "a@1.json")


def test_a_commit_publishes_once_and_leaves_nothing_private(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    queue.results.commit(entry, State.RUNNING, b"result\n", (os.geteuid(), os.getegid()))
    assert names(queue, "done") == {"a.json", "a.response.json"}
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"result\n"
    assert os.stat(queue.path("done", "a.response.json")).st_mode & 0o777 == 0o400
    assert not names(queue, "tmp")
    assert not names(queue, "running")


def test_a_holder_that_lost_its_lease_cannot_publish(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    assert queue.give_back(entry, State.RUNNING, 2)
    with pytest.raises(LeaseLostError):
        queue.results.commit(entry, State.RUNNING, b"late\n")
    second = Entry("a", 2)
    queue.claim(second, State.NEW, State.RUNNING)
    with pytest.raises(LeaseLostError):
        queue.results.commit(entry, State.RUNNING, b"late\n")
    queue.results.commit(second, State.RUNNING, b"second\n")
    with pytest.raises(LeaseLostError):
        queue.results.commit(entry, State.RUNNING, b"late\n")
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"second\n"
    assert not names(queue, "tmp")


@pytest.mark.parametrize(("slow", "renewed"), [(-1.0, True), (3600.0, False)])
def test_a_claim_that_was_slow_renews_the_mtime_once_more(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch, slow: float, renewed: bool
) -> None:
    """Otherwise its lease would begin too far in the past. A quick claim saves that."""
    queue.add(Entry("a", 1), b"entry")
    move = fsops.move

    def late(source: str, target: str) -> bool:
        os.utime(source, (1, 1))
        return move(source, target)

    monkeypatch.setattr(fsops, "move", late)
    monkeypatch.setattr("spoold.spool.queue.SLOW", slow)
    path = queue.claim(Entry("a", 1), State.NEW, State.RUNNING)
    assert (os.stat(path).st_mtime > 1) is renewed


def test_a_wish_is_heeded_long_before_the_next_renewal(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEED", 0.05)
    entry = claimed(queue)
    path, wish = queue.entry_path(State.RUNNING, entry), queue.path("tmp", "a.cancel")
    with noting(queue, 1000).holding(path, wish) as lease:
        os.utime(path, (1, 1))
        Path(wish).write_bytes(b"another file asks for nothing")
        assert not lease.stop.wait(0.3)
        os.unlink(wish)
        os.link(path, wish)
        assert lease.stop.wait(100)
        assert (lease.cancelled, lease.lost, os.stat(path).st_mtime) == (True, False, 1)


def test_a_late_renewal_does_nothing_and_tells(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    heartbeat = noting(queue, 1000)
    with heartbeat.holding(queue.entry_path(State.RUNNING, entry)) as lease:
        heartbeat.beat()
        lease.check()
        queue.give_back(entry, State.RUNNING, 2)
        queue.claim(Entry("a", 2), State.NEW, State.RUNNING)
        os.utime(queue.path("running", "a@2.json"), (1, 1))
        heartbeat.beat()
        assert lease.lost
        assert lease.stop.is_set()
        with pytest.raises(LeaseLostError):
            lease.check()
    assert os.stat(queue.path("running", "a@2.json")).st_mtime == 1


def test_a_heartbeat_renews_in_the_background(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    path = queue.entry_path(State.RUNNING, entry)
    heartbeat = noting(queue, 0.02)
    with heartbeat.holding(path):
        os.utime(path, (1, 1))
        until(lambda: os.stat(path).st_mtime > 1)
    heartbeat.stop()
    assert os.stat(path).st_mtime > 1
    os.utime(path, (1, 1))
    heartbeat.beat()
    assert os.stat(path).st_mtime == 1, "an entry that is not held any more is not renewed"


def test_what_a_killed_process_held_is_known_to_the_next_of_its_role(queue: OwnedQueue) -> None:
    entry, other = claimed(queue), claimed(queue, "b")
    first = noting(queue, 1000)
    with first.holding(queue.entry_path(State.RUNNING, other)):
        pass
    holding = first.holding(queue.entry_path(State.RUNNING, entry))
    holding.__enter__()  # the process is killed here
    second = Heartbeat(1000, queue.path("tmp", "test.held"))
    assert second.start() == [entry]
    third = Heartbeat(1000, queue.path("tmp", "test.held"))
    assert third.start() == [], "it is told once"
    for heartbeat in (first, second, third):
        heartbeat.stop()


def test_the_note_of_what_is_committed_is_the_next_ones_since_now(queue: OwnedQueue) -> None:
    """Making and removing a file for each job would take longer than all other notes."""
    heartbeat = noting(queue, 1000)
    first, second = (queue.entry_path(State.RUNNING, claimed(queue, id_)) for id_ in ("a", "b"))
    note, later = (queue.path("tmp", f"test.held/{os.path.basename(path)}") for path in (first, second))
    with heartbeat.holding(first) as lease:
        inode = os.lstat(note).st_ino
        os.utime(note, (1, 1), follow_symlinks=False)
        lease.ended = True
    with heartbeat.holding(second):
        assert os.listdir(queue.path("tmp", "test.held")) == [os.path.basename(second)]
        assert os.lstat(later).st_ino == inode
        assert os.lstat(later).st_mtime > 1, "the note has the time since when this entry is held"
    assert os.listdir(queue.path("tmp", "test.held")) == [], "an entry without a commit may be held by that name again"
    heartbeat.stop()


@pytest.mark.parametrize("when", ["tidy", "beat"])
def test_the_note_of_what_is_committed_goes_where_nothing_follows(queue: OwnedQueue, when: str) -> None:
    heartbeat = noting(queue, 1000)
    with heartbeat.holding(queue.entry_path(State.RUNNING, claimed(queue))) as lease:
        lease.ended = True
    getattr(heartbeat, when)()
    assert os.listdir(queue.path("tmp", "test.held")) == []
    heartbeat.stop()


def test_a_note_that_cannot_be_had_again_goes_all_the_same(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: str) -> bool:
        raise OSError(30, "Read-only file system")

    heartbeat = noting(queue, 1000)
    first, second = (queue.entry_path(State.RUNNING, claimed(queue, id_)) for id_ in ("a", "b"))
    with heartbeat.holding(first) as lease:
        lease.ended = True
    with monkeypatch.context() as patch:
        patch.setattr(fsops, "move", read_only)
        with heartbeat.holding(second):
            pass
    assert os.listdir(queue.path("tmp", "test.held")) == []
    heartbeat.stop()


def test_who_begins_to_hold_while_all_are_asked_to_stop_is_asked_as_well(queue: OwnedQueue) -> None:
    heartbeat = noting(queue, 1000)
    first, second = (queue.entry_path(State.RUNNING, claimed(queue, id_)) for id_ in ("a", "b"))
    with heartbeat.holding(first) as lease:
        heartbeat.stop_holders()
        assert lease.stop.is_set()
    with heartbeat.holding(second) as lease:
        assert lease.stop.is_set()
    heartbeat.stop()


def test_what_nobody_works_on_is_not_renewed_because_its_note_cannot_be_removed(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_: str) -> None:
        raise OSError(30, "Read-only file system")

    path = queue.entry_path(State.RUNNING, claimed(queue))
    heartbeat = noting(queue, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(fsops, "remove", read_only)
        with heartbeat.holding(path):
            pass
    os.utime(path, (1, 1))
    assert os.listdir(queue.path("tmp", "test.held"))
    heartbeat.beat()
    assert os.stat(path).st_mtime == 1
    assert not os.listdir(queue.path("tmp", "test.held"))
    heartbeat.stop()


def test_the_next_attempt_is_due_after_a_pause_that_grows(tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    queue = OwnedQueue(str(tmp_path), attempts=10, pause=5.0)
    clock = SetClock()
    queue.add(Entry("a", 1), b"entry")
    pauses = []
    for attempt in range(1, 10):
        queue.claim(Entry("a", attempt), State.NEW, State.RUNNING)
        assert queue.retry(Entry("a", attempt), State.RUNNING)
        mtime = os.stat(queue.path("new", f"a@{attempt + 1}.json")).st_mtime
        clock.there = mtime + 1
        pauses.append(round(queue.due(Entry("a", attempt + 1), mtime, clock) - clock.monotonic()) + 1)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert not queue.retry(Entry("a", 1), State.RUNNING)


def test_a_stepped_clock_makes_no_pause_longer(tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    queue = OwnedQueue(str(tmp_path), attempts=3, pause=5.0)
    clock = SetClock()
    a_year_on = clock.file_system() + 3e7
    assert queue.due(Entry("a", 3), a_year_on, clock) == clock.monotonic() + 10


def test_publication_never_replaces(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    Path(queue.path("done", "a.response.json")).write_bytes(b"there already\n")
    queue.results.commit(entry, State.RUNNING, b"mine\n")
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"there already\n"


def test_nor_does_a_publication_by_rename(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux checks for a taken name before it refuses the link. A file server may not."""

    def link(*_: object, **__: object) -> None:
        raise PermissionError

    entry = claimed(queue)
    Path(queue.path("done", "a.response.json")).write_bytes(b"there already\n")
    queue.results.commit(entry, State.RUNNING, b"mine\n", tidy=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        queue.results.publish(entry)
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"there already\n"


def test_publishing_may_be_repeated(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    queue.results.commit(entry, State.RUNNING, b"result\n")
    queue.results.publish(entry)
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"result\n"


@pytest.mark.parametrize(
    ("state", "entry"),
    [
        (State.NEW, Entry("a", 1)),
        (State.NEW, Entry("a", 3)),
        (State.BUILDING, Entry("a", 2)),
        (State.RUNNING, Entry("a", 4)),
    ],
)
def test_an_entry_is_found_wherever_it_is(queue: OwnedQueue, state: State, entry: Entry) -> None:
    assert queue.locate("a") is None
    Path(queue.entry_path(state, entry)).write_bytes(b"entry")
    queue.take_over_id(entry)
    assert queue.locate("a") == (state, entry)


def test_a_finished_entry_is_found_and_can_be_read(queue: OwnedQueue) -> None:
    queue.results.commit(claimed(queue), State.RUNNING, b"result\n")
    place = queue.locate("a")
    assert place is not None
    assert place[0] == "done"
    assert queue.read(*place) == b"entry"


def test_an_entry_that_is_put_back_while_one_looks_is_found(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry goes back between the look into new/ and the one into running/. The next look finds it."""
    entry = claimed(queue)
    exists = fsops.exists

    def exists_and_put_back(path: str) -> bool:
        if path == queue.entry_path(State.RUNNING, entry):
            queue.give_back(entry, State.RUNNING, 2)
        return exists(path)

    monkeypatch.setattr(fsops, "exists", exists_and_put_back)
    assert queue.locate("a") == ("new", Entry("a", 2))


def test_fencing_takes_an_entry_from_its_holder(queue: OwnedQueue) -> None:
    entry = claimed(queue)
    assert queue.fence(entry, State.RUNNING) == Entry("a", 2)
    assert queue.fence(entry, State.RUNNING) is None
    with pytest.raises(LeaseLostError):
        queue.results.commit(entry, State.RUNNING, b"late\n")


def test_private_names_go_after_one_sync_for_many(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = fsops.sync_directory

    def sync(path: str) -> None:
        synced.append(os.path.basename(path.rstrip("/")))
        real(path)

    entries = [claimed(queue, f"a{number}") for number in range(3)]
    monkeypatch.setattr(fsops, "sync_directory", sync)
    for entry in entries:
        queue.results.commit(entry, State.RUNNING, b"result", tidy=False)
    assert synced == ["tmp", "done"] * 3
    assert len(names(queue, "done")) == 6  # all are published
    assert len(names(queue, "tmp")) == 1  # the sync after each commit was good for the publications before it as well
    queue.results.tidy()
    assert synced == ["tmp", "done"] * 3 + ["done"]
    assert not names(queue, "tmp")
    queue.results.tidy()
    assert len(synced) == 7  # there was nothing to do


def test_results_that_are_ready_together_share_syncs(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several entries lost its lease. The others are published all the same."""
    synced, go_on, lost, real = list[str](), threading.Event(), list[Entry](), fsops.sync_directory

    def sync(path: str) -> None:
        synced.append(os.path.basename(path.rstrip("/")))
        go_on.wait()
        real(path)

    def commit(entry: Entry) -> None:
        try:
            queue.results.commit(entry, State.RUNNING, b"result", tidy=False)
        except LeaseLostError:
            lost.append(entry)

    entries = [claimed(queue, f"a{number}") for number in range(4)]
    threads = [threading.Thread(target=commit, args=(entry,)) for entry in entries]
    monkeypatch.setattr(fsops, "sync_directory", sync)
    threads[0].start()
    until(lambda: synced)
    os.rename(queue.entry_path(State.RUNNING, entries[2]), queue.entry_path(State.NEW, entries[2]))
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(queue.results._together._waiting) == 3)
    go_on.set()
    for thread in threads:
        thread.join()
    assert (synced, lost) == (["tmp", "done"] * 2, [entries[2]])
    assert names(queue, "done") == {f"a{n}{ending}" for n in (0, 1, 3) for ending in (".json", ".response.json")}


def test_a_commit_whose_answer_was_lost_is_a_commit(queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client that got no answer asks again, and is told that the old name doesn't exist."""

    def move_twice(source: str, target: str) -> bool:
        os.rename(source, target)
        return False

    entry = claimed(queue)
    monkeypatch.setattr(fsops, "move", move_twice)
    queue.results.commit(entry, State.RUNNING, b"result\n")
    assert names(queue, "done") == {"a.json", "a.response.json"}
    assert not names(queue, "tmp")


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_that_reports_an_error_is_one_where_it_was_made(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """The file server went away after the commit, or before it."""

    def move(source: str, target: str) -> bool:
        if done:
            os.rename(source, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    entry = claimed(queue)
    monkeypatch.setattr(fsops, "move", move)
    with contextlib.nullcontext() if done else pytest.raises(OSError, match="error"):
        queue.results.commit(entry, State.RUNNING, b"result\n")
    assert names(queue, "done") == ({"a.json", "a.response.json"} if done else set())


@pytest.mark.parametrize("is_shown", [False, True])
def test_a_commit_that_came_late_shows_nothing(
    queue: OwnedQueue, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = claimed(queue)
    mine = queue.fence(late, State.RUNNING)
    assert mine
    with monkeypatch.context() as patched:
        if not is_shown:
            patched.setattr(queue.results, "_link", lambda _: None)
        queue.results.commit(mine, State.RUNNING, b"second\n", tidy=is_shown)
    with pytest.raises(LeaseLostError):
        queue.results.commit(late, State.RUNNING, b"first\n")
    if not is_shown:
        queue.results.publish(mine)
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"second\n"
    assert not names(queue, "tmp")


def test_a_claim_that_has_just_been_made_does_not_look_like_a_dead_worker(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mtime is new from the moment of the rename on, even if the holder sets it late."""
    queue.add(Entry("a", 1), b"entry")
    os.utime(queue.path("new", "a.json"), (1, 1))
    seen = []

    def move(source: str, target: str) -> bool:
        os.rename(source, target)
        seen.append(os.stat(target).st_mtime)
        return True

    monkeypatch.setattr(fsops, "move", move)
    queue.claim(Entry("a", 1), State.NEW, State.RUNNING)
    assert seen[0] > 1e9


def test_a_lease_that_its_holder_lets_go_of_while_it_is_renewed(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewing thread is not harmed, and goes on to renew others' leases."""
    heartbeat = noting(queue, 60.0)
    first = queue.entry_path(State.RUNNING, claimed(queue, "a"))
    second = queue.entry_path(State.RUNNING, claimed(queue, "b"))
    real = Lease.renew
    with heartbeat.holding(second) as other, contextlib.ExitStack() as stack:
        stack.enter_context(heartbeat.holding(first))

        def renew(lease: Lease) -> None:
            if lease is not other:
                stack.close()
            real(lease)

        monkeypatch.setattr(Lease, "renew", renew)
        os.utime(second, (1, 1))
        heartbeat.beat()
        assert os.stat(second).st_mtime > 1
        assert not other.lost
    heartbeat.stop()
