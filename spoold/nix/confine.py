"""Where a Nix program runs: the two command lines of bubblewrap.

Theory of operation: every Nix program runs in a pid namespace whose end is tied to ours (``--die-with-parent``), so
that a kill of the daemon, by whatever signal, leaves no builder behind.

* :func:`trusted` is for programs that run our own words: they see the host read-only and may write what they are given.
  As root they keep root's capabilities, since Nix needs them to make its own build sandboxes.
* :func:`jail` is for the evaluation of a client's expression. It holds the Nix programs, the libraries that they are
  linked to, and what it is given; no other file of the host, no network, no socket, no home, no environment. Root
  first gives up its uid, so that a hole in the evaluator is a hole into an empty room, as nobody.

As an ordinary user bubblewrap makes a user namespace; as root none is needed, which keeps this working on hosts where
ordinary users may not make one.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from spoold.host import proc
from spoold.model.errors import OperatorError

# As root bubblewrap covers parts of /proc, and below a covered /proc the kernel lets Nix's build sandbox mount none.
_UNCOVER = '"$1" -t proc proc /proc && shift && exec "$@"'
_LIBRARY = re.compile(r"(?:=>\s*|^\s*)(/\S+)\s+\(0x")


def trusted(argv: Sequence[str], *, writable: Iterable[str], network: bool) -> list[str]:
    """Return the command that runs ``argv`` in a pid namespace, with ``writable`` the only directories to write to."""
    command = [proc.find("bwrap"), *_namespaces(network=network), "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    command += ["--proc", "/proc"]
    for path in writable:
        command += ["--bind", path, path]
    inside = list(argv)
    if os.geteuid() == 0:
        command += ["--cap-add", "ALL"]
        inside = [proc.find("sh"), "-c", _UNCOVER, "sh", proc.find("mount"), *inside]
    return [*command, "--", *inside]


def jail(
    argv: Sequence[str], *, readable: Iterable[tuple[str, str]], writable: tuple[str, str], directory: str, uid: int
) -> list[str]:
    """Return the command that runs ``argv`` in an empty room.

    ``readable`` and ``writable`` are pairs (path on the host, path inside).
    """
    programs = [argv[0]]
    command = [proc.find("bwrap"), *_namespaces(network=False), "--dev", "/dev", "--proc", "/proc"]
    inside = list(argv)
    if os.geteuid() == 0:
        setpriv = proc.find("setpriv")
        programs.append(setpriv)
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        inside = [setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--", *inside]
    binds = [(path, path) for path in _closure(tuple(programs))] + list(readable)
    for parent in _parents(target for _, target in binds):
        command += ["--dir", parent]
    for source, target in binds:
        command += ["--ro-bind", source, target]
    command += ["--bind", *writable, "--chdir", directory]
    return [*command, "--", *inside]


def _namespaces(*, network: bool) -> list[str]:
    shared = [] if network else ["--unshare-net"]
    return ["--unshare-pid", "--unshare-ipc", "--unshare-uts", *shared, "--die-with-parent"]


def _parents(paths: Iterable[str]) -> list[str]:
    """Every directory above ``paths``, upper ones first: bubblewrap closes those that it makes by itself to others."""
    parents = {str(parent) for path in paths for parent in PurePath(path).parents}
    return sorted(parents - {"/"})


@functools.cache
def _closure(programs: tuple[str, ...]) -> list[str]:
    """The programs and every library they are linked to, as ldd(1) names them."""
    found: dict[str, None] = dict.fromkeys(programs)
    for program in programs:
        finished = proc.run([proc.find("ldd"), program], proc.Bounds(wall=20))
        if not finished.ok:
            raise OperatorError(
                f"cannot find the libraries of {program}: {finished.stderr.data.decode(errors='replace')}"
            )
        for line in finished.stdout.data.decode().splitlines():
            if match := _LIBRARY.search(line):
                found[match.group(1)] = None
    return list(found)
