"""Slurm ends pilots in all its ways. No attempt is lost where a drain was possible, and no submission ever is."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.head import Head
from tests.clusters import Real

LONG = pytest.mark.skipif(not os.environ.get("SPOOLD_TEST_LONG"), reason="it waits for time-outs in Slurm")
# Signals reach the pilot and not its jobs. Tracking by control groups does that, and so does tracking by process
# groups.
TRACKS = "ProctrackType=proctrack/pgid\n"
PREEMPTS = "PreemptType=preempt/partition_prio\nPreemptMode=CANCEL\nSlurmctldParameters=preempt_send_user_signal\n"
PARTITIONS = (
    "PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=30\n"
    "PartitionName=high Nodes=ALL State=UP PriorityTier=9 PreemptMode=OFF\n"
)


@pytest.fixture
def cluster() -> Iterator[Real]:
    made = Real(extra=TRACKS + PREEMPTS, partitions=PARTITIONS)
    yield made
    made.stop()


@pytest.fixture
def head(tmp_path: Path, cluster: Real) -> Iterator[Head]:
    made = Head(tmp_path, cluster)
    with contextlib.closing(made.bench):
        yield made


@pytest.fixture
def hasty(tmp_path: Path, cluster: Real) -> Iterator[Head]:
    """Yield a head that takes a pilot for dead after some seconds of silence."""
    made = Head(tmp_path, cluster, lease=8.0)
    with contextlib.closing(made.bench):
        yield made


def ours(head: Head) -> str:
    """Return the job of the only pilot."""
    (job,) = (each for each in head.jobs() if each.name.startswith("spoold-"))
    return str(job.id)


def cancelled(head: Head, cluster: Real) -> None:
    cluster.run("scancel", ours(head))


def requeued(head: Head, cluster: Real) -> None:
    """An administrator allows the job to be requeued, and requeues it."""
    cluster.run("scontrol", "update", f"JobId={ours(head)}", "Requeue=1")
    cluster.run("scontrol", "requeue", ours(head))


def preempted(_: Head, cluster: Real) -> None:
    """A job of higher priority wants both nodes."""
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1")


def out_of_time(head: Head, cluster: Real) -> None:
    cluster.run("scontrol", "update", f"JobId={ours(head)}", "TimeLimit=1")


@pytest.mark.parametrize("event", [cancelled, requeued, preempted, pytest.param(out_of_time, marks=LONG)])
def test_a_job_longer_than_the_drain_goes_back_and_loses_no_attempt(
    head: Head, cluster: Real, event: Callable[[Head, Real], None]
) -> None:
    head.hold("a")
    before = set(head.processes())
    event(head, cluster)
    head.until(lambda: (after := set(head.processes())) and not before & after and head.bench.names("running"))
    head.let_go()
    head.until(lambda: head.answered("a"))
    response = head.bench.response("a")
    assert (response["status"], response["attempt"]) == ("COMPLETED", 1)
    head.until(lambda: not head.left())


def test_a_job_shorter_than_the_drain_ends_where_it_is(tmp_path: Path, cluster: Real) -> None:
    head = Head(tmp_path, cluster, drain=600.0, time=3600)
    with contextlib.closing(head.bench):
        head.hold("a")
        before = set(head.processes())
        cluster.run("scancel", "--batch", "--signal=TERM", ours(head))  # Slurm does this before the time limit
        head.bench.drop("b")
        head.until(lambda: head.answered("b"))  # by another pilot, because this one takes no more
        assert before & set(head.processes())
        head.let_go()
        head.until(lambda: head.answered("a"))
        assert head.bench.response("a")["attempt"] == 1
        head.until(lambda: not before & set(head.processes()))


def stepd_of(pid: int) -> int:
    """Return the step daemon that is the parent of a pilot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def node_of(cluster: Real) -> str:
    return cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%N").strip()


def test_what_a_lost_node_had_is_run_elsewhere(hasty: Head, cluster: Real) -> None:
    head = hasty
    head.hold("a")
    node, (pid,) = node_of(cluster), head.processes()
    for each in (stepd_of(pid), pid):
        os.kill(each, signal.SIGKILL)
    cluster.kill_node(node)
    head.let_go()
    head.until(lambda: head.answered("a"))
    response = head.bench.response("a")
    assert (response["status"], response["attempt"]) == ("COMPLETED", 2), "the pilot could not drain"
    cluster.start_node(node)
    head.until(lambda: set(head.processes()) == set())


@LONG
def test_a_pilot_works_on_without_the_daemon_of_its_node(head: Head, cluster: Real) -> None:
    """Slurm takes the node for down and the job for ended. There are never two pilots with one name."""
    head.hold("a")
    node, before = node_of(cluster), set(head.processes())
    cluster.kill_node(node)
    head.until(lambda: node not in cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%N"))
    assert before <= set(head.processes())
    head.let_go()
    head.until(lambda: head.answered("a"))
    assert head.bench.response("a")["attempt"] == 1
    cluster.start_node(node)
    head.until(lambda: not head.left())


def test_a_controller_that_comes_back_with_an_old_state_costs_no_answer(hasty: Head, cluster: Real) -> None:
    """The controller knows nothing of the pilot, and lets its node kill it without warning."""
    head = hasty
    cluster.run("scontrol", "reconfigure")
    cluster.keep_state()
    head.hold("a")
    before = set(head.processes())
    cluster.kill_controller()
    cluster.forget()
    head.bench.drop("b")
    cluster.start_controller()
    head.until(lambda: not before & set(head.processes()))
    head.let_go()
    head.until(lambda: head.answered("a", "b"))
    assert {head.bench.response(id_)["status"] for id_ in "ab"} == {"COMPLETED"}
    head.until(lambda: not head.left())
