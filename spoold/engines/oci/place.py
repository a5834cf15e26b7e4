"""The directories of this engine: the root of containers, and one for each container, by which orphans are found.

Theory of operation. Each executor on a spool has a directory. In it is a directory for each sandbox, named after the
process that made it. Only one executor of a name works on a spool. So a directory that another process made is an
orphan: its jobs ended with their streams, and what is left of it is removed at the start. A container is written down
before it is made. Its file ``group`` lists the directories of its control group, and whatever is in that group is
ended.

An executor that a batch system starts may have another name on this host the next time. So orphans of other names are
removed as well. Each process locks the file ``alive`` in its directory. Where nobody holds that lock, the process was
killed. The file also tells the host, which may share the directory with others.

The root is made anew for each sandbox, so nobody had time to change it. It belongs to this process's user.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import tarfile
import threading
import uuid
from pathlib import Path

from spoold.config import Settings
from spoold.host import machine, ownership
from spoold.host.groups import Group
from spoold.host.log import Log
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.job import Runtime
from spoold.sandbox import program, root

log = Log("sandbox")

PROCESS = uuid.uuid4().hex
ROOTS_OWN, USERS_OWN = "/var/lib/spoold-executor", ".local/state/spoold-executor"
REMEDY = "Root in containers starts programs from it: mend owner and mode, or name another directory in oci.state"
GROUP, ALIVE = "group", "alive"


def base(settings: Settings) -> str:
    """Return the directory that holds all of this: the setting's, the unit's, or the user's own."""
    given = settings.oci.state or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5)
    return given or (ROOTS_OWN if os.geteuid() == 0 else str(Path.home() / USERS_OWN))


class Place:
    """The directory of one sandbox. ``runtime`` is where the OCI runtime keeps its notes."""

    def __init__(self, settings: Settings) -> None:
        self._base = base(settings)
        spool = hashlib.sha256(settings.spool.path.encode()).hexdigest()[:12]
        self._family = os.path.join(self._base, f"{settings.executor.name}-{spool}")
        self.path = os.path.join(self._family, f"{PROCESS}-{uuid.uuid4().hex[:8]}")
        self.runtime = os.path.join(self.path, "runtime")
        self._lock = threading.Lock()
        self._alive: io.FileIO | None = None

    def prepare(self) -> None:
        """Make it; raises :class:`OperatorError` where that fails, or the directory is of no use."""
        try:
            os.makedirs(self.runtime, exist_ok=True)
            for each in (self._family, self.path, self.runtime):
                os.chmod(each, 0o700)
            self._alive = self._alive or _locked(os.path.join(self.path, ALIVE))
            no_programs = os.statvfs(self.path).f_flag & os.ST_NOEXEC
        except OSError as error:
            raise OperatorError(
                f"oci.state: containers cannot be kept in {self._base}: {error}. Make it a directory of this user's, "
                "or name another"
            ) from error
        if no_programs:
            raise OperatorError(
                f"oci.state: {self._base} is mounted noexec, but containers start from it: name another"
            )
        ownership.settled(self.path, REMEDY)

    def root(self, runtime: Runtime) -> str:
        """Return the root of containers; make it where it is missing or not whole."""
        content = root.archive(runtime, self._base)
        made = os.path.join(self.path, f"root-{hashlib.sha256(content).hexdigest()[:16]}")
        with self._lock:
            if not os.path.exists(f"{made}{program.IN_IMAGE}"):
                shutil.rmtree(made, ignore_errors=True)
                _unpack(content, f"{made}.new")
                os.rename(f"{made}.new", made)
        return made

    def remove_orphans(self) -> None:
        """Remove what other processes left."""
        for name in os.listdir(self._family):
            if not name.startswith(PROCESS):
                log.info("removing the containers of an earlier process", directory=name)
                _remove(os.path.join(self._family, name))
        for other in self._other_orphans():
            log.info("removing the containers of another executor, which has ended", directory=str(other))
            _remove(str(other))
            with contextlib.suppress(OSError):
                other.parent.rmdir()

    def _other_orphans(self) -> list[Path]:
        """Return the directories of other executors' processes, ended ones of our own user, on this host."""
        found: list[Path] = []
        families: list[Path] = []
        with contextlib.suppress(OSError):  # it may not be ours to list
            families += Path(self._base).iterdir()
        for family in families:
            with contextlib.suppress(OSError):
                status = family.lstat()
                if str(family) != self._family and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                    found += [each for each in family.iterdir() if _was_left(each)]
        return found

    def close(self) -> None:
        """Remove it. A directory that stays is an orphan to the next process."""
        if os.path.isdir(self.path):
            _remove(self.path)
        with contextlib.suppress(OSError):  # other sandboxes of this executor may be there
            os.rmdir(self._family)
        if self._alive is not None:
            self._alive.close()
            self._alive = None


def _locked(path: str) -> io.FileIO:
    """Return a new file that is locked until it is closed, or this process ends. It has the number of this boot."""
    file = io.FileIO(path, "w")
    with contextlib.suppress(OSError):  # a file system without locks: nobody else gets one there either
        fcntl.flock(file, fcntl.LOCK_EX)
    file.write(machine.boot_id().encode())
    return file


def _was_left(place: Path) -> bool:
    """Tell whether the process that made a directory was killed on this host."""
    try:
        with (place / ALIVE).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.read().decode() == machine.boot_id()
    except OSError:  # it lives, or is just beginning, or an earlier version of spoold made the directory
        return False


def write_down(directory: str, group: Group) -> None:
    """Make a container's directory, and write down the control group that is to be removed with it."""
    os.mkdir(directory, 0o700)
    lines = [f"{controller}\t{place}" for controller, place in group.places.items()]
    Path(directory, GROUP).write_text("\n".join([str(int(group.unified)), *lines]))


def _remove(place: str) -> None:
    """Remove the directory of a sandbox, and the control groups that it tells of."""
    whole = True
    for record in Path(place).glob(f"*/{GROUP}"):
        try:
            unified, *lines = record.read_text().split("\n")
            places = {name: Path(where) for name, where in (line.split("\t", 1) for line in lines)}
            if places:  # else that process ended before it wrote them down, so they were not made
                Group(unified == "1", places).end()
        except (SpooldError, OSError, ValueError) as error:
            log.warning(
                "a container of an earlier process could not be removed yet", container=record.parent.name, error=error
            )
            whole = False
    if whole:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(content: bytes, target: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    os.mkdir(target)
    os.chmod(target, 0o755)  # noqa: S103 - whatever this process's mask is: the directory is "/" to jobs
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)  # Debian 12 does not have the filter
        tar.extractall(target)  # noqa: S202 - we made the tar just now
