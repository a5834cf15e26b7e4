"""Realise a derivation: make its output exist, by a download from binary caches or else by building.

Theory of operation: Nix is asked which paths are missing. Paths that a binary cache has are fetched
(:mod:`spoold.nix.fetch`). For that Nix gets store paths and no derivation, so it cannot run a builder. The other paths
are checked against the policy and built in Nix's build sandbox. Limits bound the time, silence, log and output of a
build, and its network namespace has no network.

Where too much would have to be built, the derivation is refused before anything is fetched. If a cache failed, neither
this refusal nor one by the policy is the client's fault, since a working cache might have had the paths. The build is
then tried again.

Where the operator allows hosts, sources that are pinned by a hash are downloaded before anything else is built, in the
order of their dependencies. First everything that a download needs is built without network. Then the download runs
alone: one fixed-output derivation in one call of Nix, in a network namespace of its own with a door
(:mod:`spoold.nix.door`). The hash decides whether the download counts. If it fails, the proxy's report tells whose
fault that is. All downloads together transfer no more than a build may add to the store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from threading import Event

import msgspec

from spoold.host import proc, userns
from spoold.host.log import Log
from spoold.model.errors import CacheError, ClientError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.model.response import Outcome
from spoold.nix import abandoned, caches, confine, door, policy, sources, troubles
from spoold.nix.fetch import OUTPUT, Missing, Tell, fetch, missing, missing_here
from spoold.nix.policy import Derivation
from spoold.nix.store import Store
from spoold.proxy import rules
from spoold.proxy.order import Ended, Order, Purpose

log = Log("nix")

MARGIN = 64 * 1024  # bytes of log for Nix's own messages
MISMATCH = 102  # nix-store's exit code where the hash does not match
BOUNDS = (proc.Limit.WALL, proc.Limit.OUTPUT)  # the limits that stand for the proxy's bounds
AHEAD = 1024**3  # bytes by which the limit on a file's size is above the limit on output, at least


class Realisation(msgspec.Struct, frozen=True):
    """How a realisation ended. ``path`` is "" unless it succeeded.

    ``finished`` is the last step, or ``None`` when there was nothing to do. ``fetching`` is the fetch from caches, or
    ``None`` when there was nothing to fetch. A failed fetch is not the end: paths that did not come were built or
    refused. ``before`` are the steps before the last one, that is downloads of sources and the builds that these need.
    Where a download failed, ``outcome`` and ``note`` say how.
    """

    finished: proc.Finished | None
    path: str
    fetching: proc.Finished | None = None
    before: tuple[proc.Finished, ...] = ()
    outcome: Outcome | None = None
    note: str = ""


def realise(
    store: Store,
    derivation: str,
    limits: BuildLimits,
    cancel: Event,
    *,
    build: str = "runtime",
    tell: Tell | None = None,
) -> Realisation:
    """Realise ``derivation``. ``tell`` is called with how much has been fetched. ``build`` is its name in logs.

    Raises :class:`ClientError` where the policy refuses the derivation, or too much would have to be fetched or built.
    Raises :class:`CacheError` instead where the failure of a cache may have caused that.
    """
    out = next((output.path for output in policy.read(store, derivation).outputs if output.name == OUTPUT), None)
    if out is None:
        raise ClientError(f"{policy.name_of(derivation)} has no output named {OUTPUT}")
    if store.valid([out]):
        return Realisation(None, out)
    what = policy.name_of(derivation)
    order = Order(build=build, what=what, bytes=rules.most(limits), time=limits.time, purpose=Purpose.CACHE)
    wanted, fetching, trouble = _fetched(store, derivation, door.Fetch(order, limits, cancel=cancel), tell)
    if trouble:
        log.warning("a binary cache failed; packages that it did not deliver are built here", reason=trouble)
    making = _Making(store, limits, cancel, build)
    failed = making.sources(wanted.built) if store.settings.fetch else None
    if trouble and failed is not None and failed.outcome is not None:
        raise CacheError(f"{trouble}; so a source had to be downloaded, which failed: {failed.note or failed.outcome}")
    if failed is None:
        finished = making.build([f"{derivation}!{OUTPUT}"], wanted.built)
        failed = Realisation(finished, out if finished.ok else "")
    return msgspec.structs.replace(failed, fetching=fetching, before=tuple(making.before))


def _fetched(
    store: Store, derivation: str, way: door.Fetch, tell: Tell | None
) -> tuple[Missing, proc.Finished | None, str]:
    """Fetch what caches have. Return what is missing after that, how the fetch ended, and what was wrong with caches.

    Raises what :func:`realise` raises.
    """
    wanted = missing(store, derivation, way)
    said, fetching = wanted.said, None
    try:
        _bound(store, wanted, way.limits)
        if wanted.fetched:
            fetching = fetch(store, wanted, way, tell)
            said += fetching.stderr.data.decode(errors="replace")
            wanted = missing_here(store, derivation, way)
            _bound(store, wanted, way.limits)
        policy.check(store, wanted.built)
    except ClientError as error:
        if trouble := troubles.found(said, fetching, way.met):
            raise CacheError(f"{trouble}; so {error}") from error
        raise
    return wanted, fetching, troubles.found(said, fetching, way.met)


def _bound(store: Store, wanted: Missing, limits: BuildLimits) -> None:
    """Refuse too many derivations. Sources, which are fixed by a hash, do not count: nothing is built for them."""
    if len(wanted.built) <= limits.derivations:
        return
    built = [path for path in wanted.built if not policy.read(store, path).is_fixed]
    if len(built) > limits.derivations:
        raise ClientError(
            f"{len(built)} derivations would have to be built for it, the first of them "
            f"{policy.name_of(built[0])}, since they are in no binary cache of this host "
            f"({caches.named(store.settings)}); at most {limits.derivations} are built for one environment "
            "(builder.limits.derivations). Ask for packages as the pin has them, or the operator for a binary cache"
        )


class _Making:
    """All builds and downloads for one environment, in the time of one build. ``before``: steps that ended well."""

    def __init__(self, store: Store, limits: BuildLimits, cancel: Event, build: str) -> None:
        self._store, self._limits, self._cancel, self._name = store, limits, cancel, build
        self._until = time.monotonic() + limits.time
        self._bytes = limits.output  # that all downloads together may still transfer
        self.before: list[proc.Finished] = []

    def sources(self, built: Sequence[str]) -> Realisation | None:
        """Download the pinned sources among ``built``. Return how the first failed one ended, or None."""
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
        """Build what a download needs, such as curl, without network and in another call of Nix than the download."""
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
        """Download one source. Return how it ended where it failed, else None."""
        name, limits = policy.name_of(path), self._limits
        bytes_ = max(1, min(limits.fetch_bytes, self._bytes))
        order = Order(build=self._name, what=name, bytes=bytes_, time=min(limits.fetch_time, self._left))
        fetch = door.Fetch(order, limits)
        finished = self._run([path], [path], fetch)
        self.before.append(finished)
        self._bytes -= fetch.report.transferred if fetch.report else 0
        if finished.ok:
            return None
        if fetch.report is None or finished.exit_code == MISMATCH or finished.limit not in (None, *BOUNDS):
            return self._failed()
        if away := sources.away(fetch.report):
            raise TemporaryError(f"{name} cannot be downloaded now: {away}")
        outcome, note = sources.judged(name, policy.hosts_of(self._store, derivation), fetch.report)
        if fetch.report.ended is Ended.BYTES and bytes_ < limits.fetch_bytes:
            note = f"{name}: all downloads for it took more than {limits.output} bytes (builder.limits.output)"
        return msgspec.structs.replace(self._failed(), outcome=outcome, note=note)

    def build(self, targets: Sequence[str], built: Sequence[str]) -> proc.Finished:
        """Build ``targets`` without network. ``built`` are the derivations that may be built for them."""
        return self._run(targets, built)

    @property
    def _left(self) -> float:
        return max(1.0, self._until - time.monotonic())

    def _run(self, targets: Sequence[str], built: Sequence[str], fetch: door.Fetch | None = None) -> proc.Finished:
        chroots = {path: self._store.on_disk(path + abandoned.SUFFIX) for path in built}
        for path, chroot in chroots.items():
            if os.path.lexists(chroot):
                derivation = policy.read(self._store, path)
                outputs = [self._store.on_disk(each.path) for each in derivation.outputs if each.path]
                abandoned.remove(chroot, outputs, self._store.remove)
        limits, left = self._limits, self._left
        argv = ["nix-store", "--option", "substituters", "", "--realise", "--timeout", str(int(left))]
        argv += ["--max-silent-time", str(int(limits.silence)), "--option", "max-build-log-size", str(limits.log)]
        if fetch is not None:
            authorities = confine.certificates(self._store.settings.certificates)
            argv += ["--option", "sandbox-paths", " ".join(path for _, path in authorities)]
        # The looks at the files of builders enforce the limit on output. The limit on file size is only a backstop,
        # since only the builder would tell us of a SIGXFSZ. So it is high enough that a look comes first, also on a
        # busy machine and with a small limit.
        rlimits = userns.share_of(proc.Rlimits(file_size=limits.output + max(limits.output, AHEAD)))
        bounds = proc.Bounds(wall=left, stdout=MARGIN, stderr=limits.log, tail=MARGIN, rlimits=rlimits)
        return self._store.run_builders(
            [*argv, *targets],
            bounds,
            limits=limits,
            places=[*chroots.values()],
            cancel=self._cancel,
            fetch=fetch,
        )
