"""The doctor's look at the store as executors see it: from this host, and as those of other hosts noted it.

Nix's database is the builder's alone, and needs a disk of its own host. Executors on other hosts only read the store:
for them a mount is right, best a read-only one.
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

MOUNT = "mount the builder's store there, read-only, and set nix.state to the directory above it"


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield what is found; whether the store is whole can only be told where there is a ``runtime``."""
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
        return  # it was said of the spool
    for process, seen in notes.items():
        if seen.host != here:
            yield from _seen(f"store, from {process} on {seen.host}", seen)


def _mount(settings: Settings) -> Iterator[Finding]:
    state, store = settings.nix.state, settings.nix.physical_store
    path = next((path for path in (store, state) if os.path.isdir(path)), None)
    mount = machine.mount_of(path) if path else None
    if path is None or mount is None or not mount.remote:
        return
    what = Subject(f"file system of nix.state: {mount.kind}")
    builder = elsewhere(settings.spool.path, Role.BUILDER)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        yield what.fine("read-only: the store is another host's, and executors here only read it")
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
        yield what.note(f"{how} has what the builder provides, and could be written to", "mount it read-only")
    else:
        yield what.fine(f"{how} has what the builder provides")
