"""Build the dependencies of a submission: the room's front door.

Theory of operation: ``prepare`` makes the store, adds the operator's pins and builds the runtime (python, bash,
coreutils) that every sandbox needs. ``build`` takes a client's expression to the store path of a captured shell:

    evaluate (in the jail)  ->  hand over  ->  policy  ->  realise (Nix's build sandbox)  ->  root

A build fails for the client with an outcome and a message; what is wrong with the host raises
:class:`TemporaryError` or :class:`OperatorError` and never counts against a client. Whose fault it is gets decided on
evidence (exit codes, limits, free space), not on words of a log that the client can write too.

Any number of threads may build at once; Nix locks per output.
"""

from __future__ import annotations

import os
from threading import Event

from spoold.config import Settings
from spoold.host import proc
from spoold.model.errors import ClientError, OperatorError, TemporaryError
from spoold.model.job import BuildLimits, BuildResult, Runtime
from spoold.model.response import Outcome, Phase, Stream, finished_phase
from spoold.nix import messages, nixpkgs, packages, realise
from spoold.nix.evaluate import Evaluation, Evaluator
from spoold.nix.store import Store

RUNTIME = ("python3", "bash", "coreutils")
FREE = 64 * 1024**2  # bytes; with less, a failure is the disk's
NOTHING = Stream(b"", 0)


class NixBuilder:
    """Builds for one state directory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.nix)
        self._evaluator: Evaluator | None = None
        self._runtime: Runtime | None = None

    def prepare(self) -> Runtime:
        """Make everything that builds and sandboxes need; quick when it is there already."""
        if "default" not in self.settings.nixpkgs:
            raise OperatorError(
                'no nixpkgs.default is set: put [nixpkgs] default = "..." into the settings, '
                "a directory, a tarball, a URL or a store path"
            )
        self.store.prepare()
        pins = {name: nixpkgs.add(self.store, name, location) for name, location in self.settings.nixpkgs.items()}
        python, bash, coreutils = self._build_runtime(pins["default"])
        self._evaluator = Evaluator(self.store, bash, coreutils)
        self._evaluator.prepare()
        self.store.close_listing()
        self._runtime = Runtime(
            system=self.settings.nix.system,
            store=str(self.store.physical),
            python=python,
            bash=bash,
            coreutils=coreutils,
            nixpkgs=pins,
        )
        return self._runtime

    def _build_runtime(self, pin: str) -> list[str]:
        """Realise the runtime's packages: an expression of our own on a nixpkgs of the operator's."""
        argv = ["nix-instantiate", "--option", "restrict-eval", "false", str(self.store.on_disk(pin))]
        for name in RUNTIME:
            argv += ["-A", name]
        derivations = [line.partition("!")[0] for line in self.store.ask(argv).split()]
        found = []
        for name, derivation in zip(RUNTIME, derivations, strict=True):
            realised = realise.realise(self.store, derivation, self.settings.builder.limits, Event())
            if not realised.path:
                text = messages.for_client(realised.finished.stderr).data.decode(errors="replace")
                raise OperatorError(f"cannot build {name} of nixpkgs.default: {text.strip()}")
            found.append(realised.path.splitlines()[0])
            self.store.add_root(f"runtime/{name}", found[-1])
        return found

    def build(self, build_id: str, expression: str, nixpkgs: str, cancelled: Event) -> BuildResult:
        """Build the shell of ``expression`` with the pin named ``nixpkgs``; rooted as ``build_id``.

        Raises :class:`ClientError` for a pin that does not exist, :class:`TemporaryError` or :class:`OperatorError`
        for what is ours, a cancelled build included.
        """
        if self._evaluator is None or self._runtime is None:
            raise OperatorError("prepare() comes before build()")
        pin = self._runtime.nixpkgs.get(nixpkgs)
        if pin is None:
            known = ", ".join(sorted(self._runtime.nixpkgs))
            raise ClientError(f"nixpkgs: there is no {nixpkgs!r}; this host has {known}")
        limits = self.settings.builder.limits
        evaluation = self._evaluator.evaluate(expression, pin, limits, cancelled)
        self._ours(evaluation.finished)
        if not evaluation.derivation:
            return BuildResult(phase=_failed_evaluation(evaluation.finished, limits))
        return self._realised(build_id, evaluation, limits, cancelled)

    def _realised(self, build_id: str, evaluation: Evaluation, limits: BuildLimits, cancelled: Event) -> BuildResult:
        said = messages.for_client(evaluation.finished.stderr)
        try:
            realised = realise.realise(self.store, evaluation.derivation, limits, cancelled)
        except ClientError as error:
            refusal = f"error: {error}\n".encode()
            return BuildResult(
                phase=_refused(evaluation.finished, messages.joined(said, Stream(refusal, len(refusal))))
            )
        self._ours(realised.finished)
        log = messages.joined(said, messages.for_client(realised.finished.stderr))
        phase = _phase(evaluation.finished, realised.finished, log)
        if not realised.path:
            return BuildResult(phase=phase)
        self.store.add_root(f"builds/{build_id}", realised.path)
        return BuildResult(
            phase=phase, shell=realised.path, packages=packages.of_shell(self.store, evaluation.derivation)
        )

    def _ours(self, finished: proc.Finished) -> None:
        """Raise when a program did not end well for reasons that are not the client's."""
        if finished.ok:
            return
        if finished.limit is proc.Limit.CANCELLED:
            raise TemporaryError("the build was cancelled")
        first = finished.stderr.data.partition(b"\n")[0].decode(errors="replace")
        if finished.exit_code in (126, 127) or first.startswith(("bwrap: ", "setpriv: ", "prlimit: ")):
            raise OperatorError(f"cannot start the jail: {first}; run spoolctl check")
        status = os.statvfs(self.store.state)
        if status.f_bavail * status.f_frsize < FREE or (status.f_files and not status.f_favail):
            raise TemporaryError(f"{self.store.state}: the disk is full")


def _failed_evaluation(finished: proc.Finished, limits: BuildLimits) -> Phase:
    stderr = messages.for_client(finished.stderr)
    name = _signal(finished)
    outcome = Outcome.NONZERO_EXIT
    if finished.limit is proc.Limit.WALL or (name == "SIGKILL" and finished.limit is None):
        outcome = Outcome.TIME_LIMIT
        stderr = messages.noted(stderr, f"the evaluation of cutor.nix took more than {limits.evaluation_time:g} s")
    elif finished.limit in (proc.Limit.OUTPUT, proc.Limit.WATCH):
        outcome = Outcome.OUTPUT_LIMIT
        stderr = messages.noted(stderr, finished.reason or "the evaluation of cutor.nix printed too much")
    elif name in ("SIGABRT", "SIGSEGV", "SIGBUS") or b"out of memory" in finished.stderr.data.lower():
        outcome = Outcome.MEMORY_LIMIT
        stderr = messages.noted(stderr, f"the evaluation of cutor.nix took more than {limits.evaluation_memory} bytes")
    return finished_phase(
        stdout=NOTHING,
        stderr=stderr,
        time=finished.wall,
        outcome=outcome,
        signal=name,
        exit_code=None if name else finished.exit_code,
        cpu_time=finished.cpu,
        memory=finished.memory,
    )


def _signal(finished: proc.Finished) -> str:
    """The signal that ended the program, also when bubblewrap reports it as an exit code."""
    code = finished.exit_code
    return finished.signal or (proc.signal_name(code - 128) if code is not None and code > 128 else "")


def _refused(evaluation: proc.Finished, stderr: Stream) -> Phase:
    return finished_phase(
        stdout=NOTHING, stderr=stderr, time=evaluation.wall, outcome=Outcome.NONZERO_EXIT, exit_code=1
    )


def _phase(evaluation: proc.Finished, build: proc.Finished, log: Stream) -> Phase:
    outcome = _outcome(build)
    if build.reason:
        log = messages.noted(log, build.reason)
    return finished_phase(
        stdout=NOTHING,
        stderr=log,
        time=evaluation.wall + build.wall,
        outcome=outcome,
        signal=build.signal,
        exit_code=build.exit_code,
        cpu_time=evaluation.cpu + build.cpu,
        memory=max(evaluation.memory, build.memory),
    )


def _outcome(build: proc.Finished) -> Outcome:
    if build.ok:
        return Outcome.OK
    if build.limit is proc.Limit.WATCH:
        return Outcome.OUTPUT_LIMIT
    # nix-store: 100 when a build failed, 101 when one took too long or was silent too long.
    if build.limit is proc.Limit.WALL or build.exit_code == 101:
        return Outcome.TIME_LIMIT
    if b" killed after writing more than " in build.stderr.data:
        return Outcome.OUTPUT_LIMIT
    return Outcome.NONZERO_EXIT
