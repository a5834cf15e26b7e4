"""Realise a derivation: make its output exist, by download where there are binary caches, else by building.

Theory of operation: Nix is asked what is missing. What a binary cache has is fetched by its store path
(:mod:`spoold.nix.fetch`); that is the only step with network. What is still missing then is checked against the policy
and built in a network namespace without network, in Nix's build sandbox, under limits of time, silence, log and output.

Where too much would have to be built it is refused before anything is fetched. Where a cache failed, neither that nor
what the policy refuses is the client's fault: with the cache it might have been there. It is tried again.
"""

from __future__ import annotations

from threading import Event

import msgspec

from spoold.host import proc, userns
from spoold.host.log import Log
from spoold.model.errors import CacheError, ClientError
from spoold.model.job import BuildLimits
from spoold.nix import caches, policy, troubles
from spoold.nix.fetch import OUTPUT, Missing, Tell, fetch, missing, missing_here
from spoold.nix.store import Store

log = Log("nix")

MARGIN = 64 * 1024  # bytes of log for Nix's own words
AHEAD = 1024**3  # bytes by which a file may at least pass the limit of output before a look has found it


class Realisation(msgspec.Struct, frozen=True):
    """How it ended; ``path`` is "" unless it succeeded.

    ``finished`` is ``None`` when there was nothing to do, ``fetching`` when there was nothing to fetch. A fetch that
    failed is not the end: what did not come was built, or refused.
    """

    finished: proc.Finished | None
    path: str
    fetching: proc.Finished | None = None


def realise(store: Store, derivation: str, limits: BuildLimits, cancel: Event, tell: Tell | None = None) -> Realisation:
    """Realise ``derivation``, and ``tell`` how much has been fetched.

    Raises :class:`ClientError` where the policy refuses, or it is too much, and :class:`CacheError` where it would not
    have come to that without the failure of a cache.
    """
    out = next((output.path for output in policy.read(store, derivation).outputs if output.name == OUTPUT), None)
    if out is None:
        raise ClientError(f"{policy.name_of(derivation)} has no output named {OUTPUT}")
    if store.valid([out]):
        return Realisation(None, out)
    wanted = missing(store, derivation, limits, cancel)
    said, fetching = wanted.said, None
    try:
        _bound(store, wanted, limits)
        if wanted.fetched:
            fetching = fetch(store, wanted, limits, cancel, tell)
            said += fetching.stderr.data.decode(errors="replace")
            wanted = missing_here(store, derivation, limits, cancel)
            _bound(store, wanted, limits)
        policy.check(store, wanted.built)
    except ClientError as error:
        if failed := troubles.found(said, fetching):
            raise CacheError(f"{failed}; so {error}") from error
        raise
    if failed := troubles.found(said, fetching):
        log.warning("a binary cache failed; what it did not give is built", reason=failed)
    finished = _build(store, derivation, wanted.built, limits, cancel)
    return Realisation(finished, out if finished.ok else "", fetching)


def _bound(store: Store, wanted: Missing, limits: BuildLimits) -> None:
    """Refuse to build the world. Sources, which are fixed by a hash, don't count: nothing is built for them."""
    if len(wanted.built) <= limits.derivations:
        return
    built = [path for path in wanted.built if not any(each.algorithm for each in policy.read(store, path).outputs)]
    if len(built) > limits.derivations:
        raise ClientError(
            f"{len(built)} derivations would have to be built for it, the first of them "
            f"{policy.name_of(built[0])}, since they are in no binary cache of this host "
            f"({caches.named(store.settings)}); at most {limits.derivations} are built for one environment "
            "(builder.limits.derivations). Ask for packages as the pin has them, or the operator for a binary cache"
        )


def _build(store: Store, derivation: str, built: list[str], limits: BuildLimits, cancel: Event) -> proc.Finished:
    argv = ["nix-store", "--option", "substituters", "", "--realise", "--timeout", str(int(limits.time))]
    argv += ["--max-silent-time", str(int(limits.silence)), "--option", "max-build-log-size", str(limits.log)]
    # The looks at what builders write decide: of SIGXFSZ we are told by the builder alone. So it comes late enough for
    # a look on a busy machine, however small the limit is.
    rlimits = userns.share_of(proc.Rlimits(file_size=limits.output + max(limits.output, AHEAD)))
    bounds = proc.Bounds(wall=limits.time, stdout=MARGIN, stderr=limits.log, tail=MARGIN, rlimits=rlimits)
    return store.run_builders(
        [*argv, f"{derivation}!{OUTPUT}"],
        bounds,
        limits=limits,
        places=[store.on_disk(path + ".chroot") for path in built],
        cancel=cancel,
    )
