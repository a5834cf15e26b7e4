"""Stores: where each executor has the store from which its jobs run, and what it sees of it from there.

Spec: spool-layout.md, "Several hosts". The store is the builder's. On another host it is mounted, as a rule read-only,
and only an executor there can tell whether it is whole. So each notes in ``tmp/<process>.store`` what it sees whenever
the builder provides another runtime: for ``spoolctl doctor``, on whichever host that is run. Nothing is decided by it:
it is not synced, and a note that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from spoold.config import NixSettings, Settings
from spoold.host import fsops, machine
from spoold.host.log import Log
from spoold.model.ids import Kept, Private
from spoold.model.job import Runtime
from spoold.model.states import Role

log = Log(Role.EXECUTOR)
LARGEST = 1 << 16  # bytes of a note


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one host sees of the store: ``lacks`` is a path of the runtime that is not there, "" where all are."""

    host: str
    path: str
    file_system: str = "none"
    remote: bool = False
    read_only: bool = False
    lacks: str = ""


def look(settings: NixSettings, runtime: Runtime) -> Seen:
    """Look at the store from this host. Raises :class:`PermissionError` where it is closed to this user."""
    path, host = settings.physical_store, os.uname().nodename
    if not fsops.exists(path):
        return Seen(host=host, path=path, lacks=path)
    mount = machine.mount_of(path)
    wanted = filter(None, (runtime.bash, runtime.coreutils, runtime.tzdata, runtime.nix, *runtime.closure))
    missing = (each for each in wanted if not fsops.exists(os.path.join(path, os.path.basename(each))))
    return Seen(
        host=host,
        path=path,
        file_system=mount.kind,
        remote=mount.remote,
        read_only=bool(os.statvfs(path).f_flag & os.ST_RDONLY),
        lacks=next(missing, ""),
    )


class Stores:
    """The notes of one executor, in the spool ``root``."""

    def __init__(self, root: str, settings: Settings) -> None:
        self._path = os.path.join(root, "tmp", settings.executor.process + Kept.STORE)
        self._settings = settings.nix

    def note(self, runtime: Runtime) -> None:
        """Say what is seen of the store, and log what is missing; where the host is in the way, nothing is said."""
        try:
            seen = look(self._settings, runtime)
            private = self._path + Private.NOTE
            fsops.write_private(private, msgspec.json.encode(seen), sync=False)
            fsops.replace(private, self._path)
        except OSError as error:
            log.warning("where the store is could not be noted", store=self._settings.physical_store, error=error)
            return
        if seen.lacks:
            log.warning(
                "the store lacks what the builder provides; mount the builder's store there",
                store=seen.path,
                lacks=seen.lacks,
            )


def noted(root: str) -> dict[str, Seen]:
    """Return what executors noted last, by their process."""
    found: dict[str, Seen] = {}
    directory = os.path.join(root, "tmp")
    for name in sorted(fsops.names(directory)):
        if name.endswith(Kept.STORE):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                data = fsops.read(os.path.join(directory, name), LARGEST)
                if data is not None:
                    found[name.removesuffix(Kept.STORE)] = msgspec.json.decode(data, type=Seen)
    return found
