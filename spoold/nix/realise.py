"""Realise a derivation: make its output exist, by download where there are binary caches, else by building.

Theory of operation: Nix is asked what is missing. What a binary cache has is fetched by its store path, which can run
no builder; that is the only step with network. What is still missing then is checked against the policy and built in
a network namespace without network, in Nix's build sandbox, under limits of time, silence, log and output.
"""

from __future__ import annotations

import re
from threading import Event

import msgspec

from spoold.host import proc, userns
from spoold.model.errors import ClientError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.nix import policy
from spoold.nix.store import Store

_BUILT = re.compile(r"^(?:these \d+ derivations|this derivation) will be built:\n((?:  \S+\n)*)", re.MULTILINE)
_FETCHED = re.compile(r"^(?:these \d+ paths|this path) will be fetched.*:\n((?:  \S+\n)*)", re.MULTILINE)
OUTPUT = "out"
MARGIN = 64 * 1024  # bytes of log for Nix's own words
AHEAD = 1024**3  # bytes by which a file may at least pass the limit of output before a look has found it


class Missing(msgspec.Struct, frozen=True):
    """What a derivation needs and the store has not: derivations to build, paths to fetch."""

    built: list[str]
    fetched: list[str]


class Realisation(msgspec.Struct, frozen=True):
    """How it ended; ``path`` is "" unless it succeeded.

    ``finished`` is ``None`` when there was nothing to do, ``fetching`` when there was nothing to fetch. A fetch that
    failed is not the end: what did not come was built, or refused.
    """

    finished: proc.Finished | None
    path: str
    fetching: proc.Finished | None = None


def realise(store: Store, derivation: str, limits: BuildLimits, cancel: Event) -> Realisation:
    """Realise ``derivation``; raises :class:`ClientError` where the policy refuses."""
    out = next((output.path for output in policy.read(store, derivation).outputs if output.name == OUTPUT), None)
    if out is None:
        raise ClientError(f"{policy.name_of(derivation)} has no output named {OUTPUT}")
    if store.valid([out]):
        return Realisation(None, out)
    missing = _missing(store, derivation, network=bool(store.settings.substituters))
    fetching = None
    if missing.fetched:
        fetching = _fetch(store, missing.fetched, limits, cancel)
        if cancel.is_set():
            raise TemporaryError("the build was cancelled")
        missing = _missing(store, derivation, network=False)
    _check(store, missing.built, fetching)
    finished = _build(store, derivation, missing.built, limits, cancel)
    return Realisation(finished, out if finished.ok else "", fetching)


def _missing(store: Store, derivation: str, *, network: bool) -> Missing:
    caches = [] if network else ["--option", "substituters", ""]
    finished = store.run(["nix-store", *caches, "--realise", "--dry-run", f"{derivation}!{OUTPUT}"], network=network)
    if not finished.ok:
        said = finished.stderr.data.decode(errors="replace").strip()
        # Nix read derivations that the evaluation made: what it cannot make sense of is theirs, unless the host failed.
        if finished.limit or finished.exit_code != 1 or "SQLite" in said:
            raise TemporaryError(f"cannot tell what is missing: {said}")
        raise ClientError(f"Nix cannot make sense of a derivation: {said.removeprefix('error: ')[:1000]}")
    text = finished.stderr.data.decode(errors="replace")
    return Missing(_paths(_BUILT, text), _paths(_FETCHED, text))


def _check(store: Store, built: list[str], fetching: proc.Finished | None) -> None:
    """Ask the policy; what a binary cache promised and did not deliver is not the client's fault."""
    try:
        policy.check(store, built)
    except ClientError as error:
        if fetching is None or fetching.ok:
            raise
        said = fetching.stderr.data.decode(errors="replace").strip()[-1000:]
        raise TemporaryError(f"a binary cache did not deliver what it has ({said}), and {error}") from error


def _paths(pattern: re.Pattern[str], text: str) -> list[str]:
    match = pattern.search(text)
    return match.group(1).split() if match else []


def _fetch(store: Store, paths: list[str], limits: BuildLimits, cancel: Event) -> proc.Finished:
    """Fetch what a cache promised."""
    bounds = proc.Bounds(wall=limits.time, silence=limits.silence, stderr=limits.log)
    return store.run(["nix-store", "--realise", "--keep-going", *paths], bounds, network=True, cancel=cancel)


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
