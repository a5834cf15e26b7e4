"""What keeps a program from being started: seen in the files of the job, after a phase, when nothing of it lives.

Theory of operation. The kernel tells a shell no more than "no such file" where an interpreter or a loader is missing,
and shells tell no more of it. So the supervisor looks at the script itself, and where the exit code is a shell's for
"cannot be started", at the other programs that lie beside it. It looks as the job's user and inside the job's sandbox,
at regular files only, a few thousand bytes of each: what a job left there is neither run, nor waited for, nor trusted.
A look takes half a second of CPU time at most, and tells nothing where that is too little.

Whether the script was begun at all, its access time tells: ``forget`` sets that back before the phase, and whoever
reads the file sets it. Where a file system keeps no such times, nothing is said of it.

What is told is a fact about a file, whatever the program may have done. The host has the words (``sandbox.obstacles``).
"""

from __future__ import annotations

import os
import stat
import time

from . import elf
from .files import WORK, as_job
from .messages import Obstacle

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    Places = list[bytes] | None

HEAD, MOST = 4096, 32768  # bytes that are read of a file: to see how it starts; to see how its lines end
LARGE = 256 * 1024  # of what sets up the environment
NOT_FOUND = 127
NOT_STARTED = (126, NOT_FOUND)  # what shells and env(1) exit with where a program cannot be started
LONGEST = 252  # bytes of an interpreter that the kernel takes for one
PROGRAMS, TOLD, DEPTH = 200, 4, 4  # files that are looked at, are told of, and interpreters of interpreters
QUOTING = (b"'", b'"', b"\\", b"$", b"#")  # of env -S: what it makes of these is its own
ALONE = (b"-", b"-i", b"--ignore-environment", b"-v", b"--debug")  # options of env that take no argument
SHELLS = (b"sh", b"bash", b"dash", b"ksh", b"zsh")
MARKS = ((b"\xef\xbb\xbf", b"mark"), (b"\xff\xfe", b"utf-16"), (b"\xfe\xff", b"utf-16"))
FOREIGN = (
    (b"MZ", b"windows"),
    *((magic, b"macos") for magic in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe")),
)
PLACE = WORK.encode()
_until = 0  # on the clock of this process's CPU time
LOOKING = 500_000_000  # nanoseconds of CPU time for a look: names can be many, and each can take long to look up
NEVER = 1  # nanosecond after the epoch: no program sets that, and many set 0


def forget(script: str) -> None:
    """Have ``script`` look as if nobody had ever read it."""
    try:
        with as_job():
            found = os.lstat(f"{WORK}/{script}")
            if stat.S_ISREG(found.st_mode):
                os.utime(f"{WORK}/{script}", ns=(NEVER, found.st_mtime_ns), follow_symlinks=False)
    except OSError:
        pass


def look(script: str, code: int, words: list[bytes]) -> list[Obstacle]:
    """Return what is in the way of ``script``, after a phase that exited with ``code``, -1 where it did not exit.

    ``words`` are those of its order.
    """
    global _until  # noqa: PLW0603 - one process looks at one job
    _until = time.process_time_ns() + LOOKING
    name = script.encode()
    failed = code in NOT_STARTED
    try:
        with as_job():
            unread = _unread(name)  # before anything here reads it
            places = _search(words) if code == NOT_FOUND else None
            found = (_of(name, name, places) if failed else []) or unread or _of_text(name, code)
            return (found or _beside(name, places) if failed else found)[:TOLD]
    except OSError:  # the job may have closed its directories, or have had too much looked at
        return []


def _unread(script: bytes) -> list[Obstacle]:
    path = os.path.join(PLACE, script)
    if not os.path.lexists(path):
        return []
    found = os.lstat(path)
    if found.st_atime_ns != NEVER or not found.st_size or not stat.S_ISREG(found.st_mode):
        return []
    _read(path, 1)
    return [_obstacle(b"unread", script)] if os.lstat(path).st_atime_ns != NEVER else []


def _beside(script: bytes, places: Places) -> list[Obstacle]:
    """Return what is in the way of other programs in the work directory, of those that somebody has read.

    Whoever starts a program reads it.
    """
    found: list[Obstacle] = []
    with os.scandir(PLACE) as entries:  # there may be any number of them
        names = [entry.name for entry, _ in zip(entries, range(PROGRAMS), strict=False)]
    for name in sorted(names):
        if name != script and _can_run(name):
            times = os.stat(os.path.join(PLACE, name))
            found += _of(name, name, places) if times.st_atime_ns > times.st_mtime_ns else []
    return found


def _go_on() -> None:
    """Raise TimeoutError where looking took too long."""
    if time.process_time_ns() > _until:
        raise TimeoutError


def _is_there(path: bytes) -> bool:
    """Tell whether there may be something at a path, which is relative to the work directory."""
    _go_on()
    try:
        os.stat(os.path.join(PLACE, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _can_run(path: bytes) -> bool:
    """Tell whether a file is there that the job may run."""
    _go_on()
    try:
        found = os.stat(os.path.join(PLACE, path))
    except OSError:
        return False
    bit = 0o100 if found.st_uid == os.geteuid() else 0o011
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & bit)


def _obstacle(kind: bytes, file: bytes, name: bytes = b"") -> Obstacle:
    return Obstacle(kind=kind, file=file, name=name)


def _read(path: bytes, size: int) -> bytes:
    """Return the first bytes of a regular file. Other things are not even opened: that may take or give something."""
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return b""
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    finally:
        os.close(found)


def _of(file: bytes, path: bytes, places: Places, depth: int = 0) -> list[Obstacle]:
    """Return what is in the way of the program at ``path``, which ``file`` needs or is."""
    path = os.path.join(PLACE, path)
    if not _is_there(path):
        return [_obstacle(b"dangling" if os.path.islink(path) else b"missing", file)]
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind):
        return [_obstacle(b"directory" if stat.S_ISDIR(kind) else b"special", file)]
    if not _can_run(path):
        return [_obstacle(b"mode", file)]
    head = _read(path, HEAD)
    if head.startswith(b"#!"):
        return _of_interpreter(file, head, places, depth)
    if head.startswith(elf.MAGIC):
        return _of_elf(file, path, head)
    return [_obstacle(kind, file) for magic, kind in FOREIGN if head.startswith(magic)][:1]


def _of_interpreter(file: bytes, head: bytes, places: Places, depth: int) -> list[Obstacle]:
    line = head[2:].partition(b"\n")[0].strip(b" \t")
    name, _, rest = line.replace(b"\t", b" ").partition(b" ")
    rest = rest.strip()
    if line.endswith(b"\r"):
        return [_obstacle(b"return", file)]
    if not 0 < len(name) <= LONGEST or depth == DEPTH:
        return []
    if not _is_there(name):
        return [_obstacle(b"interpreter" if name.startswith(b"/") else b"relative", file, name)]
    if not _can_run(name):
        return [_obstacle(b"no program", file, name)]
    if os.path.basename(name) == b"env":
        return _of_env(file, rest, places, depth)
    return _of(name, name, places, depth + 1)


def _of_env(file: bytes, rest: bytes, places: Places, depth: int) -> list[Obstacle]:
    """Return what is in the way of a program that env is to find."""
    name = rest
    if rest.startswith((b"-S", b"--split-string")):
        if any(each in rest for each in QUOTING):
            return []
        words = rest.removeprefix(b"--split-string").removeprefix(b"-S").lstrip(b"=").split()
        name = next((word for word in words if b"=" not in word and word not in ALONE), b"")
    elif b" " in rest and not rest.startswith(b"-"):
        return [_obstacle(b"one word", file, rest)]
    if not name or name.startswith(b"-") or places is None:  # what other options mean is env's to know
        return []
    if b"/" in name:
        return _of(name, name, places, depth + 1)
    there = any(_can_run(os.path.join(place, name)) for place in places)
    return [] if there else [_obstacle(b"nix-shell" if name == b"nix-shell" else b"package", file, name)]


def _search(words: list[bytes]) -> Places:
    """Return the directories of the PATH with which a phase began, None where they cannot be known."""
    for word in words[1:]:
        if word.startswith(b"PATH="):
            return word[5:].split(b":")
    try:
        text = b"\n" + _read(words[0] + b"/enter.sh", LARGE)
    except OSError:
        text = b""
    path = text.partition(b'\ndeclare -x PATH="')[2].partition(b'"\n')[0]
    if path and not any(each in path for each in b'\\"$`'):
        return path.split(b":")
    try:
        return [b"/bin", b"/usr/bin", *(b"/nix/store/%b/bin" % entry for entry in os.listdir(b"/nix/store"))]
    except OSError:  # the whole store is there, and nobody may list it
        return None


def _of_elf(file: bytes, path: bytes, head: bytes) -> list[Obstacle]:
    if len(head) < elf.LEAST:
        return []
    if elf.kind(head) != elf.kind(_read(b"/proc/self/exe", elf.LEAST)):
        return [_obstacle(b"machine", file, b"%d" % elf.machine(head))]
    loader = elf.loader(path, head)
    return [_obstacle(b"loader", file, loader)] if loader and not _is_there(loader) else []


def _of_text(file: bytes, code: int) -> list[Obstacle]:
    """Return what a shell does not take as it was meant; it need not keep the script from being run."""
    text = _read(os.path.join(PLACE, file), MOST)
    first = text.partition(b"\n")[0]
    found = [_obstacle(kind, file) for mark, kind in MARKS if text.startswith(mark)][:1]
    if code and not text.startswith(b"#!") and text.lstrip(b" \t\r\n").startswith(b"#!"):
        found = [_obstacle(b"late", file)]
    if found or b"\0" in text or b"\r" not in text:
        return found
    if first.startswith(b"#!"):
        if first.endswith(b"\r"):
            return [_obstacle(b"return", file)]
        if not any(os.path.basename(word) in SHELLS for word in first[2:].split()):
            return []
    if first == text and b"\r" in text[:-1]:
        return [_obstacle(b"old", file)]
    end = text.find(b"\r\n", 0, len(first) + 1 if code == 0 else None)
    return [] if end < 0 else [_obstacle(b"returns", file, b"%d" % (text.count(b"\n", 0, end) + 1))]
