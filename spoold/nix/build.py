"""Build the dependencies of a submission: the entry to ``spoold.nix``.

Theory of operation: ``prepare`` makes the store, adds the operator's pins and builds the runtime that every sandbox
needs: bash, coreutils, time zones, and Nix itself where jobs are to start nix-shell. ``build`` takes a client's
expression to the store path of a captured shell:

    evaluate (in the jail)  ->  hand over  ->  policy  ->  realise (Nix's build sandbox)  ->  root

A build that fails by the client's fault has an outcome and a message (see :mod:`spoold.nix.verdict`). Faults of the
host raise :class:`TemporaryError` or :class:`OperatorError`, and never count against a client.

Any number of threads may build at once, since Nix locks each output. A collection may be asked for at the same time.
Its lock keeps it from paths that are built and have no root yet, see :mod:`spoold.nix.lock`.
"""

from __future__ import annotations

import time
from threading import Event

from spoold.config import Settings
from spoold.host import cgroups
from spoold.host.log import Log
from spoold.model.collection import Collected, StoreSizes
from spoold.model.errors import CacheError, ClientError, OperatorError
from spoold.model.job import BuildLimits, BuildResult, Runtime
from spoold.nix import cage, collect, messages, nixpkgs, packages, policy, program, realise, usage, verdict
from spoold.nix.evaluate import Evaluation, Evaluator
from spoold.nix.fetch import Tell
from spoold.nix.store import Store

log = Log("nix")

COLLECTION = 600.0  # seconds that one collection may take
GRACE = 5.0  # seconds that may pass between the look at the spool for builds to keep and the call with these
ZONES = "tzdata"
PROGRAMS = """{ pin, zones }: let pkgs = import pin { }; in
[ pkgs.bash pkgs.coreutils ]
++ (if pkgs ? ${zones} && (builtins.tryEval pkgs.${zones}.drvPath).success then [ pkgs.${zones} ] else [ ])
"""


class NixBuilder:
    """Builds for one state directory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.nix)
        self._evaluator: Evaluator | None = None
        self._runtime: Runtime | None = None
        self._locations: dict[str, str] = {}  # locations of pins, by name
        self._rooted: dict[str, float] = {}  # by build id: when its root was last added

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings, as far as they are those that daemons take over while they run.

        A build that runs uses the hosts that are listed now for its next download.
        """
        self.settings = settings
        self.store.settings = settings.nix

    def prepare(self, pins: dict[str, str] | None = None) -> Runtime:
        """Make everything that builds and sandboxes need. This is quick when it is there already.

        ``pins`` are names and locations, by default those of the settings. All other pins lose their roots. Raises
        :class:`OperatorError` where a setting or the host has to be mended.
        """
        pins = self.settings.nixpkgs if pins is None else pins
        if "default" not in pins:
            raise OperatorError(
                'no nixpkgs.default is set: put [nixpkgs] default = "..." into the settings, with a directory, a '
                "tarball, a URL or a store path. If this host reaches only Debian's packages, spoold-nixpkgs-debian "
                "makes a nixpkgs from them"
            )
        cage.sweep()
        if self._runtime is None and not cage.available():
            remedy = "systemd: Delegate=yes" if cgroups.delegable() else "cgroup v2, or a builder that is root"
            log.warning("builds are not bounded in memory, since no control group can be made", remedy=remedy)
        self.store.prepare()
        with self.store.lock.shared(Event()):
            self._runtime = self._prepared(pins)
            self._locations = pins
        return self._runtime

    def _prepared(self, locations: dict[str, str]) -> Runtime:
        pins = nixpkgs.add_all(self.store, locations)
        bash, coreutils, zones = self._programs(pins["default"])
        self.store.roots.keep_only("runtime", ("bash", "coreutils", ZONES, "nix"))  # an earlier version kept a Python
        nix = self._nix(pins["default"], bash)
        self._evaluator = Evaluator(self.store, bash, coreutils, nix)
        self._evaluator.prepare()
        self.store.close_listing()
        return Runtime(
            system=self.settings.nix.kind,
            bash=bash,
            coreutils=coreutils,
            nixpkgs=pins,
            closure=self.store.closure([bash, coreutils, *([zones] if zones else ())]),
            nix=nix,
            tzdata=zones,
        )

    def _programs(self, pin: str) -> tuple[str, str, str]:
        """Realise bash, coreutils and the time zones, by an expression of our own on the operator's nixpkgs.

        The path of the time zones is "" where the pin has none that can be built. Jobs then have only UTC.
        """
        arguments = ["--argstr", "pin", str(self.store.on_disk(pin)), "--argstr", "zones", ZONES]
        argv = ["nix-instantiate", "--option", "restrict-eval", "false", *arguments, "-E", PROGRAMS]
        bash, coreutils, *zones = self.store.ask(argv).split()
        return self._built("bash", bash), self._built("coreutils", coreutils), self._zones(zones)

    def _zones(self, derivations: list[str]) -> str:
        try:
            for derivation in derivations:
                return self._built(ZONES, derivation)
            log.warning("jobs have no time zones: nixpkgs.default has no tzdata")
        except (ClientError, OperatorError) as error:
            log.warning("jobs have no time zones", reason=error)
        self.store.roots.remove(f"runtime/{ZONES}")
        return ""

    def _built(self, name: str, derivation: str) -> str:
        try:
            realised = realise.realise(self.store, derivation.partition("!")[0], BuildLimits(), Event())
        except ClientError as error:
            raise OperatorError(f"cannot build {name} of nixpkgs.default: {error}") from error
        if realised.finished is not None and not realised.path:
            text = messages.for_client(realised.finished.stderr, self.store).data.decode(errors="replace")
            raise OperatorError(f"cannot build {name} of nixpkgs.default: {text.strip()}")
        self.store.roots.add(f"runtime/{name}", realised.path)
        return realised.path

    def _nix(self, pin: str, bash: str) -> str:
        """Return the store path of Nix for jobs that start nix-shell, or "" where jobs do not."""
        if self.settings.nix.enter == "captured":
            self.store.roots.remove("runtime/nix")
            return ""
        if program.of_pin(self.store, pin):
            argv = ["nix-instantiate", "--option", "restrict-eval", "false", str(self.store.on_disk(pin)), "-A", "nix"]
            return self._built("nix", self.store.ask(argv).strip())
        path = program.of_host(self.store, bash)
        self.store.roots.add("runtime/nix", path)
        return path

    def sizes(self) -> StoreSizes:
        """Measure the store, the free room on its disk, and the bytes that deleting each build alone would free."""
        return usage.sizes(self.store)

    def collect(
        self, keep: set[str], *, dry_run: bool, seconds: float = COLLECTION, cancelled: Event | None = None
    ) -> Collected:
        """Delete paths that the builds in ``keep``, the pins and the runtime do not need, or only count them.

        A build that was rooted after ``keep`` was put together is kept too. The collection ends after about
        ``seconds``, or soon after ``cancelled`` is set. The next collection goes on from there.
        """
        latest = time.monotonic() - GRACE

        def kept() -> set[str]:
            return keep | {build_id for build_id, rooted in self._rooted.copy().items() if rooted >= latest}

        if dry_run:
            swept = collect.preview(self.store, kept())
        else:
            swept = collect.collect(self.store, kept, seconds=seconds, cancel=cancelled or Event())
        return Collected(freed=swept.freed, paths=len(swept.paths), complete=swept.complete)

    def holds(self, path: str) -> bool:
        """Tell whether a store path is in the store, whole."""
        return self.store.valid([path])

    def build(
        self, build_id: str, expression: str, nixpkgs: str, cancelled: Event, tell: Tell | None = None
    ) -> BuildResult:
        """Build the shell of ``expression`` with the pin named ``nixpkgs``, and root it as ``build_id``.

        ``tell`` is called now and then with how much has been fetched for it.

        Raises :class:`ClientError` for a pin that does not exist. Raises :class:`TemporaryError` or
        :class:`OperatorError` for faults of the host, and :class:`TemporaryError` after a cancel.
        """
        with self.store.lock.shared(cancelled):
            if self._evaluator is None or self._runtime is None:
                raise OperatorError("a bug: build() was called before prepare()")
            pin = self._runtime.nixpkgs.get(nixpkgs)
            if pin is None:
                known = ", ".join(sorted(self._runtime.nixpkgs))
                raise ClientError(f"nixpkgs: there is no {nixpkgs!r}; this host has {known}")
            limits = self.settings.builder.limits
            evaluation = self._evaluator.evaluate(expression, pin, limits, cancelled)
            verdict.raise_ours(evaluation.finished, self.store)
            if not evaluation.derivation:
                return BuildResult(phase=verdict.of_evaluation(self.store, evaluation.finished, limits))
            return self._realised(build_id, evaluation, limits, cancelled, tell)

    def _realise(
        self, build_id: str, derivation: str, limits: BuildLimits, cancelled: Event, tell: Tell | None
    ) -> realise.Realisation:
        try:
            return realise.realise(self.store, derivation, limits, cancelled, build=build_id, tell=tell)
        except (policy.UnavailableError, CacheError):  # the operator may have fetched the source since
            if not nixpkgs.add_fetched(self.store, self._locations.values()):
                raise
        return realise.realise(self.store, derivation, limits, cancelled, build=build_id, tell=tell)

    def _realised(
        self, build_id: str, evaluation: Evaluation, limits: BuildLimits, cancelled: Event, tell: Tell | None
    ) -> BuildResult:
        try:
            realised = self._realise(build_id, evaluation.derivation, limits, cancelled, tell)
        except ClientError as error:
            return BuildResult(phase=verdict.of_refusal(self.store, evaluation.finished, str(error)))
        if realised.finished is not None:
            verdict.raise_ours(realised.finished, self.store)
        phase = verdict.of_build(self.store, evaluation.finished, realised, limits)
        if not realised.path:
            return BuildResult(phase=phase)
        self.store.roots.add(f"builds/{build_id}", realised.path)
        self._rooted[build_id] = time.monotonic()
        return BuildResult(
            phase=phase,
            shell=realised.path,
            closure=self.store.closure([realised.path]),
            packages=packages.of_shell(self.store, evaluation.derivation),
        )
