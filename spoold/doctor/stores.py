"""The doctor's check of what executors see: the store from this host, and what executors on other hosts noted.

Only the builder uses Nix's database, which needs a local disk of the builder's host. Executors on other hosts only read
the store. For them a mount is right, best a read-only one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from spoold.config import Settings
from spoold.doctor import installation
from spoold.host import machine
from spoold.model.findings import Finding, Subject
from spoold.model.job import Runtime
from spoold.model.states import Role
from spoold.upkeep.presence import elsewhere
from spoold.upkeep.stores import Seen, look, noted

SKEW = 60.0  # seconds that two clocks may be apart without a warning
MOUNT = "mount the builder's store there, read-only, and set nix.state to the directory above it"


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; only with a ``runtime`` can they tell whether this host sees the whole store."""
    yield from _mount(settings)
    here = os.uname().nodename
    if runtime is not None:
        try:
            yield from _seen(f"store, from {here}", look(settings.nix, runtime))
        except PermissionError:
            yield installation.closed(Subject(f"store, from {here}"))
    try:
        notes = noted(settings.spool.path)
    except (PermissionError, FileNotFoundError):
        return  # the check of the spool has said it
    for process, seen in notes.items():
        if seen.host != here:
            yield from _seen(f"store, from {process} on {seen.host}", seen)
            yield from _from_there(f"from {process} on {seen.host}", seen)


def _mount(settings: Settings) -> Iterator[Finding]:
    state, store = settings.nix.state, settings.nix.physical_store
    path = next((path for path in (store, state) if os.path.isdir(path)), None)
    mount = machine.mount_of(path) if path else None
    if path is None or mount is None or not mount.remote:
        return
    what = Subject(f"file system of nix.state: {mount.kind}")
    builder = elsewhere(settings.spool.path, Role.BUILDER)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        yield what.fine("read-only: the store belongs to another host, and executors here only read it")
    elif builder:
        detail = f"the builder is on {builder!a}, and executors here only read it"
        yield what.note(detail, "mount it read-only")
    else:
        yield what.refused("Nix's database needs local locks", "put nix.state on a local disk of the builder's host")


def _seen(name: str, seen: Seen) -> Iterator[Finding]:
    what = Subject(name)
    how = f"{seen.path} ({seen.file_system}{', read-only' if seen.read_only else ''})"
    if seen.lacks:
        yield what.refused(f"{how} lacks {seen.lacks}: no job can run there", MOUNT)
    elif seen.remote and not seen.read_only:
        yield what.note(f"{how} has everything that the builder provides, and is writable here", "mount it read-only")
    else:
        yield what.fine(f"{how} has everything that the builder provides")


def _from_there(where: str, seen: Seen) -> Iterator[Finding]:
    """Judge what an executor noted about its host, as this command would judge it there."""
    if seen.engine:
        yield Subject(f"sandbox engine, {where}").refused(
            f"no work is taken: {seen.engine}", "correct it on that host, or run `spoolctl doctor` there for more"
        )
    spool = seen.spool
    if spool is None:
        return
    what = Subject(f"spool, {where}")
    if not spool.shows:
        yield what.refused(
            "no access control list can be set from there, so owners cannot read their responses",
            'set published_by = "health" in the table [spool] of all settings',
        )
    elif spool.remote and not spool.polled:
        yield what.warning(
            f"{spool.file_system}, and inotify reports nothing of it there: submissions wait for the next scan",
            "set spool.remote = true in the settings of that host",
        )
    else:
        yield what.fine(f"{spool.file_system}, {'polled' if spool.polled else 'watched'}")
    if abs(spool.apart) > SKEW:
        yield Subject(f"clock, {where}").warning(
            f"it was {abs(spool.apart):.0f} s {'ahead of' if spool.apart > 0 else 'behind'} the file system's, which "
            "spoold uses; logs have the time of that host",
            "set it with NTP",
        )
