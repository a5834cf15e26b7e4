"""What the store and a container must have before any job runs, whichever engine makes the container."""

from __future__ import annotations

from typing import NamedTuple

from spoold.config import NixSettings
from spoold.host import ownership
from spoold.model.findings import Finding, Subject
from spoold.sandbox.messages import Ready

SECCOMP = Subject("seccomp")
SECCOMP_FILTER = 2  # as /proc/self/status says it
# Settings of the kernel that can forbid user namespaces.
SWITCHES = "user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"


class Causes(NamedTuple):
    """The remedies for an engine whose containers lack one of these."""

    privileges: str
    seccomp: str
    memory: str


def store(settings: NixSettings) -> str:
    """Return the real path of the directory that jobs get as their store.

    The executor's own settings say where it is, and the builder decides what it holds. With a link in its place, the
    engine would mount any directory of the host. Raises :class:`OperatorError` where somebody could put a link there.
    """
    remedy = (
        "The store is mounted into containers, so only root may be able to replace it: run `spoolctl init` as root, "
        "and set nix.state to the same directory for executor and builder"
    )
    return ownership.settled(settings.physical_store, remedy, itself=False)


def of_container(ready: Ready, memory: int, causes: Causes) -> list[Finding]:
    """Return the findings on a container, from what it tells. It was made with a limit of ``memory`` bytes."""
    privileges = Subject("no-new-privileges")
    return [
        privileges.fine("kept")
        if ready.no_new_privileges == 1
        else privileges.refused("the engine ignores it", causes.privileges),
        SECCOMP.fine("a filter is on")
        if ready.seccomp == SECCOMP_FILTER
        else SECCOMP.refused("containers run without a seccomp profile", causes.seccomp),
        _memory(ready.memory, memory, causes),
    ]


def of_cells(error: Exception) -> bool:
    """Tell whether a container did not start because its supervisor could make no cell, see ``inside/cell.c``."""
    return "cell.c:" in str(error)


def _memory(seen: int, wanted: int, causes: Causes) -> Finding:
    what = Subject("memory limit of a container")
    if seen < 0:
        return what.unknown("the container does not see its control group")
    if seen <= wanted:
        return what.fine(f"{seen} bytes, as asked")
    return what.refused(f"{wanted} bytes were asked for, and the control group has {seen}", causes.memory)
