"""Garbage collection: remove the roots of builds that nobody wants any more, then let Nix delete in small steps.

Theory of operation: jobs go on all the time, since the paths that they read have roots. Builds wait for one step at
most. A step holds the exclusive lock (see :mod:`spoold.nix.lock`) and ends after some bytes or seconds. A pause
follows, in which builds get the lock. A step that is stopped by the clock or by kill -9 may leave a path that Nix has
already forgotten and not yet deleted. The next collection deletes that path, and so does a build that makes the same
path.

Two builds may have the same output, each with a root of its own. If a build does not end, the collection gives up after
a while and reports that it is not complete. The next collection deletes what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Event

import msgspec

from spoold.host import proc
from spoold.model.errors import TemporaryError
from spoold.nix.store import Store
from spoold.nix.usage import BUILDS, Graph

STEP_BYTES = 512 * 1024**2
STEP_SECONDS = 3.0
DRAIN_TIMEOUT = 5.0  # seconds for which a collection that waits for running builds holds up new ones
PAUSE = 0.2  # seconds between two steps: longer than a build sleeps between two looks at the lock
_COLLECTOR = ["nix-store", "--option", "keep-derivations", "false", "--option", "keep-outputs", "false", "--gc"]


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted, or would be: builds that lost their root, store paths, and the bytes of these paths.

    ``complete`` is false where dead paths are left, since time was up or a build did not end.
    """

    builds: list[str]
    paths: list[str]
    freed: int
    complete: bool


def preview(store: Store, keep: Collection[str]) -> Sweep:
    """Return what :func:`collect` would do now."""
    graph = Graph(store)
    doomed = _doomed(store, keep)
    dead = graph.dead(path for name, path in store.roots.targets().items() if name not in doomed)
    return Sweep(builds=sorted(doomed.values()), paths=sorted(dead), freed=graph.bytes(dead), complete=True)


def collect(store: Store, keep: Callable[[], Collection[str]], *, seconds: float, cancel: Event) -> Sweep:
    """Delete paths that neither the builds in ``keep`` nor roots of another kind need. Stop after about ``seconds``.

    ``keep`` says which builds these are. It is asked once no build runs: one that was waited for has its root by then.
    Raises :class:`TemporaryError` where Nix fails.
    """
    deadline = time.monotonic() + seconds
    with store.lock.exclusive(min(DRAIN_TIMEOUT, seconds), cancel) as alone:
        if not alone:
            return Sweep(builds=[], paths=[], freed=0, complete=False)
        before = Graph(store)
        doomed = _doomed(store, keep())
        for name in doomed:
            store.roots.remove(name)
        store.roots.sweep()
    complete = _delete(store, deadline, cancel)
    gone = before.size.keys() - Graph(store).size.keys()
    return Sweep(builds=sorted(doomed.values()), paths=sorted(gone), freed=before.bytes(gone), complete=complete)


def _doomed(store: Store, keep: Collection[str]) -> dict[str, str]:
    """Return the builds that are not kept, as a map from the names of their roots to build ids."""
    return {f"{BUILDS}/{build}": build for build in store.roots.targets(BUILDS) if build not in keep}


def _delete(store: Store, deadline: float, cancel: Event) -> bool:
    """Take step after step until nothing is dead. Return False when it has to end earlier."""
    seconds, left = STEP_SECONDS, -1
    while not cancel.is_set() and time.monotonic() < deadline:
        with store.lock.exclusive(min(DRAIN_TIMEOUT, deadline - time.monotonic()), cancel) as alone:
            if not alone:
                return False
            ended = _step(store, seconds, cancel)
            before, left = left, len(Graph(store).dead(store.roots.targets().values()))
        if ended and left in (0, before):  # Nix may have its reasons to leave paths that no root needs
            return True
        if left == before:
            seconds *= 2  # Nix took all the time to find the first dead path
        cancel.wait(PAUSE)
    return False


def _step(store: Store, seconds: float, cancel: Event) -> bool:
    """Let Nix delete for ``seconds``. Return True when it ended by itself."""
    argv = [*_COLLECTOR, "--max-freed", str(STEP_BYTES)]
    finished = store.run(argv, proc.Bounds(wall=seconds), cancel=cancel)
    if not finished.ok and finished.limit is None:
        said = finished.stderr.data.decode(errors="replace").strip()[-2000:]
        raise TemporaryError(f"nix-store --gc failed ({finished.exit_code or finished.signal}): {said}")
    return finished.ok
