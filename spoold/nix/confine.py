"""Where a Nix program runs: the two command lines of bubblewrap.

Theory of operation: every Nix program runs in a pid namespace that ends when this process does (see
:mod:`spoold.host.launch`). So no builder is left behind when the daemon is killed, by whatever signal. The program sees
a root directory made for it, which holds the program, the libraries that it is linked to, and the paths that it is
given. (The host's root cannot be bound as a whole. Bubblewrap fails when a mount disappears meanwhile, and on a host
that runs containers mounts disappear all the time.)

* :func:`trusted` is for programs that evaluate or build what spoold itself wrote or has checked. They also see passwd
  and group, the host's or files that they are given. Where they need network, they get the host's or a namespace of
  their own that has a door (:mod:`spoold.nix.door`). As root, also as root of a user namespace, they keep root's
  capabilities, since Nix needs them to make its own build sandboxes.
* :func:`jail` is for the evaluation of a client's expression. It has no other file of the host, no network, no socket,
  no home and no environment. Root first changes to a uid that owns nothing. So an attacker who breaks out of the
  evaluator is in an empty room, without rights.

As an ordinary user bubblewrap makes a user namespace. As root it needs none, so this also works on hosts where ordinary
users may not make one.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from spoold.host import proc
from spoold.model.errors import OperatorError

USERS = ("/etc/passwd", "/etc/group")
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATES_ELSEWHERE = (CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")

# As root bubblewrap covers parts of /proc. The kernel then lets Nix's build sandbox mount no /proc, so uncover it.
_UNCOVER = '"$1" -t proc proc /proc && shift && exec "$@"'
_LIBRARY = re.compile(r"(?:=>\s*|^\s*)(/\S+)\s+\(0x")
_LOADED_LATER = ("libnss_dns.so.2", "libnss_files.so.2")

Binds = list[tuple[str, str]]  # (path on the host, path inside)


def trusted(
    argv: Sequence[str],
    *,
    is_root: bool,
    helpers: Iterable[str] = (),
    readable: Iterable[str] = (),
    writable: Iterable[str],
    users: Binds | None = None,
    seccomp: int = -1,
    network: bool = False,
    namespace: int = -1,
    authorities: str = "",
) -> list[str]:
    """Return the command that runs ``argv``, and may run ``helpers``, with the ``readable`` and ``writable`` paths.

    ``is_root`` tells that root starts it, also root of a user namespace. ``users`` are files to show in place of the
    host's passwd and group. ``seccomp`` is the descriptor of a filter, and ``namespace`` the descriptor of a network
    namespace to enter. Each is -1 for none. ``authorities`` is a file of certificates in place of the host's.
    """
    programs, inside = [argv[0], *helpers], list(argv)
    options = _filtered(seccomp)
    if is_root:
        shell, mount = proc.find("sh"), proc.find("mount")
        programs += [shell, mount]
        inside = [shell, "-c", _UNCOVER, "sh", mount, *inside]
        options += ["--cap-add", "ALL"]
    seen = users or [(os.path.realpath(path), path) for path in USERS if os.path.exists(path)]
    seen = [*seen, *((path, path) for path in readable)]
    if network:
        seen += _network_files()
    if network or namespace >= 0:
        seen += certificates(authorities)
    command = _bubblewrap(
        inside, programs, seen, [(path, path) for path in writable], options, network=network or namespace >= 0
    )
    return command if namespace < 0 else [proc.find("nsenter"), f"--net=/proc/self/fd/{namespace}", "--", *command]


def jail(
    argv: Sequence[str], *, readable: Binds, writable: tuple[str, str], directory: str, uid: int, seccomp: int = -1
) -> list[str]:
    """Return the command that runs ``argv`` in an empty room, and as ``uid`` where this process is root.

    ``seccomp`` is the descriptor of a filter, or -1 for none.
    """
    programs, inside = [argv[0]], list(argv)
    options = [*_filtered(seccomp), "--chdir", directory]
    if os.geteuid() == 0:
        setpriv = proc.find("setpriv")
        programs.append(setpriv)
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            options += ["--cap-add", capability]
        nothing = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        inside = [setpriv, f"--reuid={uid}", f"--regid={uid}", *nothing, "--", *inside]
    return _bubblewrap(inside, programs, readable, [writable], options, network=False)


def _filtered(seccomp: int) -> list[str]:
    return [] if seccomp < 0 else ["--seccomp", str(seccomp)]


def _bubblewrap(
    argv: list[str], programs: list[str], readable: Binds, writable: Binds, options: list[str], *, network: bool
) -> list[str]:
    # One more pid namespace: without its own, bubblewrap does not mount its own /proc.
    command = [proc.find("bwrap"), "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    command += [] if network else ["--unshare-net"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    readable = [(path, path) for path in closure(tuple(programs))] + readable
    for parent in _parents(target for _, target in readable + writable):
        command += ["--dir", parent]
    for source, target in readable:
        command += ["--ro-bind", source, target]
    for source, target in writable:
        command += ["--bind", source, target]
    return [*command, *options, "--", *argv]


def _parents(paths: Iterable[str]) -> list[str]:
    """Return all directories above ``paths``, upper ones first.

    Bubblewrap would make them by itself, but closed to other users.
    """
    parents = {str(parent) for path in paths for parent in PurePath(path).parents}
    return sorted(parents - {"/"})


def _network_files() -> Binds:
    return [(os.path.realpath(path), path) for path in NETWORK if os.path.exists(path)]


def certificates(authorities: str = "") -> Binds:
    """Return the file with the certificates of authorities, and the path at which programs find it.

    The file is ``authorities``, or else the host's. Returns [] where the host has none. Raises :class:`OperatorError`
    where ``authorities`` cannot be read.
    """
    if authorities and not (os.path.isfile(authorities) and os.access(authorities, os.R_OK)):
        raise OperatorError(
            f"nix.certificates: the builder cannot read {authorities}: let it read that file, or mend the setting"
        )
    wanted = [authorities, os.environ.get("NIX_SSL_CERT_FILE", ""), *_CERTIFICATES_ELSEWHERE]
    return [(os.path.realpath(path), CERTIFICATES) for path in wanted if os.path.isfile(path)][:1]


@functools.cache
def closure(programs: tuple[str, ...]) -> list[str]:
    """Return the programs, all libraries that they are linked to (by ldd(1)), and those that libc loads later.

    Raises :class:`OperatorError` where ldd fails.
    """
    found: dict[str, None] = dict.fromkeys(programs)
    for program in programs:
        finished = proc.run(["ldd", program], proc.Bounds(wall=20))
        if not finished.ok:
            said = finished.stderr.data.decode(errors="replace").strip()
            raise OperatorError(f"cannot find the libraries of {program}: {said}")
        for line in finished.stdout.data.decode().splitlines():
            if match := _LIBRARY.search(line):
                found[match.group(1)] = None
    libc = next((os.path.dirname(path) for path in found if os.path.basename(path) == "libc.so.6"), "")
    return [*found, *(path for name in _LOADED_LATER if os.path.exists(path := os.path.join(libc, name)))]
