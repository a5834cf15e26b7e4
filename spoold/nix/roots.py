"""What the collector must not take, and why: one symbolic link for each build, pin, source and program of the runtime.

Theory of operation: garbage collection sees direct roots only, links inside the store's own state. (An indirect root
that a collector cannot see counts as stale, and takes everything with it.) A name is ``builds/<build id>``,
``pins/<name of a pin>``, ``sources/<store name>`` or ``runtime/<package>``. A link may be there before the path is.
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
        """Keep ``path`` under ``name``; replaces what had that name."""
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
        """Keep no longer what is kept under ``name``, if anything."""
        (self.directory / name).unlink(missing_ok=True)

    def keep_only(self, kind: str, names: Collection[str]) -> None:
        """Remove every root of this kind but those with these names."""
        for name in self.targets(kind):
            if name not in names:
                self.remove(f"{kind}/{name}")

    def targets(self, kind: str = "") -> dict[str, str]:
        """Return what is kept, by name: of one kind without that prefix, or of all kinds with it."""
        if not kind:
            kinds = [entry.name for entry in self.directory.iterdir() if entry.is_dir()]
            return {f"{kind}/{name}": path for kind in kinds for name, path in self.targets(kind).items()}
        try:
            links = list(os.scandir(self.directory / kind))
        except FileNotFoundError:
            return {}
        return {link.name: os.readlink(link.path) for link in links}

    def sweep(self) -> None:
        """Remove what add() left when it was killed between two names. For whoever is alone with the roots."""
        for name in self.targets():
            if os.path.basename(name).startswith("."):
                self.remove(name)
