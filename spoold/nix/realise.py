"""Realise a derivation: make its output exist, by download where there are binary caches, else by building.

Theory of operation: Nix is asked what is missing. What a binary cache has is fetched by its store path, which can run
no builder. What is still missing then is checked against the policy and built in Nix's build sandbox, under limits of
time, silence, log and output, in a network namespace without network.

Where the operator allows hosts, sources that are pinned by a hash come first, in the order of their dependencies: what
the fetch of one needs is built without network, and then the fetch alone runs, one fixed-output derivation in one call
of Nix, in a network namespace of its own with a door (:mod:`spoold.nix.door`). Its hash decides whether it counts, and
the proxy's report whose fault it is if it does not come.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from threading import Event

import msgspec

from spoold.host import proc, userns
from spoold.model.errors import ClientError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.model.response import Outcome
from spoold.nix import asking, confine, door, policy, sources
from spoold.nix.policy import Derivation
from spoold.nix.store import QUICK, Store
from spoold.proxy.order import Order, Purpose

_BUILT = re.compile(r"^(?:these \d+ derivations|this derivation) will be built:\n((?:  \S+\n)*)", re.MULTILINE)
_FETCHED = re.compile(r"^(?:these \d+ paths|this path) will be fetched.*:\n((?:  \S+\n)*)", re.MULTILINE)
OUTPUT = "out"
CACHE = Purpose.CACHE
MARGIN = 64 * 1024  # bytes of log for Nix's own words
MISMATCH = 102  # nix-store's exit code where the hash is another
BOUNDS = (proc.Limit.WALL, proc.Limit.OUTPUT)  # by which the proxy's are told
AHEAD = 1024**3  # bytes by which a file may at least pass the limit of output before a look has found it


class Missing(msgspec.Struct, frozen=True):
    """What a derivation needs and the store has not: derivations to build, paths to fetch.

    ``away`` says which binary cache could not be asked, "" where all were.
    """

    built: list[str]
    fetched: list[str]
    away: str = ""


class Realisation(msgspec.Struct, frozen=True):
    """How it ended; ``path`` is "" unless it succeeded.

    ``finished`` is ``None`` when there was nothing to do, ``fetching`` when there was nothing to fetch from a cache. A
    fetch that failed is not the end: what did not come was built, or refused. ``before`` are the steps before the last
    one, downloads of sources and what these need. Where a download failed, ``outcome`` and ``note`` say how.
    """

    finished: proc.Finished | None
    path: str
    fetching: proc.Finished | None = None
    before: tuple[proc.Finished, ...] = ()
    outcome: Outcome | None = None
    note: str = ""


def realise(store: Store, derivation: str, limits: BuildLimits, cancel: Event, build: str = "runtime") -> Realisation:
    """Realise ``derivation``; raises :class:`ClientError` where the policy refuses. ``build`` names it in logs."""
    out = next((output.path for output in policy.read(store, derivation).outputs if output.name == OUTPUT), None)
    if out is None:
        raise ClientError(f"{policy.name_of(derivation)} has no output named {OUTPUT}")
    if store.valid([out]):
        return Realisation(None, out)
    order = Order(build=build, what=policy.name_of(derivation), bytes=limits.output, time=limits.time, purpose=CACHE)
    missing = _missing(store, derivation, door.Fetch(order, limits, cancel=cancel))
    fetching, away = None, missing.away
    if missing.fetched:
        fetching = _fetch(store, missing.fetched, limits, door.Fetch(order, limits, cancel=cancel))
        if cancel.is_set():
            raise TemporaryError("the build was cancelled")
        missing = _missing(store, derivation, None)
    _check(store, missing.built, fetching, away)
    making = _Making(store, limits, cancel, build)
    failed = making.sources(missing.built) if store.settings.fetch else None
    if failed is None:
        finished = making.build([f"{derivation}!{OUTPUT}"], missing.built)
        failed = Realisation(finished, out if finished.ok else "")
    return msgspec.structs.replace(failed, fetching=fetching, before=tuple(making.before))


def _missing(store: Store, derivation: str, fetch: door.Fetch | None) -> Missing:
    """Ask what is missing: with ``fetch``, the binary caches too."""
    caches = store.substituters if fetch else []
    options = ["--option", "substituters", " ".join(caches)]
    argv = ["nix-store", *options, "--realise", "--dry-run", f"{derivation}!{OUTPUT}"]
    finished = asking.run(store, caches, argv, QUICK, fetch) if fetch and caches else store.run(argv)
    if not finished.ok:
        said = finished.stderr.data.decode(errors="replace").strip()
        # Nix read derivations that the evaluation made: what it cannot make sense of is theirs, unless the host failed.
        if finished.limit or finished.exit_code != 1 or "SQLite" in said:
            raise TemporaryError(f"cannot tell what is missing: {said}")
        raise ClientError(f"Nix cannot make sense of a derivation: {said.removeprefix('error: ')[:1000]}")
    text = finished.stderr.data.decode(errors="replace")
    away = sources.unanswered(fetch.report) if fetch and fetch.report else ""
    return Missing(_paths(_BUILT, text), _paths(_FETCHED, text), away)


def _check(store: Store, built: list[str], fetching: proc.Finished | None, away: str) -> None:
    """Ask the policy; what a binary cache that is away may have, or did not deliver, is not the client's fault."""
    try:
        policy.check(store, built)
    except policy.UnavailableError as error:
        if away:
            raise TemporaryError(f"a binary cache is away ({away}), and {error}") from error
        if fetching is None or fetching.ok:
            raise
        said = fetching.stderr.data.decode(errors="replace").strip()[-1000:]
        raise TemporaryError(f"a binary cache did not deliver what it has ({said}), and {error}") from error


def _paths(pattern: re.Pattern[str], text: str) -> list[str]:
    match = pattern.search(text)
    return match.group(1).split() if match else []


def _fetch(store: Store, paths: list[str], limits: BuildLimits, fetch: door.Fetch) -> proc.Finished:
    """Fetch what a cache promised."""
    bounds = proc.Bounds(wall=limits.time, silence=limits.silence, stderr=limits.log)
    caches = store.substituters
    argv = ["nix-store", "--option", "substituters", " ".join(caches), "--realise", "--keep-going", *paths]
    return asking.run(store, caches, argv, bounds, fetch)


class _Making:
    """All that is built and downloaded for one environment, in the time of one build; ``before`` is what ended well."""

    def __init__(self, store: Store, limits: BuildLimits, cancel: Event, build: str) -> None:
        self._store, self._limits, self._cancel, self._name = store, limits, cancel, build
        self._until = time.monotonic() + limits.time
        self.before: list[proc.Finished] = []

    def sources(self, built: Sequence[str]) -> Realisation | None:
        """Download the pinned sources among ``built``; return how that ended where it did not succeed."""
        graph = {path: policy.read(self._store, path) for path in built}
        inputs = {path: [each for each, _ in graph[path].derivations if each in graph] for path in graph}
        for path in TopologicalSorter(inputs).static_order():
            if not graph[path].is_fixed:
                continue
            failed = self._inputs(path, graph) or self._source(path, graph[path])
            if failed is not None:
                return failed
        return None

    def _inputs(self, path: str, graph: Mapping[str, Derivation]) -> Realisation | None:
        """Build what a download needs, such as curl: without network, and not in the download's own call."""
        wanted = graph[path].derivations
        outputs = [
            output.path
            for each, names in wanted
            for output in (graph.get(each) or policy.read(self._store, each)).outputs
            if output.name in names
        ]
        if self._store.valid(outputs):
            return None
        finished = self.build([f"{each}!{','.join(names)}" for each, names in wanted], list(graph))
        self.before.append(finished)
        return None if finished.ok else self._failed()

    def _failed(self) -> Realisation:
        return Realisation(self.before.pop(), "")

    def _source(self, path: str, derivation: Derivation) -> Realisation | None:
        """Download one source."""
        name, limits = policy.name_of(path), self._limits
        order = Order(build=self._name, what=name, bytes=limits.fetch_bytes, time=min(limits.fetch_time, self._left))
        fetch = door.Fetch(order, limits)
        finished = self._run([path], [path], fetch)
        self.before.append(finished)
        if finished.ok:
            return None
        if fetch.report is None or finished.exit_code == MISMATCH or finished.limit not in (None, *BOUNDS):
            return self._failed()
        if away := sources.away(fetch.report):
            raise TemporaryError(f"{name} cannot be downloaded now: {away}")
        outcome, note = sources.judged(name, policy.hosts_of(self._store, derivation), fetch.report)
        return msgspec.structs.replace(self._failed(), outcome=outcome, note=note)

    def build(self, targets: Sequence[str], built: Sequence[str]) -> proc.Finished:
        """Build without network; ``built`` are the derivations that may be built for it."""
        return self._run(targets, built)

    @property
    def _left(self) -> float:
        return max(1.0, self._until - time.monotonic())

    def _run(self, targets: Sequence[str], built: Sequence[str], fetch: door.Fetch | None = None) -> proc.Finished:
        limits, left = self._limits, self._left
        argv = ["nix-store", "--option", "substituters", "", "--realise", "--timeout", str(int(left))]
        argv += ["--max-silent-time", str(int(limits.silence)), "--option", "max-build-log-size", str(limits.log)]
        if fetch is not None:
            argv += ["--option", "sandbox-paths", " ".join(path for _, path in confine.certificates())]
        # The looks at what builders write decide: of SIGXFSZ we are told by the builder alone. So it comes late enough
        # for a look on a busy machine, however small the limit is.
        rlimits = userns.share_of(proc.Rlimits(file_size=limits.output + max(limits.output, AHEAD)))
        bounds = proc.Bounds(wall=left, stdout=MARGIN, stderr=limits.log, tail=MARGIN, rlimits=rlimits)
        return self._store.run_builders(
            [*argv, *targets],
            bounds,
            limits=limits,
            places=[self._store.on_disk(path + ".chroot") for path in built],
            cancel=self._cancel,
            fetch=fetch,
        )
