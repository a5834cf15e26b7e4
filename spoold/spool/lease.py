"""Leases: a worker renews the mtime of the entry that it works on, and loses the entry when it stops renewing.

Spec: spool-layout.md, "The mtime rule". The rename is the lock. The lease only says when others stop waiting. A renewal
goes to the claimed name, which has the attempt in it. So a holder whose entry was given away gets ENOENT. An id can be
used again, so after a long sleep the name alone may be that of another entry. So a holder keeps its entry's file open.
While it is open, no other file can have its inode number. The holder looks whether the name still stands for that file.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spoold.config import LeaseSettings
from spoold.host import fsops, pulse
from spoold.host.metrics import LOST_LEASES
from spoold.model import ids
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry

HEED = 1.0  # seconds between two looks for wishes to end an entry
NOTE = "held"  # what a note says to a reader: its name tells the rest


class Lease:
    """One held entry. ``stop`` is set when the holder must stop.

    There are three reasons: the lease is ``lost``, the holder is asked to end the entry (``cancelled``), or the process
    is to end. The holder is asked by a second name of the entry, ``wish``. Raises :class:`LeaseLostError` where the
    entry is gone already.
    """

    def __init__(self, path: str, wish: str = "") -> None:
        self.path = path
        self.lost = self.cancelled = False
        self.ended = False  # its entry is committed. Nobody holds this name again, unless the id is used anew
        self._wish = wish
        self.stop = threading.Event()
        held = fsops.keep_open(path)
        if held is None:
            raise LeaseLostError(path)
        self._held = held
        self._using = threading.Lock()  # guards the file: the heartbeat may use it when its holder lets go

    def close(self) -> None:
        """Let go of the entry's file."""
        with self._using:
            self._held.close()

    def renew(self) -> None:
        """Set the mtime to now, or find out that the lease is lost. After :meth:`close` nothing is renewed."""
        with self._using:
            if self._held.closed:
                return
            if not (fsops.stands_for(self.path, self._held) and fsops.touch(self.path)):
                self._lose()
                self.stop.set()

    def heed(self) -> None:
        """Find out whether the holder is asked to end the entry."""
        with self._using:
            if self._wish and not self._held.closed and fsops.stands_for(self._wish, self._held):
                self.cancelled = True
                self.stop.set()

    def read(self) -> bytes:
        """Return the bytes of the held entry. This works once."""
        return fsops.read_kept(self._held)

    def check(self) -> None:
        """Raise :class:`LeaseLostError` if the lease is lost by now."""
        if self.lost or not fsops.stands_for(self.path, self._held):
            self._lose()
            raise LeaseLostError(self.path)

    def _lose(self) -> None:
        if not self.lost:
            LOST_LEASES.add()
        self.lost = True


def has_run_out(age: float, still: float, lease: LeaseSettings) -> bool:
    """Tell whether the holder of a lease is dead: the mtime rule.

    ``age`` is the age of its mtime on the file system's clock. ``still`` is for how long the mtime has not changed on
    our own monotonic clock. Both are in seconds. So a clock that is stepped ends no lease by itself, and a time in the
    future keeps none for ever.
    """
    return still >= lease.limit or (age > lease.limit and still >= 2 * lease.renewal)


class Heartbeat:
    """A thread that renews all leases of this process every ``interval`` seconds, and looks for wishes in between.

    ``notes`` is a directory of this role alone. For each held entry it has a link that leads nowhere. If a process was
    killed, its notes tell the next process of its role which leases it need not wait out. While the next one runs, the
    killed one does not.
    """

    def __init__(self, interval: float, notes: str) -> None:
        self._interval = interval
        self._notes = notes
        self._held: set[Lease] = set()
        self._done: set[str] = set()  # notes to remove
        self._spare: list[str] = []  # notes of committed entries: the next entry gets one, or they are removed
        self._ending = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beaten = 0.0  # time of the last beat, on the monotonic clock
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> list[Entry]:
        """Begin to renew. Return the entries that an earlier process of this role held when it ended."""
        # The group is that of tmp/. If it is the daemons' group, they may look. If root ran a daemon by hand, the
        # daemon's own user can go on with the directory.
        mode = 0o770 if fsops.own_mode(self._notes) & 0o060 else 0o700
        os.makedirs(self._notes, mode, exist_ok=True)
        if os.stat(self._notes).st_mode & 0o777 != mode:
            os.chmod(self._notes, mode)  # whatever the umask is
        left = fsops.names(self._notes)
        for name in left:
            fsops.remove(os.path.join(self._notes, name))
        self._beaten = time.monotonic()
        self._thread.start()
        return [entry for name in left if (entry := ids.parse_entry(name))]

    def stuck(self, patience: float) -> str:
        """Say that no lease was renewed for ``patience`` seconds longer than planned, "" where all is well."""
        if not self._thread.is_alive():
            return "the heartbeat thread has ended: no lease is renewed"
        silent = pulse.silence(self._thread, self._beaten + self._interval)
        return f"the heartbeat is stuck: no lease was renewed for {silent:.0f} s" if silent > patience else ""

    def stop(self) -> None:
        """Stop renewing. Leases that are still held run out by themselves."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def stop_holders(self) -> None:
        """Ask all holders to stop, also those that come later. Their leases are renewed until they have stopped."""
        with self._lock:
            self._ending = True
            for lease in self._held:
                lease.stop.set()

    def stop_holder(self, path: str) -> None:
        """Ask the holder of ``path`` to stop, if there is one."""
        with self._lock:
            for lease in self._held:
                if lease.path == path:
                    lease.stop.set()

    @contextmanager
    def holding(self, path: str, wish: str = "") -> Iterator[Lease]:
        """Keep the lease on the claimed entry ``path`` renewed inside the block. See :class:`Lease` for ``wish``."""
        lease = Lease(path, wish)
        note = f"{self._notes}/{os.path.basename(path)}"
        with self._lock:
            self._held.add(lease)
            self._done.discard(note)
            if self._ending:
                lease.stop.set()
        try:
            # The note is left only now that the entry is claimed: an entry that another holds must not be noted here. A
            # full disk has no room for notes, and needs the lease all the more. Without a note, the next process waits
            # until the lease runs out.
            with contextlib.suppress(OSError):
                self._leave(note)
            yield lease
        finally:
            with self._lock:  # this comes first: an entry that nobody works on must not be renewed for ever
                self._held.discard(lease)
                if lease.ended:
                    self._spare.append(note)
                else:
                    self._done.add(note)
            lease.close()
            self._remove_notes()

    def _leave(self, note: str) -> None:
        """Leave a note with the present time: a spare one gets this name, or a new one takes another inode."""
        with self._lock:
            spare = self._spare.pop() if self._spare else None
        if spare is None:
            fsops.note(note, NOTE)
            return
        try:
            fsops.move(spare, note)
            fsops.touch(note)
        except OSError:
            self._done.add(spare)
            raise

    def tidy(self) -> None:
        """Remove the notes that were kept for the next held entries."""
        with self._lock:
            self._done.update(self._spare)
            self._spare.clear()
        self._remove_notes()

    def _remove_notes(self) -> None:
        """Remove the notes of entries that are no longer held. A note that cannot be removed now is removed later."""
        with self._lock:
            done = list(self._done)
        for note in done:
            with contextlib.suppress(OSError):
                fsops.remove(note)
                self._done.discard(note)

    def _beat(self) -> None:
        pause = min(self._interval, HEED)
        while not self._stop.wait(pause):
            if time.monotonic() - self._beaten + pause / 2 >= self._interval:
                self.beat()
                self._beaten = time.monotonic()
            else:
                self._of_all(Lease.heed)

    def beat(self) -> None:
        """Renew all leases once. A renewal that fails is tried again at the next beat. Running out is the safe end."""
        self.tidy()
        self._of_all(Lease.renew)
        self._of_all(Lease.heed)

    def _of_all(self, act: Callable[[Lease], None]) -> None:
        """Do ``act`` for all leases. If one fails (a file server that does not answer), the others are still done."""
        with self._lock:
            held = list(self._held)
        for lease in held:
            with contextlib.suppress(OSError):
                act(lease)
