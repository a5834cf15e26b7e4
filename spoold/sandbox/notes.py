"""Notes for the response: limits that a phase met, and that its outcome does not name.

Spec: spool-layout.md, "The sandbox". The kernel tells a program that there is no room for its file, and the program
fails in its own way. Its output may not say which bound that was, and whose.
"""

from __future__ import annotations

from spoold.model.limits import PhaseLimits
from spoold.model.response import Outcome
from spoold.sandbox.messages import Done, Full, Kept

NOTABLE = 4  # files are mentioned from this part of the memory limit on, as a divisor
ENTRY = 1024  # bytes, about, that the kernel keeps for a file or directory beside its content
WHAT = {b"bytes": "byte", b"files": "file or directory"}
UNITS = {b"bytes": "bytes", b"files": "of them"}


def of_phase(name: str, done: Done, outcome: Outcome, limits: PhaseLimits) -> list[str]:
    """Return the notes on a phase whose account is ``done``."""
    notes = [_full(name, full) for full in done.full if full.what in WHAT]
    if outcome is not Outcome.MEMORY_LIMIT:
        return notes
    if done.files * NOTABLE >= limits.memory:
        notes.append(
            f"{name}: of its {limits.memory} bytes of memory, files in /job, /tmp and /dev/shm and shared memory took "
            f"{min(done.files, limits.memory)}. Write less, or ask for more in limits.{name}.memory"
        )
    if done.entries * ENTRY * NOTABLE >= limits.memory:
        notes.append(
            f"{name}: the kernel's own memory for {done.entries} files and directories in /job, /tmp and /dev/shm, "
            f"some 1 KiB each, counts as well. Make fewer, or ask for more in limits.{name}.memory"
        )
    return notes


def of_whole(name: str) -> list[str]:
    """Return the notes on a phase whose sandbox the kernel ended. Killing the processes had not freed enough memory."""
    note = (
        f"{name}: memory ran out, and the kernel ended the sandbox. Files in /job, /tmp and /dev/shm and "
        f"shared memory count as well. Write less, or ask for more in limits.{name}.memory"
    )
    return [note]


def of_kept(kept: Kept) -> list[str]:
    """Return a note where compile.sh left files that no case gets."""
    left = {"FIFO": kept.pipes, "socket": kept.sockets, "device": kept.devices}
    named = [f"{many} {kind}{'s' if many > 1 else ''}" for kind, many in left.items() if many]
    return [f"compile: it left {' and '.join(named)} in the work directory. No case gets these"] if named else []


def _full(name: str, full: Full) -> str:
    place = full.place.decode(errors="replace")
    return f"{name}: {place} had no room for another {WHAT[full.what]}: it may have {full.most} {UNITS[full.what]} here"
