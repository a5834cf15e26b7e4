"""Stand-ins for both engines and the clock, for tests of how entries move. They pass the engines' contract tests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from spoold.config import Settings
from spoold.host.clock import Clock
from spoold.host.spill import Spill
from spoold.model.collection import Collected, StoreSizes
from spoold.model.errors import CacheError, OperatorError, TemporaryError
from spoold.model.job import BuildResult, Job, JobCase, JobResult, Runtime
from spoold.model.limits import PhaseLimits
from spoold.model.outputs import Left, Returned
from spoold.model.response import SKIPPED_PHASE, Fetching, Outcome, Package, Phase, Stream, finished_phase
from spoold.model.tails import phase_so_far
from spoold.sandbox import Check, Judge, RunCancelledError, Talked
from tests import returned

PATH = os.environ["PATH"]
TAIL = 64 * 1024  # bytes of each output that progress shows
STEP = 0.1  # seconds between two looks that count for a job, which is not to blame where the machine stands still


def store_path(name: str) -> str:
    """Return a path like one of a store for ``name``. It is always the same."""
    return f"/nix/store/{hashlib.sha256(name.encode()).hexdigest()[:32].replace('e', 'x')}-{name}"


class PlainSandbox:
    """Run a job's scripts as plain processes in a fresh directory.

    There is no isolation, so only our own scripts may run.
    """

    def __init__(self, joined: Joined | None = None) -> None:
        self.joined = joined
        self.jobs: list[Job] = []
        self.notes: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.away = False
        self.failures = 0
        self.closed = False

    def prepare(self) -> None:
        if self.away:
            raise TemporaryError("the engine is away")

    def begin(self, job: Job, cancelled: threading.Event) -> None:
        """Take a job once the gate is open, if the engine works."""
        self.jobs.append(job)
        while not self.gate.wait(0.01):
            if cancelled.is_set():
                raise RunCancelledError(job.submission_id)
        if self.away or self.failures:
            self.failures = max(0, self.failures - 1)
            raise TemporaryError("the engine failed")

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,
    ) -> JobResult:
        self.begin(job, cancelled)
        with tempfile.TemporaryDirectory() as directory:
            _write(job, directory)
            compiled = SKIPPED_PHASE
            tell = on_output if job.live else None
            if job.compile is not None:
                compiled = _phase(directory, ["compile.sh"], job.compile, env=job.env, cancelled=cancelled, tell=tell)
                on_phase("compile", compiled)
                _end_if(cancelled)
                if compiled.outcome is not Outcome.OK:
                    return JobResult(compile=compiled, run=SKIPPED_PHASE)
            if job.cases:
                assert judge
                files = self._run_cases(job, directory, cancelled, judge)
                return JobResult(compile=compiled, run=SKIPPED_PHASE, notes=self.notes, of_cases=files)
            script = ["run.sh", *job.args]
            ran = _phase(
                directory,
                script,
                job.run,
                stdin=job.stdin,
                env=job.env,
                cancelled=cancelled,
                tell=tell,
                joined=self.joined,
            )
            on_phase("run", ran)
            if ran.outcome is Outcome.CANCELLED:
                _end_if(cancelled)
            outputs = returned.of_directory(Path(directory), job.outputs) if job.outputs else None
        return JobResult(compile=compiled, run=ran, notes=self.notes, outputs=outputs)

    def _run_cases(self, job: Job, directory: str, cancelled: threading.Event, judge: Judge) -> dict[int, Returned]:
        left, contents = Left(job.outputs) if job.outputs else None, Spill("", "")
        files: dict[int, Returned] = {}
        for number, case in enumerate(job.cases):
            if not judge.wants(number):
                continue
            with tempfile.TemporaryDirectory() as above:
                own = shutil.copytree(directory, Path(above, "job"), symlinks=True)
                script, env = ["run.sh", *case.args], job.env | case.env
                if job.talks:
                    assert job.checker
                    judge.talked(number, _talk(str(own), case, env, job.checker, judge.meets(number)))
                    continue
                ran = _phase(str(own), script, case.limits, stdin=case.stdin, env=env, cancelled=cancelled, tell=None)
                if left and ran.outcome is not Outcome.CANCELLED and (wanted := left.of(case.outputs)):
                    files[number] = returned.of_directory(own, wanted, contents)
                    left.take(files[number])
            check = judge.ended(number, ran, files[number].notes if number in files else [])
            if ran.outcome is Outcome.CANCELLED:
                _end_if(cancelled)
            if check:
                assert job.checker
                checker = msgspec.structs.replace(
                    job.checker,
                    files=[*job.checker.files, *check.files],
                    stdin=check.stdin,
                    args=check.args,
                    outputs=check.outputs,
                )
                judge.checked(number, PlainSandbox().run(checker, lambda *_: None, cancelled))
        return files

    def close(self) -> None:
        self.closed = True


def _write(job: Job, directory: str) -> None:
    for file in job.files:
        path = Path(directory, file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.name.endswith("/"):
            path.mkdir(exist_ok=True)
            continue
        path.write_bytes(file.content)
        path.chmod(file.mode)


def _end_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise RunCancelledError("cancelled")


def _phase(
    directory: str,
    script: list[str],
    limits: PhaseLimits,
    *,
    stdin: bytes = b"",
    env: dict[str, str],
    cancelled: threading.Event,
    tell: Callable[[str, Phase], None] | None,
    joined: Joined | None = None,
) -> Phase:
    began = looked = time.monotonic()
    spent = 0.0
    with tempfile.TemporaryFile() as given:  # communicate() forgets an input whose first write came too late
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            ["/bin/sh", *script],
            cwd=directory,
            env={"PATH": PATH, **env},
            stdin=joined.stdin if joined else given,
            stdout=joined.stdout if joined else subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
    if joined:
        joined.begin()
    ended, told = None, -1
    while True:
        try:
            stdout, stderr = process.communicate(timeout=0.02)
            break
        except subprocess.TimeoutExpired as waiting:
            parts = waiting.output or b"", waiting.stderr or b""
            if tell and (printed := sum(map(len, parts))) > told:
                out, err = (Stream(part[-TAIL:], len(part)) for part in parts)
                name = script[0].removesuffix(".sh")
                tell(name, phase_so_far(stdout=out, stderr=err, time=time.monotonic() - began))
                told = printed
            looked, before = time.monotonic(), looked
            spent += min(looked - before, STEP)
            if cancelled.is_set():
                ended = Outcome.CANCELLED
            elif spent > limits.time:
                ended = Outcome.TIME_LIMIT
        if ended:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            if ended is Outcome.TIME_LIMIT and process.returncode != -signal.SIGKILL:
                ended = None  # it ended by itself while this process stood still
            break
    if joined:
        stdout = joined.end()
    code = process.returncode
    return finished_phase(
        stdout=_stream(stdout, limits.stdout),
        stderr=_stream(stderr, limits.stderr),
        time=spent + min(time.monotonic() - looked, STEP),
        outcome=ended or _outcome(code, stdout, stderr, limits),
        signal="SIGKILL" if ended else signal.Signals(-code).name if code < 0 else "",
        exit_code=None if ended or code < 0 else code,
    )


class Joined:
    """The ends of a program that reads what another prints. ``printed`` gets all that this one prints."""

    def __init__(self, stdin: int, to: int, silent: list[Joined]) -> None:
        self.stdin, self._to, self._silent = stdin, to, silent
        self._from, self.stdout = os.pipe()
        self.printed = b""
        self._thread = threading.Thread(target=self._copy)
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True
        os.close(self.stdin)
        os.close(self.stdout)
        self._thread.start()

    def _copy(self) -> None:
        while data := os.read(self._from, 65536):
            self.printed += data
            with contextlib.suppress(BrokenPipeError):
                os.write(self._to, data)
        self._silent.append(self)
        os.close(self._from)
        os.close(self._to)

    def end(self) -> bytes:
        self._thread.join()
        return self.printed


def _talk(directory: str, case: JobCase, env: dict[str, str], interactor: Job, check: Check) -> Talked:
    """Run a program and its interactor, joined by pipes."""
    (of_program, to_program), (of_interactor, to_interactor) = os.pipe(), os.pipe()
    silent: list[Joined] = []
    program, other = Joined(of_program, to_interactor, silent), Joined(of_interactor, to_program, silent)
    found: list[JobResult] = []

    def interact() -> None:
        job = msgspec.structs.replace(
            interactor, files=[*interactor.files, *check.files], args=check.args, outputs=check.outputs
        )
        found.append(PlainSandbox(other).run(job, lambda *_: None, threading.Event()))
        if not other.has_begun:  # it was not compiled
            other.begin()

    thread = threading.Thread(target=interact)
    thread.start()
    script = ["run.sh", *case.args]
    ran = _phase(directory, script, case.limits, env=env, cancelled=threading.Event(), tell=None, joined=program)
    thread.join()
    return Talked(ran, [], found[0], silent[0] is other, f">{program.printed.decode()}<{other.printed.decode()}")


def _outcome(code: int, stdout: bytes, stderr: bytes, limits: PhaseLimits) -> Outcome:
    too_much = len(stdout) > limits.stdout or len(stderr) > limits.stderr
    if too_much and limits.on_output_limit == "end":
        return Outcome.OUTPUT_LIMIT
    return Outcome.OK if code == 0 else Outcome.SIGNALLED if code < 0 else Outcome.NONZERO_EXIT


def _stream(data: bytes, limit: int) -> Stream:
    return Stream(data[:limit], len(data))


class SetClock(Clock):
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.here = 0.0
        self.there = 1_000_000.0

    def monotonic(self) -> float:
        return self.here

    def file_system(self) -> float:
        return self.there

    def pass_time(self, seconds: float) -> None:
        self.here += seconds
        self.there += seconds


class PlainBackend:
    """Build nothing. Every expression gives an environment with one package, but for three words.

    An expression with ``broken`` in it fails. One with ``hangs`` goes on until it is cancelled. One with ``await FILE``
    goes on until the file exists.
    """

    def __init__(self) -> None:
        self.built: list[str] = []
        self.pins: set[str] = set()
        self.rooted: set[str] = set()
        self.lost: set[str] = set()
        self.free = 1 << 40
        self.gate = threading.Event()
        self.gate.set()
        self.failures = self.cache_failures = 0
        self.away = False
        self.settings: Settings | None = None

    def apply_settings(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, pins: dict[str, str]) -> Runtime:
        if self.away:
            raise TemporaryError("the store is away")
        if bad := [name for name, location in pins.items() if "bad" in location]:
            raise OperatorError(f"{bad[0]}: not a nixpkgs")
        return Runtime(
            system="x86_64-linux",
            bash=store_path("bash"),
            coreutils=store_path("coreutils"),
            nixpkgs={name: store_path(location.rpartition("/")[2]) for name, location in pins.items()},
        )

    def holds(self, path: str) -> bool:
        return path not in self.lost

    def sizes(self) -> StoreSizes:
        return StoreSizes(store=1000 + 10 * len(self.rooted), free=self.free, own=dict.fromkeys(self.rooted, 10))

    def collect(self, keep: set[str], *, dry_run: bool) -> Collected:
        gone = self.rooted - keep
        if not dry_run:
            self.rooted -= gone
        return Collected(freed=10 * len(gone), paths=len(gone))

    def build(
        self,
        build_id: str,
        expression: str,
        nixpkgs: str,
        cancelled: threading.Event,
        tell: Callable[[Fetching], None] | None = None,
    ) -> BuildResult:
        self.built.append(build_id)
        self.pins.add(nixpkgs)
        if "hangs" in expression:
            cancelled.wait()
        word, _, rest = expression.partition(" ")
        while word == "await" and not os.path.exists(rest) and not cancelled.wait(0.02):
            pass
        while not self.gate.wait(0.01) and not cancelled.is_set():
            pass
        if cancelled.is_set():
            raise TemporaryError("cancelled")
        if word == "fetches":  # go on once the file exists
            assert tell is not None
            tell(Fetching(paths=1, all_paths=2, bytes=10, all_bytes=30))
            while not os.path.exists(rest) and not cancelled.wait(0.02):
                pass
        if self.cache_failures:
            self.cache_failures -= 1
            raise CacheError("a binary cache is away")
        if self.away or self.failures:
            self.failures = max(0, self.failures - 1)
            raise TemporaryError("the store failed")
        broken = "broken" in expression
        phase = finished_phase(
            stdout=Stream(b"", 0),
            stderr=Stream(b"error: undefined variable 'broken'\n", 35) if broken else Stream(b"", 0),
            time=0.01,
            outcome=Outcome.NONZERO_EXIT if broken else Outcome.OK,
            exit_code=1 if broken else 0,
        )
        if broken:
            return BuildResult(phase=phase)
        self.rooted.add(build_id)
        package = Package(name="hello", version="1", path=store_path("hello"), closure_size=10)
        return BuildResult(phase=phase, shell=store_path(f"{build_id[:8]}-shell"), packages=[package])
