"""The job's files: its own directory, written as the job's user before anything has run, and what is large of them."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os

from . import wire
from .messages import Parcel

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_UID = 65533  # of jobs in cells, where all uids are the cell's own
job_uid = JOB_UID  # of the job that this process serves, and its gid
# Uids that no system gives out, below 65536 for userns-remap, one for each container: the kernel's quotas per user are
# then no two jobs' together. A cell takes the next uid too.
HOLDERS = range(60706, 61184, 2)
WORK = "/job"
WRITABLE = (WORK, "/tmp", "/dev/shm")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)  # what a job's files meet that are more than it may have
DEEPEST = 64  # directories below one another in which large files are looked for; each is open meanwhile
MOST_LARGE = 16384  # large files of an earlier phase that are kept in mind
WORDS = 3  # the descriptor from which the shell that enters the job's environment reads what it is to become


def serve(uid: int) -> None:
    """Have the job run as ``uid``."""
    global job_uid  # noqa: PLW0603 - one process serves one job
    job_uid = uid


class as_job:  # noqa: N801 - read as a word: `with as_job():`
    """While it lasts, what is created belongs to the job: files, and pipes, so that /dev/stdout can be reopened."""

    def __enter__(self) -> None:
        os.setegid(job_uid)
        os.seteuid(job_uid)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)
        os.setegid(0)


def receive(host: wire.Host, job: Parcel) -> int:
    """Write the files that follow ``job`` on the wire; return a descriptor to read the job's input from."""
    made: set[str] = set()
    with as_job():
        for file in job.files:
            _make_parents(file.name, made)
            if file.name.endswith(b"/"):
                continue
            path = os.path.join(WORK, os.fsdecode(file.name))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, file.mode)
            _fill(host, descriptor, file.size)
            os.fchmod(descriptor, file.mode)
            os.close(descriptor)
        memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        _fill(host, memory, job.stdin)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        stdin = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(memory)
    return stdin


def _make_parents(name: bytes, made: set[str]) -> None:
    parts = os.fsdecode(name.removesuffix(b"/")).split("/")
    if not name or b"\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError("bad file name")
    path = WORK
    for part in parts if name.endswith(b"/") else parts[:-1]:
        path = f"{path}/{part}"
        if path not in made:
            os.mkdir(path, 0o755)
            made.add(path)


def _fill(host: wire.Host, descriptor: int, size: int) -> None:
    for piece in host.raw(size):
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


class Large:
    """The files of more than ``size`` bytes that the job has by now. Nothing of it may run while they are looked for.

    What the job closed even to itself is not looked at, nor what lies more than ``DEEPEST`` directories deep. So a look
    takes little memory and one short lookup for each file, however many there are and however long their paths.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        with as_job():
            self._before = set(itertools.islice(self._all(), MOST_LARGE + 1))

    def more(self) -> bool:
        """Tell whether there is another by now. Where there were too many before, nobody can tell."""
        if len(self._before) > MOST_LARGE:
            return False
        with as_job():
            return any(file not in self._before for file in self._all())

    def _all(self) -> Iterator[tuple[int, int]]:
        """Yield the device and inode of each."""
        for place in WRITABLE:
            yield from self._in(None, place, DEEPEST)

    def _in(self, parent: int | None, name: str, deeper: int) -> Iterator[tuple[int, int]]:
        try:
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            return
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if deeper:
                            yield from self._in(directory, entry.name, deeper - 1)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_size > self.size:
                            yield status.st_dev, status.st_ino
        except OSError:
            pass
        finally:
            os.close(directory)
