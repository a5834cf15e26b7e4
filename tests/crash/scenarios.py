"""Paths through the state table, each a few steps of the actors. A new one needs a line in ``SCENARIOS``.

``test_every_transition_is_taken`` checks that together they take every transition of the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

from spoold.model import retention
from spoold.model.collection import Order, Rules
from spoold.model.errors import LeaseLostError, OperatorError
from spoold.model.ids import Entry
from spoold.model.limits import Limits, OutputLimits
from spoold.model.response import Response, Status
from spoold.model.states import State
from spoold.spool.queue import Queue
from spoold.spool.results import Results
from spoold.spool.store import Spool
from spoold.spool.together import Together
from spoold.upkeep.requeue import requeue
from tests.crash.world import CLIENT, World, pass_time
from tests.names import mine

MONTH = 31 * 86400.0
Allowed = dict[str, set[str]]
COMPLETED, REJECTED = {str(Status.COMPLETED)}, {str(Status.REJECTED)}
CANCELLED = {str(Status.CANCELLED), str(Status.COMPLETED)}
FAILED, OURS = {str(Status.DEPENDENCIES_FAILED)}, {str(Status.INTERNAL_ERROR)}


class Scenario(NamedTuple):
    """``warm`` runs before the recording.

    ``allowed`` has the statuses of responses that may be other than COMPLETED.
    """

    run: Callable[[World], None]
    warm: Callable[[World], None] = lambda _: None
    allowed: Allowed = {}  # noqa: RUF012 - never changed
    changes: dict[str, Any] = {}  # noqa: RUF012 - changed settings
    mend: Callable[[World], None] = lambda _: None  # the operator's repair afterwards
    anew: tuple[str, ...] = ()  # answers that an operator wants anew, so they may change


def a_build_exists(world: World) -> None:
    world.drop("warm")
    world.settle()


def with_a_new_build(world: World) -> None:
    world.drop("a")
    world.step()
    world.step()


def with_a_build_that_exists(world: World) -> None:
    world.drop("a")
    world.step()


def many_at_once(world: World) -> None:
    for id_ in ("a", "b", "c"):
        world.drop(id_)
    world.step()
    world.step()


def have_two_taken_in(world: World) -> None:
    world.drop("a")
    world.drop("b")
    world.step("intake")


def health_looks_meanwhile(world: World) -> None:
    """Health looks for results to publish while a published response's name is not synced yet."""
    have_two_taken_in(world)

    def at_the_second() -> None:
        world.sandbox.before_end = world.health.step

    world.sandbox.before_end = at_the_second
    world.step("executor")


def committed_together(world: World) -> None:
    """Two results are ready while others are being committed. The executor dies before their private names go."""
    have_two_taken_in(world)
    other, wishes = Spool(world.settings, "other", executes=True), list[Any]()
    with mock.patch.object(Together, "do", lambda _, wish: wishes.append(wish)):
        for entry in (mine("a", 1, CLIENT), mine("b", 1, CLIENT)):
            other.queue.claim(entry, State.NEW, State.RUNNING)
            submission = other.read(State.RUNNING, entry)
            other.finish(entry, Response(status=Status.COMPLETED), submission.Spool, tidy=False)
    other.queue.results._commit_all(wishes)


def a_build_that_fails(world: World) -> None:
    world.drop("a", "broken")
    world.step()
    world.step()
    pass_time(100)
    world.step("health")


def refusals(world: World) -> None:
    world.drop_bytes("a", b"[1]")
    world.drop_bytes("b", b'{"files"')
    world.drop_link("c")
    world.step("intake")
    pass_time(2)
    world.step()


def names_that_are_none(world: World) -> None:
    for data in (b"[1]", b"[1]", b"PK"):
        world.drop_misnamed("hw (1).json", data)
        world.step("intake")
        pass_time(2)
        world.step("intake")
    world.step()


def an_id_that_is_used(world: World) -> None:
    world.drop("a")
    world.step("intake")
    world.drop("a", inputs="other")
    world.step("intake")
    world.drop("a")
    world.step()
    world.drop("a", inputs="more")
    world.step()


def a_build_exists_and_files_returned(world: World) -> None:
    world.drop("warm", outputs=FILES)
    world.settle()


def files_that_come_back(world: World) -> None:
    for id_ in ("a", "b"):
        world.drop(id_, outputs=FILES)
    world.step()
    world.step()


def files_of_cases_that_come_back(world: World) -> None:
    world.drop("a", outputs=FILES, cases=[{"name": "first"}, {"name": "second"}])
    world.step()
    world.step()


def files_shown_by_another(world: World) -> None:
    """The executor dies between commit and published files, and another one between these and the response."""
    for id_, step in (("a", "_link_tar"), ("b", "_link")):
        world.drop(id_, outputs=FILES)
        world.step("intake")
        with mock.patch.object(Results, step, side_effect=Died), contextlib.suppress(Died):
            world.step("executor")
        world = World(world.root, **RETURNED).start()


def files_of_an_attempt_that_is_lost(world: World) -> None:
    """The executor stalls after it wrote its result. The next attempt returns no files."""
    world.drop("a", outputs=FILES)
    world.step("intake")
    with mock.patch.object(Results, "_move_to_done", side_effect=Died), contextlib.suppress(Died):
        world.step("executor")
    again = World(world.root, **RETURNED).start()
    again.sandbox.returns = False
    pass_time(20)
    again.step()


def an_engine_that_goes_away(world: World) -> None:
    world.drop("a")
    world.step("intake")
    world.sandbox.away = True
    world.step("executor")
    world.sandbox.away = False
    world.step("executor")
    world.step("executor")


def a_job_that_fails_the_engine(world: World) -> None:
    world.sandbox.failures = world.settings.lease.attempts
    try_each_time(world)


def executors_that_die(world: World) -> None:
    world.drop("a")
    world.step("intake")
    die_each_time(world, world.spool.queue, lambda attempt: mine("a", attempt, CLIENT), State.RUNNING)
    world.step("health")


def builders_that_die(world: World) -> None:
    world.drop("a")
    world.step("intake", "executor")
    build = world.builds.queue.entries(State.NEW)[0].id
    die_each_time(world, world.builds.queue, lambda attempt: Entry(build, attempt), State.BUILDING)
    world.step()


def die_each_time(world: World, queue: Queue, entry: Callable[[int], Entry], state: State) -> None:
    """Claim an entry for each allowed attempt, and never come back."""
    for attempt in range(1, world.settings.lease.attempts + 1):
        queue.claim(entry(attempt), State.NEW, state)
        world.step("health")
        pass_time(31)
        world.step("health")


def a_store_that_fails(world: World) -> None:
    world.backend.failures = world.settings.lease.attempts
    try_each_time(world)


def try_each_time(world: World) -> None:
    """Go on until all allowed attempts are used."""
    world.drop("a")
    for _ in range(world.settings.lease.attempts + 1):
        world.step()
        pass_time(20)


def an_entry_that_waits_without_a_build(world: World) -> None:
    world.drop("a")
    world.step("intake")
    for attempt in range(1, world.settings.lease.attempts + 1):
        world.spool.queue.claim(mine("a", attempt, CLIENT), State.NEW, State.BUILDING)
        for _ in range(3):  # health looks at these once per lease
            pass_time(31)
            world.step("health")
    world.step()


def a_wait_that_is_bounded(world: World) -> None:
    world.backend.away = True
    world.drop("a", limits={"dependencies": {"time": 5}})
    world.step("intake", "executor", "builder")
    pass_time(6)
    world.step("executor")
    world.backend.away = False


def a_list(world: World) -> None:
    world.drop("a", kind="list-dependencies")
    world.step()


def a_collection(world: World) -> None:
    pass_time(1000)
    world.builds.orders.file("now", Order())
    world.step("builder")
    world.builds.orders.forget("now")
    world.drop("a")
    world.step()
    world.step()


def a_build_that_is_collected_under_a_submission(world: World) -> None:
    world.drop("a")
    world.step("intake")
    world.executor.step()
    world.builds.forget(world.builds.finished())
    world.work()
    world.step()
    world.step()


def a_stop(world: World) -> None:
    world.drop("a")
    world.drop("b", "# another")
    world.step("intake", "executor")
    world.executor.stop()
    world.builder.stop()


def a_start(world: World) -> None:
    world.builds.pins.set({"other": "/srv/other"})
    world.step("builder")
    World(world.root).start()


class Died(BaseException):
    """The process is dead."""


def another_shows_it(world: World) -> None:
    """The executor dies between the commit and the publication."""
    world.drop("a")
    world.step("intake")
    with mock.patch.object(Results, "_link", side_effect=Died), contextlib.suppress(Died):
        world.step("executor")
    World(world.root).start()


def a_commit_that_comes_late(world: World) -> None:
    """The executor stalls with its result written, loses its lease, and goes on after the next attempt committed."""
    world.drop("a")
    world.step("intake")

    def stall() -> None:
        world.health.step()
        pass_time(31)
        world.health.step()
        other, entry = Spool(world.settings, "other", executes=True), mine("a", 2, CLIENT)
        with contextlib.suppress(LeaseLostError):
            other.queue.claim(entry, State.NEW, State.RUNNING)
            submission = other.read(State.RUNNING, entry)
            other.finish(entry, Response(status=Status.COMPLETED), submission.Spool)

    world.sandbox.before_end = stall
    world.step("executor")
    world.step()


def a_claim_in_vain(world: World) -> None:
    """The disk is full when the executor wants to run."""
    world.drop("a")
    world.step("intake")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world.sandbox.run, real = full, world.sandbox.run  # type: ignore[method-assign, assignment]
    world.step("executor")
    world.sandbox.run = real  # type: ignore[method-assign]
    world.step()


def cancelled_early(world: World) -> None:
    world.drop("a")
    world.step("intake")
    world.cancel("a")
    world.step("intake")
    world.step()


def cancelled_while_it_waits(world: World) -> None:
    world.drop("a", "# slow")
    world.step("intake", "executor")
    world.cancel("a")
    world.step("intake")
    world.step()


def cancelled_while_it_runs(world: World) -> None:
    """The executor learns of it at its next renewal."""

    def renew() -> None:
        world.executor._slots._heartbeat.beat()

    cancel_running(world, renew)
    world.step()


def cancelled_in_vain(world: World) -> None:
    """The executor has ended the job before it learns of the cancel."""
    cancel_running(world, lambda: None)
    world.step()


def cancelled_without_an_answer(world: World) -> None:
    """The executor stalls longer than intake waits for it, and then goes on."""

    def stall() -> None:
        pass_time(11)
        world.intake.step()
        world.executor._slots._heartbeat.beat()

    cancel_running(world, stall)
    world.step()


def cancel_running(world: World, then: Callable[[], None]) -> None:
    have_two_taken_in(world)

    def cancel() -> None:
        world.cancel("a")
        world.intake.step()
        then()

    world.sandbox.before_end = cancel
    world.step("executor")
    pass_time(11)


def cancelled_late(world: World) -> None:
    world.drop("a")
    world.step()
    world.cancel("a")
    world.cancel("never")
    world.step("intake")
    pass_time(2)
    world.step("intake")


def requeued(world: World) -> None:
    with contextlib.suppress(OperatorError):  # it may be on its way already
        requeue(world.spool, "warm")
    world.step()


def what_is_old_goes(world: World, **keys: Any) -> None:
    """The id is used again. The second submission returns no files."""
    pass_time(MONTH)
    world.step("health")
    world.sandbox.returns = False
    world.drop("warm", **keys)
    world.step()
    world.step()


def swept(world: World, **keys: Any) -> None:
    """The next process ends the sweep.

    Everything was archived before its removal, and the id is free without an old answer.
    """
    entry = world.root / "done" / "warm.json"
    assert entry.exists() or (world.root.parent / "warm.json").exists()
    pass_time(2 * MONTH)
    world.step("health")
    assert not entry.exists()
    assert not entry.with_name("warm.response.json").exists()
    assert not entry.with_name("warm.outputs.tar").exists()
    world.drop("warm", **keys)


FILES = [{"path": "*"}]
RETURNED: dict[str, Any] = {"limits": Limits(outputs=OutputLimits(inline=1000))}
GIVEN_AWAY = {"answers": "owner"}
BY_HEALTH = {"published_by": "health"}
ARCHIVED = {"retention": retention.Rules(archive=["xargs", "cp", "-pt", "../.."])}
SCENARIOS: dict[str, Scenario] = {
    "new build": Scenario(with_a_new_build),
    "existing build": Scenario(with_a_build_that_exists, a_build_exists),
    "many": Scenario(many_at_once, a_build_exists),
    "together": Scenario(committed_together, a_build_exists),
    "together, given away": Scenario(committed_together, a_build_exists, changes=GIVEN_AWAY),
    "together, by health": Scenario(committed_together, a_build_exists, changes=BY_HEALTH),
    "health meanwhile": Scenario(health_looks_meanwhile, a_build_exists),
    "failing build": Scenario(a_build_that_fails, allowed={"a": FAILED}),
    "refusals": Scenario(refusals, allowed=dict.fromkeys("abc", REJECTED)),
    "misnamed": Scenario(names_that_are_none),
    "used id": Scenario(an_id_that_is_used, a_build_exists),
    "engine away": Scenario(an_engine_that_goes_away, a_build_exists),
    "failing job": Scenario(a_job_that_fails_the_engine, a_build_exists, {"a": OURS | COMPLETED}),
    "dying executors": Scenario(executors_that_die, a_build_exists, {"a": OURS | COMPLETED}),
    "dying builders": Scenario(builders_that_die, allowed={"a": OURS | COMPLETED}),
    "failing store": Scenario(a_store_that_fails, allowed={"a": OURS | COMPLETED}),
    "no build": Scenario(an_entry_that_waits_without_a_build, allowed={"a": OURS | COMPLETED}),
    "bounded wait": Scenario(a_wait_that_is_bounded, allowed={"a": FAILED | COMPLETED}),
    "list": Scenario(a_list, a_build_exists),
    "collection": Scenario(a_collection, a_build_exists, changes={"gc": Rules(max_age=500, interval=0)}),
    "collected": Scenario(a_build_that_is_collected_under_a_submission, a_build_exists),
    "stop": Scenario(a_stop, a_build_exists),
    "start": Scenario(a_start, a_build_exists),
    "shown by another": Scenario(another_shows_it, a_build_exists),
    "cancelled early": Scenario(cancelled_early, allowed={"a": CANCELLED}),
    "cancelled waiting": Scenario(cancelled_while_it_waits, allowed={"a": CANCELLED}),
    "cancelled running": Scenario(cancelled_while_it_runs, a_build_exists, {"a": CANCELLED}),
    "cancelled in vain": Scenario(cancelled_in_vain, a_build_exists, {"a": CANCELLED}),
    "cancelled, no answer": Scenario(cancelled_without_an_answer, a_build_exists, {"a": CANCELLED}),
    "cancelled late": Scenario(cancelled_late, a_build_exists),
    "requeued": Scenario(requeued, a_build_exists, mend=requeued, anew=("warm.response.json",)),
    "retention": Scenario(
        what_is_old_goes,
        a_build_exists,
        changes=ARCHIVED,
        mend=swept,
        anew=("warm.response.json",),
    ),
    "given away": Scenario(many_at_once, a_build_exists, changes=GIVEN_AWAY),
    "given away, refused": Scenario(refusals, allowed=dict.fromkeys("abc", REJECTED), changes=GIVEN_AWAY),
    "given away, misnamed": Scenario(names_that_are_none, changes=GIVEN_AWAY),
    "given away, used id": Scenario(an_id_that_is_used, a_build_exists, changes=GIVEN_AWAY),
    "given away, requeued": Scenario(
        requeued, a_build_exists, changes=GIVEN_AWAY, mend=requeued, anew=("warm.response.json",)
    ),
    "given away, retention": Scenario(
        what_is_old_goes, a_build_exists, changes=GIVEN_AWAY | ARCHIVED, mend=swept, anew=("warm.response.json",)
    ),
    "by health": Scenario(many_at_once, a_build_exists, changes=BY_HEALTH),
    "by health, failing build": Scenario(a_build_that_fails, allowed={"a": FAILED}, changes=BY_HEALTH),
    "by health, dying executors": Scenario(
        executors_that_die, a_build_exists, {"a": OURS | COMPLETED}, changes=BY_HEALTH
    ),
    "by health, lost before the commit": Scenario(a_commit_that_comes_late, a_build_exists, changes=BY_HEALTH),
    "by health, cancelled running": Scenario(cancelled_while_it_runs, a_build_exists, {"a": CANCELLED}, BY_HEALTH),
    "by health, cancelled, no answer": Scenario(
        cancelled_without_an_answer, a_build_exists, {"a": CANCELLED}, BY_HEALTH
    ),
    "by health, requeued": Scenario(
        requeued, a_build_exists, changes=BY_HEALTH, mend=requeued, anew=("warm.response.json",)
    ),
    "by health, given away": Scenario(many_at_once, a_build_exists, changes=BY_HEALTH | GIVEN_AWAY),
    "by health, returned": Scenario(files_that_come_back, a_build_exists, changes=RETURNED | BY_HEALTH),
    "by health, returned, given away": Scenario(
        files_that_come_back, a_build_exists, changes=RETURNED | BY_HEALTH | GIVEN_AWAY
    ),
    "full disk": Scenario(a_claim_in_vain, a_build_exists),
    "returned": Scenario(files_that_come_back, a_build_exists, changes=RETURNED),
    "returned of cases": Scenario(files_of_cases_that_come_back, a_build_exists, changes=RETURNED),
    "returned, shown by another": Scenario(files_shown_by_another, a_build_exists, changes=RETURNED),
    "returned, lost": Scenario(files_of_an_attempt_that_is_lost, a_build_exists, changes=RETURNED),
    "returned, requeued": Scenario(
        requeued, a_build_exists_and_files_returned, changes=RETURNED, mend=requeued, anew=("warm.response.json",)
    ),
    "returned, retention": Scenario(
        partial(what_is_old_goes, outputs=FILES),
        a_build_exists_and_files_returned,
        changes=RETURNED | ARCHIVED,
        mend=partial(swept, outputs=FILES),
        anew=("warm.response.json",),
    ),
    "returned, given away": Scenario(files_that_come_back, a_build_exists, changes=RETURNED | GIVEN_AWAY),
    "returned, given away, requeued": Scenario(
        requeued,
        a_build_exists_and_files_returned,
        changes=RETURNED | GIVEN_AWAY,
        mend=requeued,
        anew=("warm.response.json",),
    ),
    "returned, given away, retention": Scenario(
        partial(what_is_old_goes, outputs=FILES),
        a_build_exists_and_files_returned,
        changes=RETURNED | GIVEN_AWAY | ARCHIVED,
        mend=partial(swept, outputs=FILES),
        anew=("warm.response.json",),
    ),
}
