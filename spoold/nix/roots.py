"""The roots of the store: one symbolic link for each build, pin, source and program of the runtime.

Theory of operation: the collector deletes no path that a root needs, and the name of the root tells who needs it. Only
direct roots are used, which are links inside the store's own state. (A collector that cannot see an indirect root takes
it as stale, and deletes the paths that the root kept.) A name is ``builds/<build id>``, ``pins/<name of a pin>``,
``sources/<store name>`` or ``runtime/<package>``. A link may exist before its path does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path


class Roots:
    """The roots below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, name: str, path: str) -> None:
        """Keep ``path`` under ``name``, in place of the path that had that name."""
        link = self.directory / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(path)
            return
        if os.readlink(link) != path:
            fresh = link.with_name(f".{link.name}.{os.getpid()}.{os.urandom(4).hex()}")
            fresh.symlink_to(path)
            fresh.replace(link)

    def remove(self, name: str) -> None:
        """Remove the root ``name``, if there is one."""
        (self.directory / name).unlink(missing_ok=True)

    def keep_only(self, kind: str, names: Collection[str]) -> None:
        """Remove every root of this ``kind`` except those in ``names``."""
        for name in self.targets(kind):
            if name not in names:
                self.remove(f"{kind}/{name}")

    def targets(self, kind: str = "") -> dict[str, str]:
        """Return the kept paths by name. Names of one ``kind`` come without it, and names of all kinds with it."""
        if not kind:
            kinds = [entry.name for entry in self.directory.iterdir() if entry.is_dir()]
            return {f"{kind}/{name}": path for kind in kinds for name, path in self.targets(kind).items()}
        try:
            links = list(os.scandir(self.directory / kind))
        except FileNotFoundError:
            return {}
        return {link.name: os.readlink(link.path) for link in links}

    def sweep(self) -> None:
        """Remove links that add() left when it was killed. Nobody else may change the roots meanwhile."""
        for name in self.targets():
            if os.path.basename(name).startswith("."):
                self.remove(name)
