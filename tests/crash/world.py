"""A spool and its four actors in one thread, on the test's own clocks, and the invariants at the end.

Tasks of workers wait until the actor's step is over, and are then done one after the other. Nothing renews leases. So a
run is the same each time, operation for operation, and may be ended at each of them. Engines are stand-ins. Each run of
a submission prints something unique, so that a response that was computed twice shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, Self
from unittest import mock

import msgspec

from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.actors.health import Health
from spoold.actors.intake import Intake
from spoold.config import Settings, SpoolSettings
from spoold.host import fsops
from spoold.host.spill import Spill
from spoold.model import ids, misnamed
from spoold.model.collection import Rules
from spoold.model.job import Job, JobResult
from spoold.model.outputs import Found, Returned
from spoold.model.response import FINAL, SKIPPED_PHASE, Outcome, Phase, Status, Stream, finished_phase
from spoold.model.submission import Submission
from spoold.sandbox import Judge, RunCancelledError
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.store import Spool
from tests.crash.operations import by_a_client, tell_of_drop
from tests.rights import assert_answer
from tests.standins import PlainBackend, PlainSandbox

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory, because the tests make thousands of trees
PASSING = ("incoming", "new", "building", "running", "ids", "progress", "builds/new", "builds/building")
KEPT = (".probe", ".count", ".usage", ".lock", ".held", "collect.lock")
CLIENT = 65_001 if os.geteuid() == 0 else os.geteuid()  # another user, if we are root
ROUNDS = 40  # of all actors; a spool that is not at rest after these is stuck


class Drop(NamedTuple):
    """A file that a client dropped. ``digest`` is of its bytes, or "" if it is not a regular file.

    The id of a ``misnamed`` file is its name.
    """

    id: str
    digest: str
    size: int
    misnamed: bool = False


class TokenSandbox(PlainSandbox):
    """Run nothing. Each run prints another word. ``before_end`` is called in the middle of the next run."""

    def __init__(self) -> None:
        super().__init__()
        self.before_end: Callable[[], object] = lambda: None
        self.returns = True  # return files if a job asks for them

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,  # noqa: ARG002
    ) -> JobResult:
        self.begin(job, cancelled)
        if job.cases:
            assert judge
            return self._tell_cases(job, cancelled, judge)
        phase = self._token(cancelled)
        on_phase("run", phase)
        if cancelled.is_set():
            raise RunCancelledError("cancelled")
        outputs = _returned() if job.outputs and self.returns else None
        return JobResult(compile=SKIPPED_PHASE, run=phase, outputs=outputs)

    def _tell_cases(self, job: Job, cancelled: threading.Event, judge: Judge) -> JobResult:
        files: dict[int, Returned] = {}
        for number in range(len(job.cases)):
            if judge.wants(number):
                if job.outputs and self.returns:
                    files[number] = _returned()
                judge.ended(number, self._token(cancelled), [])
                if cancelled.is_set():
                    raise RunCancelledError("cancelled")
        return JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE, of_cases=files)

    def _token(self, cancelled: threading.Event) -> Phase:
        """Return a unique run, after a call of ``before_end``."""
        printed = secrets.token_bytes(4000).hex().encode()
        phase = finished_phase(
            stdout=Stream(printed, len(printed)), stderr=Stream(b"", 0), time=0.1, outcome=Outcome.OK, exit_code=0
        )
        meanwhile, self.before_end = self.before_end, lambda: None
        meanwhile()
        return msgspec.structs.replace(phase, outcome=Outcome.CANCELLED) if cancelled.is_set() else phase


def _returned() -> Returned:
    """Return two files with new contents of the same length."""
    contents, files = Spill("", ""), []
    for name in ("a", "b"):
        data = secrets.token_bytes(3000)
        files.append(Found(name, len(data), hashlib.sha256(data).hexdigest(), 0o644, contents.size))
        contents.add(data)
    return Returned(files, contents, [], [])


class Tasks:
    """A pool of threads whose tasks wait for :meth:`World.work`."""

    waiting: ClassVar[list[tuple[Callable[..., object], tuple[Any, ...]]]] = []

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function: Callable[..., object], *arguments: Any) -> None:
        self.waiting.append((function, arguments))

    def shutdown(self, **_: object) -> None:
        self.waiting.clear()


class World:
    """All actors over the spool at ``root``. A new world on the same spool is a restart of all of them."""

    def __init__(
        self, root: Path, *, name: str = "default", answers: Any = "acl", published_by: Any = "executor", **changes: Any
    ) -> None:
        made = Settings(
            spool=SpoolSettings(path=str(root), settle=1.0, answers=answers, published_by=published_by),
            gc=Rules(interval=0, max_age=0, max_size=0, min_free=0),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        made = msgspec.structs.replace(made, executor=msgspec.structs.replace(made.executor, slots=1, name=name))
        self.root = root
        self.settings = msgspec.structs.replace(made, **changes)
        self.sandbox = TokenSandbox()
        self.backend = PlainBackend()
        self.intake = Intake(self.settings)
        self.executor = Executor(self.settings, lambda _: self.sandbox)
        self.builder = Builder(self.settings, self.backend)
        self.health = Health(self.settings)
        self.spool = Spool(self.settings, "test")
        self.builds = BuildStore(self.settings)

    @classmethod
    def make(cls, root: Path, **changes: Any) -> World:
        """Make a spool and start all actors over it."""
        layout.create(str(root))
        return cls(root, **changes).start()

    def start(self) -> World:
        private = (path for ending in ("response.json", "outputs.tar") for path in self.root.glob(f"tmp/*@*.{ending}"))
        Dead.wrote = {path.lstat().st_ino for path in private}
        for actor in (self.intake, self.builder, self.executor, self.health):
            actor.start()
            self.work()
        return self

    def stop(self) -> None:
        for actor in (self.intake, self.executor, self.builder, self.health):
            actor.stop()

    # -- what clients do

    def drop(self, id_: str, expression: str | None = None, kind: str = "run", **keys: Any) -> None:
        if kind == "run":
            keys["files"] = [{"name": "run.sh", "content": "true"}]
            if expression is not None:
                keys["files"].append({"name": "cutor.nix", "content": expression})
        self.drop_bytes(id_, json.dumps({"kind": kind, **keys}).encode())

    def drop_bytes(self, id_: str, data: bytes) -> None:
        self._note(Drop(id_, hashlib.sha256(data).hexdigest(), len(data)))
        with by_a_client():
            private = self.root / "incoming" / f".{id_}.tmp"
            private.write_bytes(data)
            self._give(private)
            private.rename(self.root / "incoming" / f"{id_}.json")
        tell_of_drop(f"incoming/{id_}.json")

    def drop_misnamed(self, name: str, data: bytes) -> None:
        self._note(Drop(name, hashlib.sha256(data).hexdigest(), len(data), misnamed=True))
        with by_a_client():
            private = self.root / "incoming" / ".misnamed"
            private.write_bytes(data)
            self._give(private)
            private.rename(self.root / "incoming" / name)
        tell_of_drop(f"incoming/{name}")

    def cancel(self, id_: str) -> None:
        with by_a_client():
            path = self.root / "incoming" / f"{id_}.cancel"
            path.write_text(f"{id_}\n")
            self._give(path)
        tell_of_drop(f"incoming/{id_}.cancel")

    def drop_link(self, id_: str) -> None:
        self._note(Drop(id_, "", 0))
        with by_a_client():
            path = self.root / "incoming" / f"{id_}.json"
            path.symlink_to("/etc/passwd")
            self._give(path)
        tell_of_drop(f"incoming/{id_}.json")

    def _give(self, path: Path) -> None:
        if os.geteuid() != CLIENT:
            os.lchown(path, CLIENT, CLIENT)

    def _note(self, drop: Drop) -> None:
        with by_a_client(), ledger(self.root).open("ab") as file:
            file.write(msgspec.json.encode(drop) + b"\n")

    # -- what the actors do

    def work(self) -> None:
        """Do the workers' tasks, and the tasks that follow from them."""
        while Tasks.waiting:
            function, arguments = Tasks.waiting.pop(0)
            function(*arguments)
        slots, line = self.executor._slots, self.executor._line
        while not line.idle and self.executor._engine.ready.is_set() and (ready := line.take()):
            slots._work(ready)
            line.ended(ready)

    def step(self, *roles: str) -> None:
        """Let these actors, or all of them, take a step each in the order of the flow."""
        for role in roles or ("intake", "executor", "builder", "executor", "health"):
            getattr(self, role).step()
            self.work()

    def settle(self) -> None:
        """Let all actors go on, and time pass, until nothing changes."""
        for number in range(ROUNDS):
            self.step()
            if number >= 1 and not any(self.names(directory) for directory in PASSING):
                break
            pass_time(11)
        pass_time(4000)  # by then, files that nobody comes back to are removed
        self.step()

    def names(self, directory: str) -> list[str]:
        return [name for name in os.listdir(f"{self.root}/{directory}") if not name.endswith(KEPT)]

    def picture(self) -> dict[str, list[str]]:
        return {each.path: self.names(each.path) for each in layout.DIRECTORIES if self.names(each.path)}


class Dead:
    """Daemons of earlier worlds, each as its own user. The kernel lets nobody link their files."""

    wrote: ClassVar[set[int]] = set()


class AtOnce:
    """A thread that does its work in ``start``."""

    def __init__(self, target: Callable[[], object], **_: object) -> None:
        self.start = target

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        """Return at once, because the work has ended."""


class Immediately:
    """A pool of threads that does each task in ``submit``."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., object], *arguments: Any) -> Future[object]:
        future: Future[object] = Future()
        future.set_result(function(*arguments))
        return future


class Idle(AtOnce):
    """A thread or a timer that does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(lambda: None)

    def cancel(self) -> None:
        """Do nothing, because nothing was started."""


# -- clocks


class _Clocks:
    """Clocks that move only by :func:`pass_time`. So a slow machine, or one that stalls, changes nothing of a run."""

    monotonic, wall = time.monotonic, time.time  # the real clocks
    here = there = 0.0  # the machine's clock and the file server's at the beginning
    passed = 0.0  # seconds since then

    @classmethod
    def now_here(cls) -> float:
        return cls.here + cls.passed

    @classmethod
    def now_there(cls) -> float:
        return cls.there + cls.passed


def pass_time(seconds: float) -> None:
    """Let time pass on the machine's clock and on the file server's."""
    _Clocks.passed += seconds


def begin_anew() -> float:
    """Set the clocks to the real ones: a spool that is made now must not be old already.

    Return by how many seconds the file server's clock was moved, but for what :func:`pass_time` did to it.
    """
    before = _Clocks.there
    _Clocks.here, _Clocks.there, _Clocks.passed = _Clocks.monotonic(), _Clocks.wall(), 0.0
    return _Clocks.there - before


def move_times(root: Path, seconds: float) -> None:
    """Have all files below ``root`` changed so much later, as if they had been made after :func:`begin_anew`."""
    for path in root.rglob("*"):
        moved = path.lstat().st_mtime_ns + round(seconds * 1e9)
        os.utime(path, ns=(moved, moved), follow_symlinks=False)


def passed() -> float:
    """Return how many seconds have passed."""
    return _Clocks.passed


STEADY = {  # the work of a step must not depend on the machine
    "spoold.actors.executor.NOTES": math.inf,  # one note of each executor
    "spoold.upkeep.counting.SOONEST": 1e9,  # and one count
    "spoold.upkeep.counting.LATER": 1e9,
    "spoold.actors.intake.LONG": math.inf,
    "spoold.host.clock.OFTEN": 0.0,  # ask at each call
    "spoold.host.syncs.AT_ONCE": 1,
    "spoold.spool.uses.ONCE": 0.0,  # note each use
    "spoold.actors.intake.dropbox.LONG": math.inf,  # the next step looks again, however long a look takes
    "spoold.actors.executor.pace.LONG": math.inf,
    "spoold.actors.executor.building.LONG": math.inf,
    "spoold.actors.health.STEP_BUDGET": 60.0,
}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the block without threads, on clocks that :func:`pass_time` moves."""
    real_utime = os.utime

    def utime(path: Any, times: tuple[float, float] | None = None, **options: Any) -> None:
        if times is None and "ns" not in options:
            times = (_Clocks.now_there(),) * 2
        real_utime(path, times, **options)

    real_write = fsops.write_private

    def write_private(path: str, data: bytes, **options: Any) -> None:
        real_write(path, data, **options)
        with by_a_client():
            real_utime(path, (_Clocks.now_there(),) * 2)

    real_publish = fsops.publish

    def publish(private: str, public: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(private)
            if found.st_ino in Dead.wrote or found.st_uid != os.geteuid():
                raise PermissionError
        return real_publish(private, public)

    begin_anew()
    lease = SimpleNamespace(Thread=Idle, Timer=Idle, Lock=threading.Lock, Event=threading.Event)
    workers = SimpleNamespace(Thread=Idle, Semaphore=threading.Semaphore)
    engine = SimpleNamespace(Thread=AtOnce, Lock=threading.Lock, Event=threading.Event)
    with (
        mock.patch.object(Tasks, "waiting", []),
        mock.patch.object(os, "utime", utime),
        mock.patch.object(fsops, "write_private", write_private),
        mock.patch.object(fsops, "publish", publish),
        mock.patch.object(time, "monotonic", _Clocks.now_here),
        mock.patch("spoold.spool.lease.threading", lease),
        mock.patch("spoold.actors.executor.slots.threading", lease),
        mock.patch("spoold.actors.executor.workers.threading", workers),
        mock.patch("spoold.actors.executor.slots.BACK_OFF", 0.0),
        mock.patch("spoold.spool.holding.BACK_OFF", 0.0),
        mock.patch("spoold.sandbox.lifecycle.threading", engine),
        mock.patch("spoold.sandbox.lifecycle.PAUSE", 0.0),
        mock.patch("spoold.actors.builder.ThreadPoolExecutor", Tasks),
        mock.patch("spoold.upkeep.archive.ThreadPoolExecutor", Immediately),
        contextlib.ExitStack() as stack,
    ):
        for name, value in STEADY.items():
            stack.enter_context(mock.patch(name, value))
        yield


# -- the invariants


def ledger(root: Path) -> Path:
    """Return the file that lists the clients' drops, outside of the spool."""
    return root.with_name(f"{root.name}.ledger")


def dropped(root: Path) -> list[Drop]:
    """Return the clients' drops so far."""
    path = ledger(root)
    return [msgspec.json.decode(line, type=Drop) for line in path.read_bytes().splitlines()] if path.exists() else []


def seen(root: Path, going: Container[str] = ()) -> dict[str, bytes]:
    """Return all answers that clients can read. Each must be whole, and have an entry unless it is in ``going``."""
    answers = {}
    for name in os.listdir(root / "done"):
        if name.endswith((".response.json", ".refused.json")):
            data = (root / "done" / name).read_bytes()
            id_ = name.removesuffix(".response.json").removesuffix(".refused.json").partition("@")[0]
            assert data.endswith(b"}\n"), f"{name} is short"
            answer = json.loads(data)
            assert answer["Submission_id"] == id_
            assert answer["status"] in set(FINAL)
            if name not in going:
                _assert_rights(root / "done" / name, data)
            if "outputs_tar" in answer:
                beside = _assert_returned(root / "done", answer)
                if name not in going:
                    _assert_rights(*beside)
            if name.endswith(".response.json") and name not in going:
                assert (root / "done" / f"{id_}.json").exists(), f"{id_}: a response without an entry"
            answers[name] = data
    return answers


def _assert_returned(done: Path, answer: dict[str, Any]) -> tuple[Path, bytes]:
    """Return the tar beside a response. It must match the response, even if that is about to be removed."""
    beside = answer["outputs_tar"]
    data = (done / beside["name"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (beside["size"], beside["sha256"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(each.name, each.size) for each in tar]
    told = [(each["name"], each["size"]) for each in answer.get("outputs", ())]
    for case in answer.get("cases", ()):
        told += [(f"{case['name']}/{each['name']}", each["size"]) for each in case["outputs"]]
    assert members == told
    return done / beside["name"], data


def _assert_rights(path: Path, data: bytes) -> None:
    """Assert that an answer is its client's to read. If it was given away, the daemons must have its digest."""
    found = path.stat()
    if found.st_uid == CLIENT:
        assert found.st_mode & 0o7777 == 0o400
        digest = path.with_suffix(".sha256")
        assert os.geteuid() == CLIENT or digest.read_text() == f"{hashlib.sha256(data).hexdigest()} {len(data)}\n"
    else:
        assert_answer(path, CLIENT)


def check_rest(world: World) -> None:
    """Check that nothing is under way, and that no private file is left."""
    for directory in PASSING:
        assert world.names(directory) == [], f"stuck: {world.picture()}"
    left = [*world.names("tmp"), *world.names("builds/tmp"), *world.names("builds/collect")]
    kept = (".result.json", ".store")  # of the last collection, and the executors' view of the store
    assert [name for name in left if not name.endswith(kept)] == [], f"left behind: {world.picture()}"
    for notes in (world.root / "tmp").glob("*.held"):
        assert not os.listdir(notes)


def check(
    world: World, before: dict[str, bytes], allowed: dict[str, set[str]], drops: list[Drop] | None = None
) -> None:
    """Check the invariants of a spool at rest.

    ``before`` has the answers that clients had seen. ``allowed`` has the statuses that each id's response may have.
    """
    drops = dropped(world.root) if drops is None else drops
    check_rest(world)
    answers = seen(world.root)
    assert {name: answers.get(name) for name in before} == before, "an answer changed or was removed after it was seen"
    expected = check_misnamed(answers, [drop for drop in drops if drop.misnamed])
    drops = [drop for drop in drops if not drop.misnamed]
    for id_, group in itertools.groupby(sorted(drops, key=lambda drop: drop.id), key=lambda drop: drop.id):
        expected.add(f"{id_}.response.json")
        sent = {drop.digest for drop in group}
        entry = world.root / "done" / f"{id_}.json"
        assert entry.exists(), f"{id_} is lost: {world.picture()}"
        first = msgspec.json.decode(entry.read_bytes(), type=Submission).Spool.sha256
        kind = hashlib.sha256(b"symbolic link").hexdigest()
        expected |= {ids.refusal_name(id_, CLIENT, each or kind) for each in sent if (each or kind) != first}
        assert f"{id_}.response.json" in answers, f"{id_} has no response: {world.picture()}"
        status = json.loads(answers[f"{id_}.response.json"])["status"]
        assert status in allowed.get(id_, {Status.COMPLETED}), answers[f"{id_}.response.json"][:500]
        if status == Status.REJECTED and first in sent:  # later files were refused because the id was used
            _assert_kept(world.root, id_, first)
    assert set(answers) == expected
    digests = {name for name in world.names("done") if name.endswith(".sha256")}
    told = {json.loads(data)["outputs_tar"]["name"] for data in answers.values() if b'"outputs_tar":' in data}
    assert told == {name for name in world.names("done") if name.endswith(".tar")}
    beside = {name.removesuffix(".json") for name in answers} | {name.removesuffix(".tar") for name in told}
    assert {name.removesuffix(".sha256") for name in digests} <= beside
    entries = {
        name.removesuffix(".json") for name in world.names("done") if name not in digests | answers.keys() | told
    }
    assert entries == {drop.id for drop in drops}
    results = {name.removesuffix(".response.json") for name in world.names("builds/done") if ".response" in name}
    built = {name.removesuffix(".json") for name in world.names("builds/done") if ".response" not in name}
    assert built <= results, f"submissions would wait for ever for a build without a result: {world.picture()}"


def check_misnamed(answers: dict[str, bytes], drops: list[Drop]) -> set[str]:
    """Check that each file with an impossible name has one answer. Return the names of the answers.

    A file that its client replaced before it was looked at has no answer. The last one must have one.
    """
    expected = set()
    for name in {drop.id for drop in drops}:
        digests = [drop.digest for drop in drops if drop.id == name]
        sent, last = set(digests), digests[-1]
        plain = misnamed.refusal_names(name, CLIENT, "")[0]
        first = json.loads(answers[plain])["request_sha256"]
        assert first in sent
        others = {each: misnamed.refusal_names(name, CLIENT, each)[1] for each in sent - {first}}
        expected |= {plain} | {answer for each, answer in others.items() if each == last or answer in answers}
    return expected


def _assert_kept(root: Path, id_: str, digest: str) -> None:
    kept = root / "quarantine" / f"{id_}@{CLIENT}-{digest[:8]}.bytes"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest, "the bytes of a refused file are kept"
