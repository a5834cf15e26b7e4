"""Keeps a text file of what is measured, for the textfile collector of Prometheus' node_exporter.

Each daemon has a file of its own, ``spoold-<daemon>-<8 digits for the spool>.prom``. A thread that does nothing else
replaces it every ``interval`` seconds, in one step. So no work waits, however long it takes to measure things, or a
file server to answer. The file is removed when the daemon ends. After a kill it stays as it is, and its age tells
(``node_textfile_mtime_seconds``). A directory that cannot be written to is no reason to stop work. The log says so
once, and again only after a write that worked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator

from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.metrics import Exposition, Process

log = Log("metrics")
JOIN_TIMEOUT = 5.0  # seconds for the thread to end with the daemon


@contextlib.contextmanager
def kept(
    directory: str,
    interval: float,
    *,
    spool: str,
    daemon: str,
    roles: Iterable[str],
    measures: list[Callable[[], None]],
) -> Iterator[None]:
    """Keep the file while the block runs. Each of ``measures`` is called before a write, to set its metrics."""
    file = _File(directory, spool, daemon, Exposition(roles, {"spool": spool, "daemon": daemon}), measures)
    stop = threading.Event()
    thread = threading.Thread(target=file.keep, args=(interval, stop), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(JOIN_TIMEOUT)
        file.remove()


def path_of(directory: str, spool: str, daemon: str) -> str:
    """Return the path of the file that a daemon of ``spool`` keeps in ``directory``."""
    return os.path.join(directory, f"spoold-{daemon}{_ending(spool)}")


def files_of(directory: str, spool: str) -> list[str]:
    """Return the paths of the files that there are of ``spool``, none where the directory cannot be read."""
    try:
        names = fsops.names(directory) if directory else []
    except OSError:
        return []
    return [os.path.join(directory, name) for name in sorted(names) if name.endswith(_ending(spool))]


def _ending(spool: str) -> str:
    return f"-{hashlib.sha256(os.fsencode(spool)).hexdigest()[:8]}.prom"


class _File:
    def __init__(
        self, directory: str, spool: str, daemon: str, exposition: Exposition, measures: list[Callable[[], None]]
    ) -> None:
        self._path = path_of(directory, spool, daemon)
        self._private = os.path.join(directory, f".{os.path.basename(self._path)}.tmp")  # no collector reads this name
        self._exposition = exposition
        self._measures = [Process().measure, *measures]
        self._said = False
        self._writing = threading.Lock()
        self._removed = False

    def keep(self, interval: float, stop: threading.Event) -> None:
        self._write()
        while not stop.wait(interval):
            self._write()

    def _write(self) -> None:
        try:
            for measure in self._measures:
                measure()
            text = self._exposition.text()
            with self._writing:
                if not self._removed:
                    fsops.write_private(self._private, text, mode=0o644, sync=False)
                    fsops.replace(self._private, self._path)
            self._said = False
        except Exception as error:  # noqa: BLE001 - whatever fails, the thread stays alive and no work suffers
            if not self._said:
                log.error("the metrics cannot be written; trying again", file=self._path, error=error)
            self._said = True

    def remove(self) -> None:
        """Remove the file for good, whatever the thread is about to do."""
        with self._writing:
            self._removed = True
            with contextlib.suppress(OSError):
                fsops.remove(self._path)
