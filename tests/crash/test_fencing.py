"""A worker that is stopped past its lease and continues finds its entries taken over.

It publishes and keeps nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.host import fsops
from spoold.host.log import Log
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.submission import Dependencies, File, Origin, Request
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.owned import OwnedQueue
from spoold.spool.recovery import publish_committed, recover
from spoold.spool.store import Spool
from tests.actors.bench import PATIENCE, Bench, settings_for
from tests.crash.holder import skewed
from tests.names import mine, named, result_named
from tests.standins import store_path

HOUR = 3600.0
LIMIT = 120.0  # seconds of a lease; a holder that lives keeps its lease, however long the machine stalls


UTIME = os.utime


class Holders:
    """Processes that hold entries of one spool. They end with the test."""

    def __init__(self, root: Path, skew: float) -> None:
        self.root = root
        self.skew = skew
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, name: str) -> None:
        command = [sys.executable, "-m", "tests.crash.holder", role, str(self.root), name, str(self.skew)]
        self.processes[name] = subprocess.Popen(command)

    def has_begun(self, name: str) -> bool:
        return (self.root.parent / f"{name}.began").exists()

    def was_asked(self, name: str) -> bool:
        return (self.root.parent / f"{name}.asked").exists()

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def stop_past_lease(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stop a holder, and let its whole lease pass on the file server."""
        self.signal(name, signal.SIGSTOP)
        self.skew += LIMIT + 1
        monkeypatch.setattr(os, "utime", skewed(UTIME, self.skew))

    def let_go_on(self, name: str) -> None:
        (self.root.parent / f"{name}.go").touch()

    def end(self, name: str) -> None:
        """Let a holder finish its work and end by itself."""
        self.let_go_on(name)
        (self.root.parent / f"{name}.end").touch()
        assert self.processes[name].wait(PATIENCE) == 0

    def kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(params=[0.0, HOUR, -HOUR], ids=["clocks agree", "server ahead", "server behind"])
def skew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(os, "utime", skewed(UTIME, request.param))
    return float(request.param)


@pytest.fixture
def bench(tmp_path: Path, skew: float) -> Iterator[Bench]:
    settings = settings_for(tmp_path / "spool")
    lease = msgspec.structs.replace(settings.lease, limit=LIMIT)
    made = Bench(tmp_path / "spool", msgspec.structs.replace(settings, lease=lease))
    yield made
    made.close()


@pytest.fixture
def holders(bench: Bench, skew: float) -> Iterator[Holders]:
    made = Holders(bench.root, skew)
    yield made
    made.kill_all()


def have_one_run(bench: Bench, holders: Holders) -> None:
    bench.drop("warm")
    bench.wait_for("warm")
    holders.start("executor", "one")
    bench.drop("a")
    bench.until(lambda: holders.has_begun("one"), bench.health.step)


def have_another_take_over(bench: Bench, holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    holders.stop_past_lease("one", monkeypatch)
    bench.until(lambda: bench.has("new", named("a", 2)), bench.health.step)
    holders.start("executor", "two")
    bench.until(lambda: holders.has_begun("two"), lambda: None)


def test_a_stopped_executor_that_goes_on_shows_nothing(
    bench: Bench, holders: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_one_run(bench, holders)
    for _ in range(5):  # while it renews the lease it keeps it, whatever the server's clock says
        before = (bench.root / "running" / named("a")).stat().st_mtime_ns
        bench.until(lambda then=before: (bench.root / "running" / named("a")).stat().st_mtime_ns > then, lambda: None)  # type: ignore[misc] # mypy cannot infer it
        bench.health.step()
    assert bench.names("running") == {named("a")}
    have_another_take_over(bench, holders, monkeypatch)
    holders.signal("one", signal.SIGCONT)
    holders.end("one")  # the second holder still runs
    assert bench.names("running") == {named("a", 2)}
    assert not bench.has("done", "a.json")
    holders.end("two")
    bench.wait_for("a")
    assert bench.response("a")["run"]["stdout"] == "two"
    bench.until(lambda: not bench.names("progress"), bench.health.step)
    bench.assert_nothing_is_left()


def test_a_stopped_executor_that_goes_on_when_all_is_done_changes_nothing(
    bench: Bench, holders: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_one_run(bench, holders)
    have_another_take_over(bench, holders, monkeypatch)
    holders.end("two")
    bench.wait_for("a")
    before = {name: (bench.root / "done" / name).stat() for name in ("a.json", "a.response.json")}
    holders.signal("one", signal.SIGCONT)
    bench.until(lambda: holders.was_asked("one"), lambda: None)  # it was asked to stop, because it could not renew
    holders.end("one")
    assert bench.response("a")["run"]["stdout"] == "two"
    for name, stat in before.items():
        now = (bench.root / "done" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    bench.until(lambda: not bench.names("progress"), bench.health.step)
    bench.assert_nothing_is_left()


def test_a_stopped_builder_that_goes_on_shows_nothing(
    bench: Bench, holders: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders.start("builder", "one")
    bench.drop("a")
    bench.until(lambda: holders.has_begun("one"), bench.executor.step)
    holders.stop_past_lease("one", monkeypatch)
    bench.until(lambda: any("@2" in name for name in bench.names("builds/new")), bench.health.step)
    holders.start("builder", "two")
    bench.until(lambda: holders.has_begun("two"), lambda: None)
    holders.signal("one", signal.SIGCONT)
    holders.end("one")
    assert any("@2" in name for name in bench.names("builds/building"))
    assert not bench.names("builds/done")
    holders.end("two")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.executor.step)
    (record,) = (bench.builds.result(each) for each in bench.builds.finished())
    assert record is not None
    assert record.result.shell == store_path("two")
    bench.assert_nothing_is_left()


# -- fencing where an entry is given up, and where two processes do the same thing at once


@pytest.fixture
def queue(tmp_path: Path) -> OwnedQueue:
    layout.create(str(tmp_path))
    return OwnedQueue(str(tmp_path), attempts=3)


def test_who_ends_a_given_up_entry_is_fenced_as_well(bench: Bench) -> None:
    """The first one stalls between its result and its commit. The next one must not share a name with it."""
    queue = bench.spool.queue
    taken_by: list[Entry] = []
    queue.add(mine("a"), b"entry")
    queue.claim(mine("a"), State.NEW, State.RUNNING)
    taken = mine("a", 3)
    os.rename(queue.entry_path(State.RUNNING, mine("a")), queue.entry_path(State.RUNNING, taken))

    recover(queue, State.RUNNING, taken, abandon=taken_by.append, log=Log("test"))
    (first,) = taken_by
    recover(queue, State.RUNNING, first, abandon=taken_by.append, log=Log("test"))
    second = taken_by[1]
    assert queue.locate("a") == ("running", second)
    with pytest.raises(LeaseLostError):
        queue.results.commit(first, State.RUNNING, b"first\n")
    queue.results.commit(second, State.RUNNING, b"second\n")
    assert (bench.root / "done" / "a.response.json").read_bytes() == b"second\n"


def test_two_that_file_one_build_at_once_file_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.create(str(tmp_path))
    build = Dependencies(build_id="b", expression="{}", nixpkgs=store_path("nixpkgs"))
    one, other = BuildStore(settings_for(tmp_path)), BuildStore(settings_for(tmp_path))
    publish = fsops.publish

    def second_one_first(private: str, public: str) -> bool:
        monkeypatch.undo()
        assert other.request(build)
        return publish(private, public)

    monkeypatch.setattr(fsops, "publish", second_one_first)
    assert not one.request(build)
    assert msgspec.structs.replace(one.read(State.NEW, Entry("b", 1)), format=build.format) == build
    assert not os.listdir(one.queue.path("tmp"))


def test_of_two_results_the_later_one_is_shown_though_the_earlier_was_seen_first(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first holder stops between its result and its commit. The second commits while health looks."""

    first = mine("a")
    queue.add(first, b"entry")
    queue.claim(first, State.NEW, State.RUNNING)
    result = Path(queue.path("tmp", result_named("a")))
    result.write_bytes(b"first\n")
    listed, waiting = queue.results.waiting(), queue.results.waiting

    def commit_meanwhile() -> dict[str, list[Entry]]:
        monkeypatch.undo()
        second = queue.fence(first, State.RUNNING)
        assert second
        with monkeypatch.context() as patched:
            patched.setattr(queue.results, "_link", lambda _: threading.Event())
            queue.results.commit(second, State.RUNNING, b"second\n", tidy=False)
        return listed

    assert waiting() == {"a": [first]}
    monkeypatch.setattr(queue.results, "waiting", commit_meanwhile)
    publish_committed(queue, Log("test"))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"second\n"


def test_a_refusal_that_is_committed_while_health_looks_is_shown(
    queue: OwnedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry appears between the look for it and the look for other explanations of the file."""
    Path(queue.path("tmp", result_named("a", 0))).write_bytes(b"refused\n")
    locate = queue.locate

    def commit_meanwhile(id_: str, like: Entry | None = None) -> tuple[str, Entry] | None:
        monkeypatch.undo()
        queue.add(mine("a", 0), b"entry", state=State.DONE)
        return locate(id_, like)

    monkeypatch.setattr(queue, "locate", commit_meanwhile)
    publish_committed(queue, Log("test"))
    queue.results.publish(mine("a", 0))
    assert Path(queue.path("done", "a.response.json")).read_bytes() == b"refused\n"


@pytest.mark.parametrize("what", ["accept", "refuse", "refuse_reuse"])
def test_two_intakes_at_one_file_write_it_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Locks may not keep them apart.

    Both are in the middle of a write when one dies, and the other's file must be whole.
    """
    one, other = bench.spool, Spool(bench.settings, "other")
    origin = Origin(uid=os.getuid(), gid=os.getgid(), sha256="0" * 64, arrival=0)
    argument = Request(files=[File(name="run.sh", content="true")]) if what == "accept" else "why"
    write = os.write
    writing: list[str] = []

    def half(descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".progress.json"):
            return write(descriptor, data)
        writing.append("one more")
        write(descriptor, data[:10])
        if len(writing) == 2:
            raise KilledError
        with pytest.raises(KilledError):
            getattr(other, what)("a", argument, origin)
        monkeypatch.undo()
        return 10

    monkeypatch.setattr(os, "write", half)
    getattr(one, what)("a", argument, origin)
    for state in ("new", "done"):
        for name in bench.names(state):
            json.loads((bench.root / state / name).read_bytes())
    made = bench.names("new") | bench.names("done")
    assert len(made) == {"accept": 1, "refuse": 2, "refuse_reuse": 1}[what]


class KilledError(BaseException):
    """The process is dead, and cleans nothing up."""
