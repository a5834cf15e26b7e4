"""A spool on another host, through the ssh binary and a shell account there.

Theory of operation. One connection serves all: a master (``ControlMaster``), which each command goes through as a
session of its own. It ends by itself a minute after the last one, so nobody who is killed leaves it behind. Where a
server allows no such sessions, ssh connects each time, and all is slower. A command is one line for whatever shell the
account has, which starts ``sh``: the scripts have no quotes, and words are quoted for it. Names are ids, or made here.

What fails: a connection that breaks is made anew. Each step may be done twice, since the same file under the same name
is the same submission. An answer is data: it is read up to a bound, and never looked at by a shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Collection, Iterable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from spoold.client import names
from spoold.client.errors import AnswerError, NoSpoolError, RequestError, UnreachableError
from spoold.client.transport import MOST, Dropped, Transport, digest

IDLE = 60  # seconds after which a connection that nobody uses ends
SESSIONS = 8  # at once on one connection: sshd allows 10
BROKEN = 255  # exit code of ssh where it could not connect, or was cut off
USED, UNKNOWN, SO_FAR, LIES = 17, 1, 4, 5  # exit codes of our scripts
TRIES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before each, where a connection breaks
TIMEOUT = 900.0  # seconds for one command
OPTIONS = (
    *("-T", "-x", "-a", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),  # whatever a user has set
    *("-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)
HOST, USER = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*"), re.compile(r"[A-Za-z0-9_][^\s@:/\x00-\x1f]*")
LASTING = re.compile(rb"denied|not resolve|[Kk]ey verification|[Bb]ad (configuration|owner)|Too many auth")
SAID = 2000  # characters of what ssh says that are told
NO_COMMAND = b"ssh-gateway: say one of"  # what the gateway says to a command that it does not know

# $1 is the spool. No quotes may be in these but double ones, nor line ends and exclamation marks.
PROBE = 'cd "$1/incoming" 2>/dev/null && echo spool'
DROP = (
    'set -e; d=$1/incoming; p=$(mktemp "$d/.XXXXXXXXXXXX"); trap "rm -f -- \\"\\$p\\"" EXIT; cat >"$p"; '
    'test "$(wc -c <"$p")" -eq "$3"; u=$(stat -c %u "$p"); sync "$p" 2>/dev/null || :; '
    'mv -nT "$p" "$d/$2.json" 2>/dev/null || :; '
    'if [ -e "$p" ]; then test -e "$d/$2.json" && exit 17; exit 1; fi; echo "$u"'
)
ANSWERS = (
    'cd "$1/done" || exit 1; shift; w=$*; set --; while read -r f; do set -- "$@" "$f"; done; n=; for s in $w; do '
    'for f; do if [ -r "$f" ]; then n=1; echo "r $f"; elif [ -e "$f" ]; then n=1; echo "x $f"; fi; done; '
    '[ -n "$n" ] && exit 0; [ "$s" = 0 ] || sleep "$s" || exit 0; done; exit 0'
)
READ = 'cat "$1/done/$2"'
DROPPED = '[ -e "$1/incoming/$2" ] && exit 5; exit 0'
LOOK = (
    'for f in "$1/done/$2.response.json" "$1/progress/$2.json" "$1/done/$2.response.json"; do '
    'if [ -e "$f" ]; then cat "$f" || exit 6; exit 0; fi; done; [ -e "$1/incoming/$2.json" ] && exit 5; exit 1'
)
CANCEL = (
    'set -e; p=$(mktemp "$1/incoming/.XXXXXXXXXXXX"); trap "rm -f -- \\"\\$p\\"" EXIT; echo "$2" >"$p"; '
    'mv -T "$p" "$1/incoming/$2@${p##*/.}.cancel"'
)
WAITS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # seconds between two looks on the other host


class Done(NamedTuple):
    """What came of a command on the other host."""

    code: int
    out: bytes
    err: bytes


def connect(where: str, ssh: Iterable[str] | None = None) -> Transport:
    """Return the way to a spool: through a shell account, or the gateway where the host has nothing else for us."""
    connection, path = parse(where, ssh)
    from spoold.client.gateway import Gateway  # noqa: PLC0415 - it stands on this module

    if not path:
        return Gateway(connection)
    try:
        done = connection.run(command(PROBE, path))
    except UnreachableError:
        connection.close()
        raise
    if done.err.startswith(NO_COMMAND):
        return Gateway(connection)
    if done.out != b"spool\n":
        connection.close()
        raise NoSpoolError(f"{where} holds no spool: name its path on that host. {done_text(done)}".strip())
    return Shell(connection, path)


def parse(where: str, ssh: Iterable[str] | None = None) -> tuple[Connection, str]:
    """Return the connection and the path of an address; raises :class:`UnreachableError` where it is none."""
    try:
        parts = urlsplit(where)
        host, port, user, path = parts.hostname or "", parts.port, unquote(parts.username or ""), unquote(parts.path)
    except ValueError:
        host = user = path = ""
        port = None
    if not HOST.fullmatch(host) or (user and not USER.fullmatch(user)) or not path.isprintable():
        raise NoSpoolError(f"{where!a} is no spool's address: ssh://[user@]host[:port]/path")
    words = shlex.split(os.environ.get("SPOOLD_SSH", "")) or ["ssh"] if ssh is None else list(ssh)
    to = [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), host]
    return Connection(words, to), path.rstrip("/")


def command(script: str, *words: str) -> str:
    """Return what whatever shell of the account is told."""
    return " ".join(["exec sh -c", f"'{script}'", "sh", *map(shlex.quote, words)])


def done_text(done: Done) -> str:
    """Return what ssh, or a command on the other host, said."""
    return done.err.decode(errors="backslashreplace").strip()[-SAID:]


class Connection:
    """One connection to a host, made when it is needed first; ``ssh`` is the command, ``to`` whom it reaches."""

    def __init__(self, ssh: list[str], to: list[str]) -> None:
        self._ssh = [*ssh, *OPTIONS]
        self._to = to
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._place = ""
        self._worked = False  # whether the host was reached before: then it may come back

    def run(self, text: str, data: bytes = b"", *, most: int = MOST) -> Done:
        """Run a command on the host, with ``data`` as its input; read ``most`` bytes of what it prints.

        It is run again where the connection breaks. Raises :class:`UnreachableError` where that does not help.
        """
        for pause in TRIES if self._worked else TRIES[:2]:
            time.sleep(pause)
            with self._sessions:
                words = [*self._ssh, "-S", self._socket(), *self._to[:-1], "--", self._to[-1], text]
                done = self._once(words, data, most)
            if done.code != BROKEN:
                self._worked = True
                return done
            self._forget()
            if not _may_pass(done):
                break
        raise UnreachableError(f"{self._to[-1]}: ssh cannot reach it: {done_text(done) or 'no reason was given'}")

    def _socket(self) -> str:
        """Return where the master listens, once there is one."""
        with self._lock:
            if not self._place:
                where = tempfile.gettempdir()
                where = where if len(where) < 60 else "/tmp"  # noqa: S108 - the name of a socket is short
                self._place = tempfile.mkdtemp(prefix="spoold-ssh-", dir=where)
                # It goes at the end of the process as well, where nobody closes this.
                weakref.finalize(self, shutil.rmtree, self._place, ignore_errors=True)
            path = os.path.join(self._place, "ssh")
            if not os.path.exists(path):
                self._start_master(path)
            return path

    def _start_master(self, path: str) -> None:
        words = [*self._ssh, "-M", "-N", "-S", path, "-o", f"ControlPersist={IDLE}", *self._to[:-1], "--", self._to[-1]]
        null = subprocess.DEVNULL
        # What it says goes to a file: a pipe would be open as long as it is there.
        with tempfile.TemporaryFile() as said, contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(words, stdin=null, stdout=null, stderr=said, timeout=TIMEOUT, check=False)

    def _forget(self) -> None:
        """Have a master made anew: the one that there was may have died, and left its socket."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._place, "ssh"))

    @staticmethod
    def _once(words: list[str], data: bytes, most: int) -> Done:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(data)
            given.seek(0)
            try:
                process = subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=said)
            except OSError as error:
                raise UnreachableError(f"{words[0]}: {error.strerror}: install OpenSSH's client") from error
            alarm = threading.Timer(TIMEOUT, process.kill)
            alarm.daemon = True
            alarm.start()
            try:
                out = process.stdout.read(most + 1) if process.stdout else b""
                if len(out) > most:
                    process.kill()
                process.wait()
            finally:
                alarm.cancel()
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout:
                    process.stdout.close()
            said.seek(0)
            return Done(process.returncode, out, said.read(100_000))

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            if not self._place:
                return
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._ssh, "-S", os.path.join(self._place, "ssh"), "-O", "exit", "--", self._to[-1]],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=10,
                    check=False,
                )
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = ""


def _may_pass(done: Done) -> bool:
    """Tell whether it may be otherwise in a moment: not where we are not let in, or the host is not known."""
    return not LASTING.search(done.err)


class Shell:
    """A spool on a host where we have a shell account."""

    def __init__(self, connection: Connection, root: str) -> None:
        self._connection = connection
        self._root = root

    def _run(self, script: str, *words: str, data: bytes = b"", most: int = MOST) -> Done:
        return self._connection.run(command(script, self._root, *words), data, most=most)

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put it there under its final name in one step, once all of it has arrived."""
        file = id_
        for _ in range(2):
            done = self._run(DROP, file, str(len(data)), data=data)
            if done.code == USED:  # perhaps by a try of ours whose connection broke, or by somebody else
                file = names.unguessable(id_)
                continue
            if done.code:
                raise RequestError(f"{id_}: it could not be put into the drop box: {done_text(done) or done.code}")
            return Dropped(id_, f"{file}.json", int(done.out), digest(data))
        raise RequestError(f"{id_}: its name in the drop box is used: choose another --id")

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Ask for all at once, and fetch those that are there."""
        waits, left = [], patience
        for pause in (*WAITS, *[WAITS[-1]] * int(patience / WAITS[-1])):
            if pause > left:
                break
            waits.append(str(pause))
            left -= pause
        done = self._run(ANSWERS, *waits, "0", data="".join(f"{name}\n" for name in names).encode())
        if done.code:
            raise UnreachableError(f"the spool cannot be read: {done_text(done) or done.code}")
        found = {}
        for line in done.out.decode(errors="replace").splitlines():
            kind, _, name = line.partition(" ")
            if name in names:
                found[name] = self._read(name) if kind == "r" else b""
        return found

    def _read(self, name: str) -> bytes:
        done = self._run(READ, name)
        if len(done.out) > MOST:
            raise AnswerError(f"{name} is larger than any response")
        return done.out

    def is_dropped(self, file: str) -> bool:
        """Tell whether a file of that name is in the drop box still."""
        return self._run(DROPPED, file).code == LIES

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far."""
        done = self._run(LOOK, id_)
        if done.code not in (0, UNKNOWN, LIES):
            raise AnswerError(f"{id_}: its response is not yours to read")
        return (done.out, True) if done.code == 0 else (None, done.code == LIES)

    def cancel(self, id_: str) -> None:
        """Drop a file that asks for it, under a name that nobody else can have taken."""
        done = self._run(CANCEL, id_)
        if done.code:
            raise RequestError(f"{id_}: it cannot be asked to be cancelled: {done_text(done) or done.code}")

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return what lies beside a response."""
        done = self._run(READ, names.tar_name(id_), most=size)
        return None if done.code and not done.out else done.out

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
