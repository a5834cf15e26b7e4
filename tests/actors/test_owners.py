"""The name of an entry on its way shows its owner, and ``ids/`` shows it for an id. A note alone reserves nothing."""

from __future__ import annotations

import os

import pytest

from spoold.host import fsops
from spoold.host.log import Log
from spoold.model.states import State
from spoold.spool.recovery import publish_committed
from spoold.spool.store import Spool
from spoold.upkeep.requeue import requeue
from tests.actors.bench import Bench
from tests.names import mine, named, result_named

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
OWNER, OTHER = 65534, 65533


def noted(bench: Bench, id_: str) -> str | None:
    return fsops.noted(str(bench.root / "ids" / id_))


def note(bench: Bench, id_: str, uid: int) -> None:
    (bench.root / "ids" / id_).symlink_to(str(uid))


def assert_refused(bench: Bench, id_: str, uid: int) -> None:
    """Assert that a file of that user is refused, and that the entry with the id stays the only one."""
    before = [bench.names(state) for state in ("new", "building", "running")]
    bench.drop_of(uid, id_)
    assert [bench.names(state) for state in ("new", "building", "running")] == before
    assert [name for name in bench.names("done") if name.startswith(f"{id_}@{uid}-")]


@needs_root
def test_an_entry_tells_its_owner_until_it_is_done(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.backend.gate.clear()
    bench.drop_of(OWNER, "a")
    bench.drop_of(OTHER, "b")
    entries = {named("a", owner=OWNER), named("b", owner=OTHER)}
    assert bench.names("new") == entries
    assert (noted(bench, "a"), noted(bench, "b")) == (str(OWNER), str(OTHER))
    bench.until(lambda: bench.names("building") == entries)
    bench.backend.gate.set()
    bench.until(lambda: bench.names("running") == entries)
    assert bench.names("ids") == {"a", "b"}
    bench.sandbox.gate.set()
    bench.wait_for("a", "b")
    bench.assert_nothing_is_left()


@needs_root
@pytest.mark.parametrize("of", [OWNER, OTHER])
def test_a_note_that_stands_for_nothing_reserves_nothing(bench: Bench, of: int) -> None:
    note(bench, "a", of)
    bench.drop_of(OWNER, "a")
    assert bench.names("new") == {named("a", owner=OWNER)}
    assert noted(bench, "a") == str(OWNER)
    assert_refused(bench, "a", OTHER)
    assert not bench.names("tmp")


@needs_root
@pytest.mark.parametrize("state", ["new", "building", "running"])
@pytest.mark.parametrize("lost", [True, False])
def test_intake_mends_the_notes_when_it_starts(bench: Bench, state: str, lost: bool) -> None:
    """A loss of power removed the note, or left the note of an earlier use of the id."""
    bench.drop_of(OWNER, "a")
    (bench.root / "new" / named("a", owner=OWNER)).rename(bench.root / state / named("a", owner=OWNER))
    (bench.root / "ids" / "a").unlink()
    if not lost:
        note(bench, "a", OTHER)
    bench.intake.start()
    assert noted(bench, "a") == str(OWNER)
    assert_refused(bench, "a", OTHER)


def test_intake_removes_what_stands_for_nothing_when_it_starts(bench: Bench) -> None:
    bench.drop("done")
    bench.wait_for("done")
    bench.assert_nothing_is_left()
    bench.drop("waits")
    for id_ in ("done", "never"):
        note(bench, id_, OTHER)
    (bench.root / "ids" / "odd").touch()
    bench.intake.start()
    assert bench.names("ids") == {"waits", "odd"}, "the check names files that are not notes"


@pytest.mark.parametrize("shown", [False, True])
def test_who_publishes_for_the_dead_removes_the_note(bench: Bench, shown: bool) -> None:
    bench.drop("a")
    (bench.root / "new" / named("a")).rename(bench.root / "done" / "a.json")
    result = bench.root / "tmp" / result_named("a")
    result.write_text('{"Submission_id": "a"}\n')
    if shown:
        (bench.root / "done" / "a.response.json").hardlink_to(result)
    bench.health.step()
    assert bench.names("ids") == bench.names("tmp") == set()
    assert bench.has("done", "a.response.json")


@needs_root
def test_what_is_requeued_is_noted_again(bench: Bench) -> None:
    bench.drop_of(OWNER, "a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    requeue(bench.spool, "a")
    assert bench.names("new") == {named("a", owner=OWNER)}
    assert noted(bench, "a") == str(OWNER)
    assert_refused(bench, "a", OTHER)


def test_a_holder_that_comes_late_leaves_what_was_requeued_its_note(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder stalls after its commit. Meanwhile another process publishes, and the id gets a second life."""
    holder = Spool(bench.settings, "holder").queue
    release = holder.release_id

    def come_late(id_: str) -> None:
        publish_committed(bench.spool.queue, Log("test"))
        assert bench.has("done", "a.response.json")
        requeue(bench.spool, id_)
        release(id_)

    bench.drop("a")
    holder.claim(mine("a"), State.NEW, State.RUNNING)
    monkeypatch.setattr(holder, "release_id", come_late)
    with pytest.raises(FileNotFoundError):  # the requeue removed its result
        holder.results.commit(mine("a"), State.RUNNING, b"first\n")
    assert bench.spool.queue.locate("a") == ("new", mine("a"))
    bench.wait_for("a")
    bench.assert_nothing_is_left()


def test_a_holder_that_ends_amid_a_requeueing_leaves_it_its_note(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    move, other = fsops.move, Spool(bench.settings, "holder").queue

    def move_late(source: str, target: str) -> bool:
        assert noted(bench, "a") == str(os.geteuid()), "the note is there before the entry leaves done/"
        other.release_id("a")
        return move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(fsops, "move", move_late)
        requeue(bench.spool, "a")
    assert bench.spool.queue.locate("a") == ("new", mine("a"))
