"""A spool on another host, reached with the ssh program and a shell account there.

Theory of operation. One connection serves everything: an ssh master (``ControlMaster``). Each command is a session of
it. The master ends by itself a minute after its last session, so a killed client does not leave it behind. Where a
server does not allow such sessions, ssh connects for each command, which is slower. A command is one line for the shell
of the account, whichever that is. The line starts ``sh`` with a script. The scripts contain no single quotes, and their
arguments are quoted for that shell. File names are ids, or made here.

What fails: a broken connection is made again. Each step may run twice, because the same file under the same name is the
same submission. An answer is data: it is read up to a bound, and no shell interprets it.
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

IDLE = 60  # seconds after which an unused connection ends
SESSIONS = 8  # at once on one connection; sshd allows 10
BROKEN = 255  # exit code of ssh where it could not connect, or the connection broke
USED, UNKNOWN, SO_FAR, LIES = 17, 1, 4, 5  # exit codes of our scripts
TRIES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds to wait before each try, where a connection breaks
TIMEOUT = 900.0  # seconds for one command
OPTIONS = (
    # override what the user's ssh configuration may set
    *("-T", "-x", "-a", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
    *("-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)
HOST, USER = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*"), re.compile(r"[A-Za-z0-9_][^\s@:/\x00-\x1f]*")
LASTING = re.compile(rb"denied|not resolve|[Kk]ey verification|[Bb]ad (configuration|owner)|Too many auth")
SAID = 2000  # characters of the message of ssh that errors quote
NO_COMMAND = b"ssh-gateway: say one of"  # how the gateway begins its answer to an unknown command

# $1 is the spool. These scripts may contain no single quotes, line ends or exclamation marks.
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
    """The result of a command on the other host."""

    code: int
    out: bytes
    err: bytes


def connect(where: str, ssh: Iterable[str] | None = None) -> Transport:
    """Return the transport to a spool: a shell account, or the gateway if the host offers us only that."""
    connection, path = parse(where, ssh)
    from spoold.client.gateway import Gateway  # noqa: PLC0415 - that module imports this one

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
    """Return the connection and the path of an address. Raises :class:`NoSpoolError` for an invalid address."""
    try:
        parts = urlsplit(where)
        host, port, user, path = parts.hostname or "", parts.port, unquote(parts.username or ""), unquote(parts.path)
    except ValueError:
        host = user = path = ""
        port = None
    if not HOST.fullmatch(host) or (user and not USER.fullmatch(user)) or not path.isprintable():
        raise NoSpoolError(f"{where!a} is not the address of a spool: write ssh://[user@]host[:port]/path")
    words = shlex.split(os.environ.get("SPOOLD_SSH", "")) or ["ssh"] if ssh is None else list(ssh)
    to = [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), host]
    return Connection(words, to), path.rstrip("/")


def command(script: str, *words: str) -> str:
    """Return the command line for the shell of the account, whichever shell that is."""
    return " ".join(["exec sh -c", f"'{script}'", "sh", *map(shlex.quote, words)])


def done_text(done: Done) -> str:
    """Return what ssh, or a command on the other host, wrote to standard error."""
    return done.err.decode(errors="backslashreplace").strip()[-SAID:]


class Connection:
    """One connection to a host, made on first use. ``ssh`` is the command, ``to`` the arguments that name the host."""

    def __init__(self, ssh: list[str], to: list[str]) -> None:
        self._ssh = [*ssh, *OPTIONS]
        self._to = to
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._place = ""
        self._worked = False  # whether the host was reached before: then it may come back, and is tried more often

    def run(self, text: str, data: bytes = b"", *, most: int = MOST) -> Done:
        """Run a command on the host with ``data`` as its input; return at most ``most`` + 1 bytes of its output.

        Runs it again where the connection breaks. Raises :class:`UnreachableError` where that does not help.
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
        """Return the socket of the master. Start a master where there is none."""
        with self._lock:
            if not self._place:
                where = tempfile.gettempdir()
                where = where if len(where) < 60 else "/tmp"  # noqa: S108 - the path of a socket must be short
                self._place = tempfile.mkdtemp(prefix="spoold-ssh-", dir=where)
                # This removes the directory at the end of the process too, if nobody calls close().
                weakref.finalize(self, shutil.rmtree, self._place, ignore_errors=True)
            path = os.path.join(self._place, "ssh")
            if not os.path.exists(path):
                self._start_master(path)
            return path

    def _start_master(self, path: str) -> None:
        words = [*self._ssh, "-M", "-N", "-S", path, "-o", f"ControlPersist={IDLE}", *self._to[:-1], "--", self._to[-1]]
        null = subprocess.DEVNULL
        # Its messages go to a file. The master would keep a pipe open as long as it lives.
        with tempfile.TemporaryFile() as said, contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(words, stdin=null, stdout=null, stderr=said, timeout=TIMEOUT, check=False)

    def _forget(self) -> None:
        """Remove the socket, so that the next command starts a new master: the old one may have died."""
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
    """Tell whether another try may help. It cannot where access is denied or the host is unknown."""
    return not LASTING.search(done.err)


class Shell:
    """A spool on a host where we have a shell account."""

    def __init__(self, connection: Connection, root: str) -> None:
        self._connection = connection
        self._root = root

    def _run(self, script: str, *words: str, data: bytes = b"", most: int = MOST) -> Done:
        return self._connection.run(command(script, self._root, *words), data, most=most)

    def require(self) -> None:
        """Do nothing: each question fails where there is no spool."""

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put a request into the drop box under its final name in one step, once all of it has arrived."""
        file = id_
        for _ in range(2):
            done = self._run(DROP, file, str(len(data)), data=data)
            if done.code == USED:  # by an earlier try whose connection broke, or by somebody else
                file = names.unguessable(id_)
                continue
            if done.code:
                raise RequestError(f"{id_}: it could not be written to incoming/: {done_text(done) or done.code}")
            return Dropped(id_, f"{file}.json", int(done.out), digest(data))
        raise RequestError(f"{id_}: the name is already used in incoming/: choose another --id")

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Ask for all answers at once, and fetch those that are there."""
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
        """Tell whether a file of that name is still in the drop box."""
        return self._run(DROPPED, file).code == LIES

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far."""
        done = self._run(LOOK, id_)
        if done.code not in (0, UNKNOWN, LIES):
            raise AnswerError(f"{id_}: its response belongs to another user")
        return (done.out, True) if done.code == 0 else (None, done.code == LIES)

    def cancel(self, id_: str) -> None:
        """Drop a file that asks for the cancellation, under a name that nobody else can have taken."""
        done = self._run(CANCEL, id_)
        if done.code:
            raise RequestError(f"{id_}: its cancel could not be written: {done_text(done) or done.code}")

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return the tar beside a response."""
        done = self._run(READ, names.tar_name(id_), most=size)
        return None if done.code and not done.out else done.out

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
