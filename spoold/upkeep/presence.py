"""Presence: which host has a role of a spool, where several hosts share the spool.

Spec: spool-layout.md, "Several hosts". On a remote file system, the locks that keep a role to one process may be each
host's own. So the process with the lock also keeps a file that names its host, and renews the file's mtime. Another
host that sees it renewed does not start. A process that stalled so long that its file was taken has lost the role, and
must end. Entries do not need this, since their renames decide. It protects what a role keeps by itself: notes of what
it held, turns, the Nix store.
"""

from __future__ import annotations

import io
import os
import secrets
import threading
import time
from collections.abc import Callable

from spoold.config import LeaseSettings
from spoold.host import fsops, machine
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.ids import Kept, Private
from spoold.spool.lease import has_run_out

log = Log("daemon")
LOOK = 0.5  # seconds at most between two looks at another host's file


class Presence:
    """The role ``name`` on this host. A thread calls ``lost`` once another host has the role."""

    def __init__(self, root: str, name: str, lease: LeaseSettings, lost: Callable[[], None]) -> None:
        self._name = name
        self._root = root
        self._path = os.path.join(root, "tmp", name + Kept.HOST)
        self._clock = Clock(os.path.join(root, "tmp", name + Kept.HOST + Kept.PROBE))
        self._lease = lease
        self._lost = lost
        self._mine: io.FileIO | None = None  # kept open, so that no other file gets its inode number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"presence-{name}", daemon=True)

    def take(self) -> None:
        """Take the role for this host. Raises :class:`OperatorError` where another host has it and is alive."""
        here = machine.host_name()
        said = fsops.read(self._path)
        there = here if said is None else said.decode(errors="replace")
        host = there.partition(" ")[0]
        if there != here and self._is_renewed(host):
            raise OperatorError(f"{self._root}: {self._name} runs on this spool already, on the host {host!a}")
        private = f"{self._path}.{secrets.token_hex(4)}{Private.NOTE}"
        fsops.write_private(private, here.encode(), sync=False)
        fsops.replace(private, self._path)
        self._mine = fsops.keep_open(self._path)
        self._thread.start()

    def give_up(self) -> bool:
        """Let another host have the role at once. Return whether this one still had it."""
        self._stop.set()
        self._thread.join()
        mine = self._is_mine()
        if mine:
            fsops.remove(self._path)
        if self._mine is not None:
            self._mine.close()
        return mine

    def _is_renewed(self, host: str) -> bool:
        """Wait until another host's file is renewed (True), or is gone or as old as a lost lease (False)."""
        log.info("another host had this role last; waiting to see whether it still runs", role=self._name, host=host)
        first, began = fsops.mtime(self._path), time.monotonic()
        while True:
            now = fsops.mtime(self._path)
            if now is None:
                return False
            if now != first:
                return True
            still = time.monotonic() - began
            if has_run_out(self._clock.file_system() - now, still, self._lease):
                return False
            time.sleep(min(LOOK, self._lease.renewal))

    def _is_mine(self) -> bool:
        return self._mine is not None and fsops.stands_for(self._path, self._mine)

    def _renew(self) -> None:
        while not self._stop.wait(self._lease.renewal):
            try:
                if not (self._is_mine() and fsops.touch(self._path)):
                    log.error("another host has taken this role; this process ends", role=self._name)
                    self._lost()
                    return
            except OSError:
                continue  # a file server that does not answer: the next renewal tells


def elsewhere(root: str, name: str) -> str:
    """Return the name of another host that last had a role, "" where there is none."""
    said = (fsops.read(os.path.join(root, "tmp", name + Kept.HOST)) or b"").decode(errors="replace")
    return "" if said == machine.host_name() else said.partition(" ")[0]
