"""Stores: where each executor has the store from which its jobs run, and what else it sees from its host.

Spec: spool-layout.md, "Several hosts". The store is the builder's. Another host mounts it, usually read-only, and only
an executor on that host can tell whether it is whole. So each executor notes in ``tmp/<process>.store`` what it sees,
whenever the builder provides another runtime or the engine's state changes. ``spoolctl doctor`` reads the note on any
host. The note also has what the doctor would look at on the executor's host: how the spool is mounted, the clock, and
why the engine cannot be used. Nothing is decided by it. So it is not synced, and a note that cannot be read counts as
none.
"""

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from spoold.config import NixSettings, Settings, SpoolSettings
from spoold.host import fsops, machine
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.ids import Kept, Private
from spoold.model.job import Runtime
from spoold.model.states import Role
from spoold.spool import lists

log = Log(Role.EXECUTOR)
LARGEST = 1 << 16  # bytes of a note
MOST = 2000  # characters of what is wrong with an engine


class SpoolSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What one host sees of the spool: by which file system, whether it is polled, and what cannot be done from there.

    ``apart`` is how many seconds the host's clock is ahead of the file system's. ``shows`` tells whether owners can
    read the results of an executor there.
    """

    file_system: str
    remote: bool
    polled: bool
    apart: float
    shows: bool


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one host sees of the store. ``lacks`` is a path of the runtime that is not there, "" where all are.

    ``spool`` is what the host sees of the spool, null in notes of earlier versions. ``engine`` says why the engine
    cannot be used.
    """

    host: str
    path: str
    file_system: str = "none"
    remote: bool = False
    read_only: bool = False
    lacks: str = ""
    spool: SpoolSeen | None = None
    engine: str = ""


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


def look_at_spool(settings: SpoolSettings, clock: Clock) -> SpoolSeen:
    """Look at the spool from this host, as an executor does."""
    mount = machine.mount_of(settings.path)
    leaves_it = settings.published_by == "health" or settings.answers == "owner"
    return SpoolSeen(
        file_system=mount.kind,
        remote=mount.remote,
        polled=settings.remote,
        apart=round(time.time() - clock.file_system(), 3),
        shows=leaves_it or lists.keeps_lists(settings.path),
    )


class Stores:
    """The notes of one executor, on the spool of ``settings`` and its ``clock``."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._path = os.path.join(settings.spool.path, "tmp", settings.executor.process + Kept.STORE)
        self._settings, self._clock = settings, clock
        self._noted: tuple[Runtime, str] | None = None

    def note(self, runtime: Runtime, engine: str) -> None:
        """Note what is seen, where the runtime or the trouble of the engine has changed. Log what is missing.

        Where the note cannot be written, only a warning is logged.
        """
        if (runtime, engine) == self._noted:
            return
        self._noted = runtime, engine
        try:
            seen = self._look(runtime)
            spool = look_at_spool(self._settings.spool, self._clock)
            private = self._path + Private.NOTE
            note = msgspec.structs.replace(seen, spool=spool, engine=engine[:MOST])
            fsops.write_private(private, msgspec.json.encode(note), sync=False)
            fsops.replace(private, self._path)
        except OSError as error:
            log.warning(
                "the note about store and spool as seen from here could not be written",
                store=self._settings.nix.physical_store,
                error=error,
            )
            return
        if seen.lacks:
            log.warning(
                "the store here lacks what the builder provides; mount the builder's store",
                store=seen.path,
                lacks=seen.lacks,
            )

    def _look(self, runtime: Runtime) -> Seen:
        """Look at the store. If it is closed to us, report the closed path as lacking."""
        try:
            return look(self._settings.nix, runtime)
        except PermissionError as error:
            path = self._settings.nix.physical_store
            return Seen(host=os.uname().nodename, path=path, lacks=str(error.filename or path))


def noted(root: str) -> dict[str, Seen]:
    """Return the last notes of executors, by process."""
    found: dict[str, Seen] = {}
    directory = os.path.join(root, "tmp")
    for name in sorted(fsops.names(directory)):
        if name.endswith(Kept.STORE):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                data = fsops.read(os.path.join(directory, name), LARGEST)
                if data is not None:
                    found[name.removesuffix(Kept.STORE)] = msgspec.json.decode(data, type=Seen)
    return found
