"""Scale: its decisions for what it sees; and pilots of a stand-in for Slurm and of Slurm itself."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from spoold import slurm
from spoold.actors.scale import Scale
from spoold.actors.scale.decision import Pilots, decide, wanted
from spoold.actors.scale.demand import Demand, Renewals
from spoold.actors.scale.pilots import FIRST, LONGEST, QUICK, Pool
from spoold.config import LeaseSettings, Settings
from spoold.config.file import decode
from spoold.loop import Loop
from spoold.model.errors import OperatorError
from spoold.model.ids import Hint
from spoold.model.scaling import PoolSettings
from spoold.model.states import Role
from spoold.slurm import Job, JobState, Slurm
from spoold.upkeep.pools import noted
from tests.actors.bench import Bench
from tests.actors.head import Head
from tests.clusters import Cluster, Real, StandIn
from tests.names import named
from tests.waiting import until

LEASE = 30.0
NEVER = 1e6  # seconds
POOL = PoolSettings(most=3, entries=2)


def job(id_: int, number: int, state: JobState) -> Job:
    return Job(id_, f"spoold-pool-{number}", state)


NONE: frozenset[int] = frozenset()


def pilots(
    *jobs: Job, present: AbstractSet[int] = NONE, lost: Collection[int] = NONE, resting: AbstractSet[int] = NONE
) -> Pilots:
    found: dict[int, list[Job]] = {}
    for each in jobs:
        found.setdefault(int(each.name.rsplit("-", 1)[1]), []).append(each)
    return Pilots(found, present, lost, resting)


WAITS, RUNS, LEAVES, ENDED = JobState

# -- the decision


@pytest.mark.parametrize(
    ("seen", "want", "submit", "cancel"),
    [
        (pilots(), 2, [0, 1], []),
        (pilots(), 9, [0, 1, 2], []),
        (pilots(job(1, 0, WAITS)), 2, [1], []),
        (pilots(job(1, 0, RUNS), present={0}), 1, [], []),
        (pilots(job(1, 0, ENDED)), 1, [0], []),
        (pilots(job(1, 0, LEAVES)), 1, [1], []),  # its name isn't free yet, and it doesn't work
        (pilots(present={0}), 1, [], []),  # an orphan works, whatever Slurm forgot
        (pilots(job(1, 0, WAITS), present={0}), 0, [], []),  # a job that came back with an old state isn't cancelled
        (pilots(job(1, 0, RUNS), lost={1}), 1, [1], [1]),
        (pilots(resting={0}), 1, [1], []),
        (pilots(job(1, 0, WAITS), job(2, 1, WAITS), job(3, 2, RUNS), present={2}), 1, [], [2, 1]),
        (pilots(job(1, 0, RUNS), job(2, 1, RUNS), present={0, 1}), 0, [], []),  # running pilots end by themselves
        (pilots(job(1, 0, RUNS), job(2, 0, WAITS), present={0}), 1, [], [2]),  # two jobs with one name
        (pilots(job(1, 0, WAITS), job(2, 0, WAITS)), 1, [], [2]),
        # it was requeued and has to wait for minutes
        (pilots(job(1, 0, WAITS)._replace(reason="BeginTime")), 1, [1], [1]),
        (pilots(job(1, 0, WAITS)._replace(reason="BeginTime"), present={0}), 1, [], []),
        (pilots(job(1, 7, WAITS)), 0, [], [1]),  # left from a higher maximum
    ],
)
def test_decisions(seen: Pilots, want: int, submit: list[int], cancel: list[int]) -> None:
    decision = decide(POOL, want, seen)
    assert (decision.submit, [each.id for each in decision.cancel]) == (submit, cancel)


def test_the_first_pool_gets_as_many_as_it_may_and_the_next_the_rest() -> None:
    pools = [PoolSettings(most=2, entries=4), PoolSettings(most=8, entries=1, least=1)]
    assert wanted(pools, 0) == [0, 1]
    assert wanted(pools, 5) == [2, 1]
    assert wanted(pools, 11) == [2, 3]
    assert wanted(pools, 1000) == [2, 8]


def test_what_is_told_of_a_pool() -> None:
    jobs = [job(1, 0, WAITS), job(2, 1, RUNS), job(3, 2, RUNS), job(4, 3, RUNS), job(5, 4, ENDED), job(6, 5, LEAVES)]
    state = pilots(*jobs, present={1, 6}, lost={4}).state("pool", POOL, 5)
    assert (state.pool, state.most, state.wanted) == ("pool", 3, 5)
    assert (state.pending, state.starting, state.running, state.lost) == (1, 1, 2, 1)


def test_a_job_is_no_other_pools() -> None:
    pool = Pool("pool", LEASE)
    others = [Job(1, "spoold-pool-x-0", RUNS), Job(2, "pool-0", RUNS), Job(3, "spoold-pool-01", RUNS)]
    assert pool.see(others, set(), 0.0).jobs == {}


# -- what scale believes


def test_what_squeue_lists_no_more_is_believed_for_a_lease() -> None:
    pool = Pool("pool", LEASE)
    pool.see([job(1, 0, WAITS)], set(), 0.0)
    assert pool.see([], set(), LEASE - 1).live == {0}
    assert pool.see([], set(), LEASE).live == set()


def test_what_was_submitted_is_there_before_squeue_lists_it() -> None:
    pool = Pool("pool", LEASE)
    pool.submitted(1, "spoold-pool-0", 0.0)
    assert pool.see([], set(), 1.0).live == {0}


def test_an_end_that_was_seen_is_believed_at_once() -> None:
    pool = Pool("pool", LEASE)
    pool.see([job(1, 0, RUNS)], {0}, 0.0)
    pool.see([job(1, 0, ENDED)], set(), 100.0)
    assert pool.see([], set(), 101.0).jobs == {}


def test_a_pilot_whose_presence_is_not_renewed_for_a_lease_is_lost() -> None:
    pool = Pool("pool", LEASE)
    assert pool.see([job(1, 0, RUNS)], set(), 0.0).lost == set()
    assert pool.see([job(1, 0, RUNS)], {0}, 20.0).lost == set()
    assert pool.see([job(1, 0, RUNS)], set(), 49.0).lost == set()
    assert pool.see([job(1, 0, RUNS)], set(), 49.0 + LEASE).lost == {1}


def test_a_pilot_that_was_there_and_renews_no_more_is_lost_once_its_presence_has_run_out() -> None:
    """That is after one lease, not after two."""
    pool = Pool("pool", LEASE)
    assert pool.see([job(1, 0, RUNS)], set(), 0.0, {0}).lost == set(), "an earlier one of its name left its presence"
    assert pool.see([job(1, 0, RUNS)], {0}, 10.0).lost == set()
    assert pool.see([job(1, 0, RUNS)], set(), 41.0, {0}).lost == {1}
    assert 2 not in pool.see([job(2, 0, RUNS)], set(), 42.0, {0}).lost, "the next one is starting"


def test_a_pilot_that_ends_at_once_rests_ever_longer_and_is_never_given_up() -> None:
    pool, now, rests = Pool("pool", LEASE), 0.0, []
    for id_ in range(1, 10):
        pool.submitted(id_, "spoold-pool-0", now)
        assert pool.see([job(id_, 0, ENDED)], set(), now).resting == {0}
        began = now
        while pool.see([job(id_, 0, ENDED)], set(), now).resting:
            now += 0.5
        rests.append(now - began)
    assert rests == [FIRST, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]


def test_one_that_worked_or_was_cancelled_needs_no_rest() -> None:
    pool = Pool("pool", LEASE)
    pool.see([job(1, 0, RUNS)], {0}, 0.0)
    assert not pool.see([job(1, 0, ENDED)], set(), QUICK).resting
    pool.submitted(2, "spoold-pool-0", 11.0)
    pool.cancelled(job(2, 0, WAITS))
    assert not pool.see([job(2, 0, ENDED)], set(), 12.0).resting


def test_a_file_is_renewed_by_the_mtime_rule_also_where_clocks_differ() -> None:
    renewals = Renewals(LeaseSettings(renewal=5, limit=30))
    assert renewals.among({"fresh": 1000.0, "old": 900.0, "ahead": 5000.0}, 1010.0, 0.0) == {"fresh", "ahead"}
    assert renewals.among({"fresh": 1000.0, "old": 950.0, "ahead": 5000.0}, 1015.0, 5.0) == {"fresh", "old", "ahead"}
    assert renewals.among({"fresh": 1000.0, "ahead": 5000.0}, 1040.0, 40.0) == set()


# -- demand


def test_demand_is_what_could_be_worked_on(bench: Bench) -> None:
    demand = Demand(bench.settings, bench.spool, bench.builds)
    bench.builder.step()
    assert demand.count(100) == 0
    bench.drop("a")
    assert demand.count(100) == 1
    bench.backend.gate.clear()
    bench.until(lambda: bench.has("building", named("a")), bench.executor.step)
    assert demand.count(100) == 0, "it waits for its build"
    bench.backend.gate.set()
    bench.until(lambda: demand.count(100) == 1, bench.builder.step)
    (bench.root / "running" / named("b")).write_text("{}")
    assert demand.count(100) == 2
    bench.let_leases_run_out("running")
    bench.until(lambda: demand.count(100) == 1, lambda: None)  # its holder is dead
    (bench.root / "running" / named("b")).unlink()


# -- settings


def test_without_a_pool_it_says_what_to_set() -> None:
    with pytest.raises(OperatorError, match=r"scale\.pools\.NAME"):
        Scale(Settings())


def test_pools_are_tables() -> None:
    settings = decode(b'[scale.pools.a]\nmost = 4\npartition = "long"\noptions = ["--qos=low"]\n')
    assert settings.scale.pools["a"].options == ["--qos=low"]
    with pytest.raises(msgspec.ValidationError, match="is no name"):
        decode(b'[scale.pools."../x"]\n')
    with pytest.raises(msgspec.ValidationError, match="options"):
        decode(b'[scale.pools.a]\noptions = ["script.sh"]\n')


# -- with a cluster


@pytest.fixture(params=["stand-in", "slurm"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    made: Cluster = StandIn(tmp_path / "slurm") if request.param == "stand-in" else Real()
    yield made
    made.stop()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path / "slurm")
    yield made
    made.stop()


@pytest.fixture
def head(tmp_path: Path, cluster: Cluster) -> Iterator[Head]:
    made = Head(tmp_path, cluster)
    yield made
    made.bench.close()


def test_from_nothing_to_answers_and_back_to_nothing(head: Head) -> None:
    ids = ["a", "b", "c"]
    head.drop_long(*ids)

    def is_told() -> bool:
        told = noted(str(head.bench.root))
        return told is not None and told[0].slurm and told[0].pools[0].running >= 1

    head.until(is_told)
    head.let_go()
    head.until(lambda: head.answered(*ids))
    assert {head.bench.response(id_)["status"] for id_ in ids} == {"COMPLETED"}
    head.until(lambda: not {WAITS, RUNS, LEAVES} & set(head.states()) and not head.left())
    head.step()
    assert not {WAITS, RUNS} & set(head.states())
    head.scale.stop()
    assert noted(str(head.bench.root)) is None


def test_a_pilot_that_is_killed_is_replaced_and_loses_nothing(head: Head) -> None:
    head.hold("a")
    killed = head.processes()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    head.until(lambda: not set(killed) & set(head.processes()))
    head.let_leases_run_out()
    head.let_go()
    head.until(lambda: head.answered("a"))
    assert head.bench.response("a")["status"] == "COMPLETED"


def test_those_that_wait_are_cancelled_when_nobody_wants_them(tmp_path: Path, cluster: Cluster) -> None:
    head = Head(tmp_path, cluster, most=5)
    with contextlib.closing(head.bench):
        head.drop_long(*(f"a{number}" for number in range(8)))
        head.until(lambda: head.states().count(RUNS) == 2 and head.states().count(WAITS) == 3)
        head.let_go()
        head.until(lambda: head.answered(*(f"a{number}" for number in range(8))))
        head.until(lambda: WAITS not in head.states())
        head.until(lambda: not head.left())


def test_a_scaler_that_starts_anew_finds_its_pilots(head: Head) -> None:
    head.hold("a")
    before = len(head.states())
    head.scale = head.new_scale()
    for _ in range(5):
        head.step()
    assert len(head.states()) == before
    head.let_go()
    head.until(lambda: head.answered("a"))


@pytest.mark.skipif(not os.environ.get("SPOOLD_TEST_LONG"), reason="it waits for time-outs in Slurm")
def test_while_the_controller_is_away_pilots_work_on(tmp_path: Path) -> None:
    cluster = Real(extra="MessageTimeout=5\n")  # how long each command waits for the controller
    with contextlib.closing(closable(cluster)):
        head = Head(tmp_path, cluster)
        head.hold("a")
        cluster.kill_controller()
        for _ in range(2):
            head.step()
        head.let_go()
        head.bench.drop("b")
        head.until(lambda: head.answered("a", "b"))
        cluster.start_controller()
        head.until(lambda: not head.left())
        head.bench.close()


class closable:  # noqa: N801 - an adapter for contextlib.closing
    def __init__(self, cluster: Cluster) -> None:
        self.close = cluster.stop


@pytest.mark.parametrize("mood", ["fails", "lies", "babbles", "hangs"])
def test_a_squeue_that_cannot_be_believed_changes_nothing(
    tmp_path: Path, stand_in: StandIn, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head(tmp_path, stand_in, most=3)
    head.drop_long("a0", "a1", "a2")
    head.until(lambda: head.states().count(WAITS) == 1 and len(head.bench.names("running")) == 2)
    jobs = stand_in.jobs().keys()
    stand_in.feel("squeue", mood)
    with monkeypatch.context() as patched:
        if mood == "hangs":
            patched.setattr(slurm, "BOUNDS", msgspec.structs.replace(slurm.BOUNDS, wall=0.3))
        for _ in range(5):
            head.step()
    assert stand_in.jobs().keys() == jobs
    stand_in.feel("squeue", "")
    assert head.states().count(WAITS) + head.states().count(RUNS) == 3
    head.let_go()
    head.until(lambda: head.answered("a0", "a1", "a2"))
    head.bench.close()


def test_an_sbatch_that_fails_is_tried_again(tmp_path: Path, stand_in: StandIn) -> None:
    head = Head(tmp_path, stand_in)
    stand_in.feel("sbatch", "fails")
    head.bench.drop("a")
    for _ in range(3):
        head.step()
    assert stand_in.jobs() == {}
    stand_in.feel("sbatch", "")
    head.until(lambda: head.answered("a"))
    head.until(lambda: not head.left())
    head.bench.close()


def test_the_first_work_after_a_rest_is_seen_before_the_clock_says_so(tmp_path: Path, stand_in: StandIn) -> None:
    head = Head(tmp_path, stand_in)
    settings = replace(head.settings, scale=replace(head.settings.scale, interval=NEVER))
    loop = Loop(settings, Role.SCALE, Scale(settings, Slurm(stand_in.variables)))
    loop.start()
    try:
        until(lambda: noted(str(head.bench.root)))
        head.bench.drop("a")
        until(stand_in.jobs)
    finally:
        loop.stop()
        loop.join()
    head.bench.close()


def test_what_comes_after_it_waits_for_the_clock(tmp_path: Path, stand_in: StandIn) -> None:
    """Slurm is not asked more often while more comes, and what needs no pilot does not change that."""
    head = Head(tmp_path, stand_in)
    hint = Hint("new", named("a"))
    assert not head.scale.wants(hint), "it has not looked yet"
    head.scale.step()
    assert head.scale.wants(hint)
    assert not head.scale.wants(Hint("new", ".a"))
    head.scale.step([hint])
    assert not head.scale.wants(hint)
    head.scale.step()
    assert head.scale.wants(hint)
    head.bench.drop("a")
    head.scale.step()
    assert not head.scale.wants(hint), "there is work, and a pilot is to come"
    head.bench.close()


def test_what_sbatch_is_told(tmp_path: Path, stand_in: StandIn) -> None:
    pool: dict[str, Any] = {
        "memory": 3 << 30,
        "partition": "p",
        "account": "a b",
        "comment": "c",
        "options": ["--qos=q"],
        "time": 3600,
    }
    head = Head(tmp_path, stand_in, slots=4, **pool)
    head.bench.drop("a")
    head.until(stand_in.jobs)
    said = stand_in.jobs()["1"]["argv"]
    assert isinstance(said, list)
    for wanted_option in (
        "--job-name=spoold-pool-0",
        "--cpus-per-task=4",
        "--mem=3072M",
        "--partition=p",
        "--account=a b",
        "--comment=c",
        "--qos=q",
        "--time=60:00",
        "--no-requeue",
        "--signal=B:TERM@31",
        "--export=ALL",  # of few variables; with NONE a login shell would be asked for others
    ):
        assert wanted_option in said
    assert said[-1].startswith("--wrap=exec ")
    assert "executor --name pool-0 --slots 4 --idle 1 --lifetime 3539 --drain 1" in said[-1]
    head.bench.close()
