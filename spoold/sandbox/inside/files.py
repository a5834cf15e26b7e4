"""The job's files: its own directory, written as the job's user before anything has run, and what is large of them."""

from __future__ import annotations

import errno
import fcntl
import os

from . import wire
from .messages import Parcel

JOB_UID = 65533  # of jobs in cells, where all uids are the cell's own
job_uid = JOB_UID  # of the job that this process serves, and its gid
# Uids that no system gives out, below 65536 for userns-remap, one for each container: the kernel's quotas per user are
# then no two jobs' together. A cell takes the next uid too.
HOLDERS = range(60706, 61184, 2)
WORK = "/job"
WRITABLE = (WORK, "/tmp", "/dev/shm")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)  # what a job's files meet that are more than it may have
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


def larger_than(size: int) -> set[tuple[int, int]]:
    """Return the files of more than ``size`` bytes that the job has, by device and inode; nothing of it may run.

    What it closed even to itself is not looked at, nor is what lies too deep for a path.
    """
    found, directories = set(), list(WRITABLE)
    with as_job():
        while directories:
            try:
                with os.scandir(directories.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            status = entry.stat(follow_symlinks=False)
                            if status.st_size > size:
                                found.add((status.st_dev, status.st_ino))
            except OSError:
                continue
    return found
