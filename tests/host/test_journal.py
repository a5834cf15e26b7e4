"""Records as journald gets them: through a socket of the test, and through a real journald where one may run."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.host import journal
from spoold.host.journal import datagram
from tests.engines import REPOSITORY

NASTY = "x\nPRIORITY=0\nSPOOLD_SUBMISSION=forged\n\x00\x1b[2J\udcff"
LOGS = """
import sys
from spoold.host import journal, log
JournalHandler = journal.JournalHandler
log.JournalHandler = lambda *parts: JournalHandler(*parts, address=sys.argv[1])
log.set_up(level="info", journal=sys.argv[2] == "journal" or journal.is_stderr())
said = log.Log("executor")
said.info("running", submission="alice-1", attempt=2, build="b" * 64)
said.warning("ignored", file=sys.argv[3] if len(sys.argv) > 3 else "")
try:
    raise ValueError("two\\nlines")
except ValueError as error:
    said.bug("a slot failed", submission="alice-2", error=error)
"""


def parse(data: bytes) -> list[tuple[str, bytes]]:
    """Return the fields of a datagram as journald reads them."""
    fields = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, end, rest = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        fields.append((name.decode(), value))
        data = rest
    return fields


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(100)
        yield made


def say(address: Path | str, *words: str) -> bytes:
    """Let a process log. Return its stderr."""
    command = [sys.executable, "-c", LOGS, str(address), *words]
    return subprocess.run(command, cwd=REPOSITORY, stderr=subprocess.PIPE, check=True).stderr


def test_a_record_is_a_datagram_of_fields(listener: socket.socket, tmp_path: Path) -> None:
    assert say(tmp_path / "socket", "journal") == b""
    fields = dict(parse(listener.recv(1 << 20)))
    assert fields == {
        "MESSAGE": b"level=info actor=executor submission=alice-1 attempt=2 build=" + b"b" * 64 + b" msg=running",
        "PRIORITY": b"6",
        "SYSLOG_IDENTIFIER": b"spoold",
        "SPOOLD_ACTOR": b"executor",
        "SPOOLD_SUBMISSION": b"alice-1",
        "SPOOLD_ATTEMPT": b"2",
        "SPOOLD_BUILD": b"b" * 64,
    }
    assert dict(parse(listener.recv(1 << 20)))["PRIORITY"] == b"4"
    failed = dict(parse(listener.recv(1 << 20)))
    assert (failed["PRIORITY"], failed["SPOOLD_ERROR"]) == (b"3", b"two\nlines")
    assert b"Traceback" in failed["MESSAGE"]
    assert b"\n" not in failed["MESSAGE"]


def test_no_value_can_be_taken_for_another_field() -> None:
    fields = [("MESSAGE", "m"), ("SPOOLD_FILE", NASTY), ("SPOOLD_SUBMISSION", "a=b"), ("PRIORITY", 6)]
    read = parse(datagram(fields))
    assert [name for name, _ in read] == ["MESSAGE", "SPOOLD_FILE", "SPOOLD_SUBMISSION", "PRIORITY"]
    assert read[1][1] == NASTY.encode(errors="backslashreplace")
    assert read[2][1] == b"a=b"


def test_a_datagram_is_bounded() -> None:
    assert len(datagram([("A", "x" * 10**6), ("B", "y\n" * 10**6)])) < 3 * journal.LONGEST


def test_where_journald_is_away_stderr_has_it(tmp_path: Path) -> None:
    lines = say(tmp_path / "nobody", "journal").splitlines()
    assert lines[0].startswith(b"<6>level=info actor=executor submission=alice-1")
    assert lines[1].startswith(b"<4>")
    assert len(lines) == 3


def test_a_stderr_that_is_not_journalds_gets_lines_with_the_time(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon inherits $JOURNAL_STREAM even if its stderr goes to a file."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    lines = say(tmp_path / "socket", "auto").splitlines()
    assert lines[0].startswith(b"20")
    assert b" level=info actor=executor submission=alice-1 " in lines[0]


def test_a_stderr_of_journalds_is_recognised(tmp_path: Path, listener: socket.socket) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        subprocess.run(
            [sys.executable, "-c", LOGS, str(tmp_path / "socket"), "auto"],
            cwd=REPOSITORY,
            env=os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=theirs.fileno(),
            check=True,
        )
    assert dict(parse(listener.recv(1 << 20)))["SPOOLD_SUBMISSION"] == b"alice-1"


JOURNALD = "/lib/systemd/systemd-journald"
WITH_JOURNALD = f"""
set -eu
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mkdir -p /run/log/journal
{JOURNALD} & trap 'kill $!; wait' EXIT
for _ in $(seq 4000); do [ -S /run/systemd/journal/socket ] && break; sleep 0.05; done
"$@"
journalctl --sync
journalctl -o json SPOOLD_SUBMISSION=alice-1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a journald")
@pytest.mark.skipif(not (os.path.exists(JOURNALD) and os.path.exists("/etc/machine-id")), reason="no systemd-journald")
def test_journald_finds_a_submission(tmp_path: Path) -> None:
    """The search finds only its own record. A client's name for a file stays in that field's value."""
    log = [sys.executable, "-c", LOGS, "/run/systemd/journal/socket", "journal", "x\nSPOOLD_SUBMISSION=alice-1\n"]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_JOURNALD, "sh", *log]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr.decode()
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["MESSAGE"].rpartition(" ")[2] for record in records] == ["msg=running"]
    assert records[0]["SPOOLD_ATTEMPT"] == "2"
