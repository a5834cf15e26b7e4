"""How a child process is started: by small programs that set it up and become the program that was asked for.

Theory of operation: a child needs limits, a bond to its parent, and sometimes a pid namespace. Programs that each
become the next one (setpriv, sh, unshare, prlimit) set these up. This cannot be done between fork and exec, where a
process with threads must not run Python.

A program may have to run in another user namespace, as root in there (:mod:`spoold.host.userns`). The namespace is
entered before all else, since the kernel forgets a bond when a process becomes another user.

The bond: setpriv asks the kernel to kill the child when its parent dies. The parent may have died before that, so the
child then checks who its parent is. A pid namespace needs a second bond, between unshare(1), which stays outside, and
the first process inside. That process finds its parent's pid in the /proc that it still shares with us. (The option
--die-with-parent of bubblewrap leaves a gap of milliseconds.) Only then does it get a /proc of its own. It needs one:
bubblewrap looks up its child in /proc by the pid inside, and ends where no process outside happens to have that pid.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from spoold.model.errors import OperatorError, TemporaryError

NO_CORE = 1  # bytes: at this limit the kernel starts no handler of core dumps; at 0 it starts one, as root


class Rlimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one process: ``cpu`` is a hard one in seconds, sizes are bytes, ``None`` leaves a limit as it is."""

    address_space: int | None = None
    cpu: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    message_queues: int | None = None
    pending_signals: int | None = None
    locked_memory: int | None = None


Entering = Callable[[Sequence[str]], list[str]]  # makes a command into one that becomes it in a user namespace


def command(
    argv: Sequence[str],
    rlimits: Rlimits,
    *,
    env: Mapping[str, str],
    pid_namespace: bool,
    entering: Entering | None = None,
) -> list[str]:
    """Return the whole command line that becomes ``argv``, with ``entering`` as root in a user namespace."""
    # Variables that shells export of their own accord.
    forget = f"unset {' '.join(sorted({'PWD', 'OLDPWD', 'SHLVL'} - env.keys()))}"
    program = [*_limited(rlimits), find(argv[0]), *argv[1:]]
    if pid_namespace:
        program = _in_a_pid_namespace(program, forget, is_root=os.geteuid() == 0 or entering is not None)
    program = _tied(program, forget)
    return program if entering is None else entering(program)


def _tied(argv: list[str], forget: str) -> list[str]:
    """Return the command that becomes ``argv`` and dies with us."""
    bond = f'[ "$PPID" = {os.getpid()} ] && {forget} && exec "$@"'
    return [*_killed_with_parent(), find("sh"), "-c", bond, "sh", *argv]


def _killed_with_parent() -> list[str]:
    return [find("setpriv"), "--pdeathsig", "KILL", "--"]


def _in_a_pid_namespace(argv: list[str], forget: str, *, is_root: bool) -> list[str]:
    """Return a command whose child is bound to it, is the first process of a pid namespace, and becomes ``argv``."""
    plain = shlex.join([find("setpriv"), "--inh-caps=-all", "--ambient-caps=-all", "--"])
    inside = (
        'read -r _ _ _ parent _ < /proc/self/stat && [ "$parent" = "$1" ] && shift && '
        f'{shlex.quote(find("mount"))} -t proc proc /proc && {forget} && exec {"" if is_root else plain} "$@"'
    )
    user = [] if is_root else ["--user", "--map-current-user", "--keep-caps"]
    namespaces = [*user, "--mount", "--pid", "--fork"]
    unshare = [find("unshare"), *namespaces, "--", *_killed_with_parent(), find("sh"), "-c", inside, "sh"]
    return [find("sh"), "-c", f'exec {shlex.join(unshare)} $$ "$@"', "sh", *argv]


def _limited(rlimits: Rlimits) -> list[str]:
    options = {
        "--as": rlimits.address_space,
        "--cpu": rlimits.cpu,
        "--fsize": rlimits.file_size,
        "--nofile": rlimits.open_files,
        "--core": _no_core(),
        "--msgqueue": rlimits.message_queues,
        "--sigpending": rlimits.pending_signals,
        "--memlock": rlimits.locked_memory,
    }
    chosen = [f"{option}={value}:{value}" for option, value in options.items() if value is not None]
    return [find("prlimit"), *chosen, "--"]


def _no_core() -> int:
    """Return the limit that prevents core dumps, as far as we may set it; see core(5) on pipes."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    return NO_CORE if most == resource.RLIM_INFINITY else min(NO_CORE, most)


@contextlib.contextmanager
def holding(data: bytes) -> Iterator[int]:
    """Yield a descriptor to read ``data`` from. It is a file in memory, so that nobody has to feed a pipe."""
    fd = os.memfd_create("stdin") if data else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if data:
            with os.fdopen(os.dup(fd), "wb") as sink:
                sink.write(data)
            os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def start(
    command: list[str], *, env: Mapping[str, str], cwd: str, stdin: int, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start ``command``, with pipes for what it prints, as the leader of a session of its own."""
    try:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=descriptors,
        )
    except OSError as error:
        raise TemporaryError(f"cannot start {command[0]}: {error.strerror}") from error


def find(program: str) -> str:
    """Return the absolute path of ``program``, since the child's empty environment has no PATH to search."""
    from shutil import which  # noqa: PLC0415 - it takes memory, and not every daemon starts programs

    path = which(program)
    if path is None:
        raise OperatorError(f"{program} is not installed, or not on the daemon's PATH")
    return path
