"""Fetching: the paths that a derivation needs and the store lacks are fetched from binary caches.

Theory of operation: Nix is asked which paths are missing. For that it asks the caches about each path. Paths that the
caches have are fetched, many at once. For that Nix gets store paths and no derivation, so it cannot run a builder. The
store's database tells which paths came, since a cache may promise a path and not deliver it
(:mod:`spoold.nix.troubles`). If a fetch is killed, the next one goes on from there. All these programs ask through a
door where they can (:mod:`spoold.nix.asking`).

Progress is reported meanwhile: the paths that are registered, and the bytes of these and of paths that are being
written.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import msgspec

from spoold.host import proc
from spoold.model.errors import CacheError, ClientError, TemporaryError
from spoold.model.response import Fetching
from spoold.nix import asking, caches, door, measure, troubles
from spoold.nix.store import QUICK, Store

OUTPUT = "out"
LOOKS = 1.0  # seconds between two looks at the progress
_BUILT = re.compile(r"^(?:these \d+ derivations|this derivation) will be built:\n((?:  \S+\n)*)", re.MULTILINE)
_FETCHED = re.compile(r"^(?:these \d+ paths|this path) will be fetched.*:\n((?:  \S+\n)*)", re.MULTILINE)
_UNPACKED = re.compile(r"will be fetched \(.*?([0-9.]+) ([KMGT]?i?B) unpacked\)")
_now = time.monotonic
_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}

Tell = Callable[[Fetching], None]


class Missing(msgspec.Struct, frozen=True):
    """What a derivation needs and the store lacks: derivations to build, and paths to fetch.

    ``unpacked`` is the bytes of the paths to fetch, ``asked`` are the caches that have them, and ``said`` is all that
    Nix printed when it asked caches.
    """

    built: list[str]
    fetched: list[str]
    unpacked: int = 0
    asked: list[str] = []
    said: str = ""


def missing(store: Store, derivation: str, way: door.Fetch) -> Missing:
    """Ask Nix what is missing, and what of it the caches have. Caches that fail are left out, and ``said`` tells why.

    ``way`` tells how caches are asked: for which build, and under which limits. Raises :class:`ClientError` for a
    derivation that Nix does not understand, and :class:`TemporaryError` where the host fails or on a cancel.
    """
    asked, said = caches.urls(store.settings), ""
    while asked:
        finished = _ask(store, derivation, asked, way)
        text = finished.stderr.data.decode(errors="replace")
        said += text
        if finished.ok:
            return _read(text, asked, said)
        if finished.limit is not None:
            said += troubles.UNSAID
            break
        asked = [url for url in asked if len(asked) > 1 and _ask(store, derivation, [url], way).ok]
    return msgspec.structs.replace(missing_here(store, derivation, way), said=said)


def missing_here(store: Store, derivation: str, way: door.Fetch) -> Missing:
    """Ask Nix what is missing, without asking a cache. Raises what :func:`missing` raises."""
    finished = _ask(store, derivation, [], way)
    said = finished.stderr.data.decode(errors="replace").strip()
    if finished.ok:
        return _read(finished.stderr.data.decode(errors="replace"), [], "")
    # Nix read derivations that the client's evaluation made. Their errors are the client's, unless the host failed.
    if finished.limit or finished.exit_code != 1 or "SQLite" in said:
        raise TemporaryError(f"Nix cannot tell which store paths are missing: {said}")
    raise ClientError(f"Nix cannot read a derivation: {said.removeprefix('error: ')[:1000]}")


def _ask(store: Store, derivation: str, asked: list[str], way: door.Fetch) -> proc.Finished:
    argv = caches.asking(["nix-store", "--realise", "--dry-run", f"{derivation}!{OUTPUT}"], asked)
    bounds = msgspec.structs.replace(QUICK, wall=way.limits.time) if asked else QUICK
    finished = asking.run(store, asked, argv, bounds, way)
    if finished.limit is proc.Limit.CANCELLED:
        raise TemporaryError("the build was cancelled")
    return finished


def _read(text: str, asked: list[str], said: str) -> Missing:
    unpacked = _UNPACKED.search(text)
    size = int(float(unpacked.group(1)) * _UNITS.get(unpacked.group(2), 1)) if unpacked else 0
    return Missing(_paths(_BUILT, text), _paths(_FETCHED, text), size, asked, said)


def _paths(pattern: re.Pattern[str], text: str) -> list[str]:
    match = pattern.search(text)
    return match.group(1).split() if match else []


def fetch(store: Store, wanted: Missing, way: door.Fetch, tell: Tell | None) -> proc.Finished:
    """Fetch the paths that caches promised. Paths that came stay in the store, however this ends.

    For ``way`` see :func:`missing`. Raises :class:`ClientError` where the paths are larger than what may be added to
    the store, and :class:`CacheError` where they took too long or the caches sent more than they may.
    """
    limits = way.limits
    if wanted.unpacked > limits.output:
        raise ClientError(
            f"what has to be fetched for it takes {wanted.unpacked} bytes, and at most {limits.output} may be added to "
            "the store (builder.limits.output); ask for fewer packages"
        )
    look = _Look(store, wanted, limits.silence, tell)
    argv = caches.asking(["nix-store", "--realise", "--keep-going", *wanted.fetched], wanted.asked)
    bounds = proc.Bounds(wall=limits.time, stderr=limits.log)
    finished = asking.run(store, wanted.asked, argv, bounds, way, watch=look)
    if finished.limit is proc.Limit.CANCELLED:
        raise TemporaryError("the build was cancelled")
    if finished.limit is not None:
        arrived = look.arrived()
        took = finished.reason or f"it took more than {limits.time:g} s (builder.limits.time)"
        if finished.limit is proc.Limit.OUTPUT:
            took = f"they sent more than the {limits.output} bytes allowed (builder.limits.output)"
        raise CacheError(
            f"{arrived.paths} of {arrived.all_paths} paths came from the binary caches of this host "
            f"({caches.named(store.settings)}): {took}; what came is kept"
        )
    return finished


class _Look:
    """Looks now and then how much has come, and passes it to ``tell``. Returns a reason to end once nothing comes."""

    def __init__(self, store: Store, wanted: Missing, silence: float, tell: Tell | None) -> None:
        self._store, self._wanted, self._silence, self._tell = store, wanted, silence, tell
        self._looked = self._moved = _now()
        self._told: Fetching | None = None

    def __call__(self) -> str:
        now = _now()
        if now - self._looked < LOOKS:
            return ""
        self._looked = now
        arrived = self.arrived()
        if arrived != self._told:
            self._told, self._moved = arrived, now
            if self._tell is not None:
                self._tell(arrived)
        if now - self._moved > self._silence:
            return f"nothing came for {self._silence:g} s (builder.limits.silence)"
        return ""

    def arrived(self) -> Fetching:
        """Return what has come so far."""
        sizes = self._store.sizes_of(self._wanted.fetched)
        partly = [path for path in self._wanted.fetched if path not in sizes]
        places = [place for path in partly if os.path.lexists(place := self._store.on_disk(path))]
        written, _ = measure.measured(places, size=max(1, self._wanted.unpacked), files=1_000_000)
        return Fetching(
            paths=len(sizes),
            all_paths=len(self._wanted.fetched),
            bytes=min(self._wanted.unpacked, sum(sizes.values()) + written),
            all_bytes=self._wanted.unpacked,
        )
