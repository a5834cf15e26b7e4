"""Uses: who asked for which build, and when each build was last wanted.

Spec: spool-layout.md, "The Build store". ``builds/used`` has an empty file for each build and user. Its mtime is when
that user last wanted the build.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from spoold.host import fsops

ONCE = 1.0  # seconds in which a finished build's use is noted once: collection deletes no build so new
MOST = 1024  # builds and users whose last note is remembered


class Uses:
    """The notes in the directory ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._noted: dict[tuple[str, int], float] = {}  # time of the last note, on the monotonic clock

    def note(self, build_id: str, uid: int) -> None:
        """Remember that ``uid`` asked for a build just now, or used it.

        `spoolctl deps` shows this note, and collection goes by it. It also tells in whose turn a build is made.
        """
        now = time.monotonic()
        path = f"{self._path}/{build_id}@{uid}"
        if not fsops.touch(path):
            fsops.write_private(path, b"")
        if len(self._noted) >= MOST:
            self._noted.clear()
        self._noted[build_id, uid] = now

    def note_again(self, build_id: str, uid: int) -> None:
        """Remember that ``uid`` used a finished build just now, unless that was noted a moment ago."""
        if time.monotonic() - self._noted.get((build_id, uid), -ONCE) >= ONCE:
            self.note(build_id, uid)

    def askers(self) -> dict[str, set[int]]:
        """Return the users who asked for each build."""
        found: dict[str, set[int]] = {}
        for name in fsops.names(self._path):
            build_id, _, user = name.partition("@")
            if user.isdecimal():
                found.setdefault(build_id, set()).add(int(user))
        return found

    def last(self, uid: int | None = None) -> dict[str, float]:
        """Return when each build was last used, by ``uid`` or (None) by anybody: seconds on the file system's clock."""
        found: dict[str, float] = {}
        for name in fsops.names(self._path):
            build_id, _, user = name.partition("@")
            if uid is None or user == str(uid):
                used = fsops.mtime(os.path.join(self._path, name)) or 0.0
                found[build_id] = max(used, found.get(build_id, 0.0))
        return found

    def forget(self, build_ids: Collection[str]) -> None:
        """Forget who asked for these builds."""
        for name in fsops.names(self._path) if build_ids else ():
            if name.partition("@")[0] in build_ids:
                fsops.remove(os.path.join(self._path, name))
