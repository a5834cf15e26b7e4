"""The graph of references of the store, in memory, and what can be computed from it.

Theory of operation: Nix's database has every path with its size and every reference. (The size is that of the path as
an archive, which is close to the room that it takes on disk.) Read as a whole the graph is small. After that it costs
next to nothing to find what each of a thousand builds needs.

A path is alive if a root needs it. The derivation that made a live path is not alive by that, nor are the derivation's
sources. The collector is called with options that say the same.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable

from spoold.model.collection import StoreSizes
from spoold.nix.store import Store

BUILDS = "builds"


class Graph:
    """All valid paths of a store at one moment, and what they refer to."""

    def __init__(self, store: Store) -> None:
        with store.database() as database:
            database.execute("BEGIN")  # without it the two queries could see different moments
            rows = database.execute("SELECT id, path, narSize FROM ValidPaths").fetchall()
            references = database.execute("SELECT referrer, reference FROM Refs").fetchall()
        self.size = {path: int(size or 0) for _, path, size in rows}
        names = {number: path for number, path, _ in rows}
        self._references: dict[str, list[str]] = {path: [] for path in self.size}
        for referrer, reference in references:
            self._references[names[referrer]].append(names[reference])

    def closure(self, paths: Iterable[str]) -> set[str]:
        """Return ``paths`` and all paths that they refer to, directly or not. Paths that are not valid are left out."""
        found: set[str] = set()
        todo = list(paths)
        while todo:
            path = todo.pop()
            if path in self._references and path not in found:
                found.add(path)
                todo += self._references[path]
        return found

    def next_towards(self, path: str) -> dict[str, str]:
        """Return the next path on a shortest way to ``path``, for each path that needs it, directly or not.

        The value for ``path`` itself is "".
        """
        referrers: dict[str, list[str]] = {each: [] for each in self.size}
        for referrer, references in self._references.items():
            for reference in references:
                referrers[reference].append(referrer)
        found = {path: ""}
        todo = deque([path] if path in self.size else [])
        while todo:
            here = todo.popleft()
            for referrer in sorted(referrers[here]):
                if referrer not in found:
                    found[referrer] = here
                    todo.append(referrer)
        return found

    def dead(self, roots: Iterable[str]) -> set[str]:
        """Return the paths that none of ``roots`` needs."""
        return self.size.keys() - self.closure(roots)

    def bytes(self, paths: Iterable[str]) -> int:
        """Return the size of all ``paths`` together."""
        return sum(self.size[path] for path in paths)


def sizes(store: Store) -> StoreSizes:
    """Measure the store, the free room on its disk, and the bytes that deleting each build alone would free."""
    graph, roots = Graph(store), store.roots.targets()
    closures = {name: graph.closure([path]) for name, path in roots.items()}
    users = Counter(path for closure in closures.values() for path in closure)
    disk = os.statvfs(store.state)
    return StoreSizes(
        store=graph.bytes(graph.size),
        free=disk.f_bavail * disk.f_frsize,
        own={
            name.removeprefix(f"{BUILDS}/"): graph.bytes(path for path in closure if users[path] == 1)
            for name, closure in closures.items()
            if name.startswith(f"{BUILDS}/")
        },
    )
