"""The forced command: what it does for honest clients, and what it refuses to others."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from spoold.model import ids
from tests.remote.room import GATEWAY, PATIENCE, SETTLE, Room, User

DONE, REFUSED, USAGE, HOST, WAITING = range(5)
MOST = 200_000  # bytes of a request that this gateway accepts
SECONDS = round(PATIENCE * 0.9)  # that a client waits for a response


class Client(NamedTuple):
    """A client with a key for the gateway and nothing else."""

    room: Room
    user: User
    key: str

    def say(self, text: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.room.ssh(self.user, "--", "127.0.0.1", text, key=self.key, data=data)

    def submit(self, id_: str = "") -> str:
        """Submit a small request. Return its id."""
        done = self.say(f"submit {id_}".rstrip(), self.room.request()[1])
        assert (done.returncode, done.stderr) == (DONE, b"")
        return done.stdout.decode().removesuffix("\n")


@pytest.fixture(scope="module")
def gateway(room: Room, ann: User, bob: User) -> str:
    """Authorize three keys. Return the gateway's command."""
    installed = room.directory / "ssh-gateway"
    shutil.copy(GATEWAY, installed)
    installed.chmod(0o755)
    command = f"{installed} --spool {room.spool} --max-file {MOST} --upload-time 60"
    for user, key, name in ((ann, "one", "one"), (ann, "two", "two"), (bob, "bobs", "")):
        room.authorize(user, key, f'command="{command} {f"--name {name}" if name else ""}",restrict')
    return command


@pytest.fixture
def one(room: Room, ann: User, gateway: str) -> Client:
    return Client(room, ann, "one")


@pytest.fixture
def two(room: Room, ann: User, gateway: str) -> Client:
    """Return a client with another key of the same account."""
    return Client(room, ann, "two")


@pytest.fixture
def bobs(room: Room, bob: User, gateway: str) -> Client:
    """Return a client with the only key of another account."""
    return Client(room, bob, "bobs")


# -- what it is for


def test_submit_wait_and_status(one: Client, room: Room) -> None:
    id_, _ = room.request()
    assert one.submit(id_) == f"one.{id_}"
    waited = one.say(f"wait {id_} {SECONDS}")
    assert waited.returncode == DONE
    assert json.loads(waited.stdout) == json.loads(one.say(f"status {id_}").stdout)
    assert json.loads(waited.stdout)["Submission_id"] == f"one.{id_}"
    assert one.say(f"status one.{id_}").stdout == waited.stdout, "the id as the response has it"


def test_an_id_is_chosen_where_none_is(bobs: Client) -> None:
    id_ = bobs.submit()
    assert ids.submission_id(f"{id_}.json") == id_
    assert bobs.say(f"wait {id_}").returncode == DONE


def test_how_far_it_is_and_cancelling(one: Client, room: Room) -> None:
    id_, _ = room.request()
    nap = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": "nap 600"}).encode()
    assert one.say(f"submit {id_}", nap).returncode == DONE
    seen = one.say(f"status {id_}")
    assert seen.returncode == WAITING
    room.until(lambda: one.say(f"status {id_}").stdout)
    assert json.loads(one.say(f"status {id_}").stdout)["status"] in ("pending", "INSTALLING_DEPENDENCIES", "RUNNING")
    assert one.say(f"wait {id_} 0").returncode == WAITING
    assert one.say(f"cancel {id_}").returncode == DONE
    assert json.loads(one.say(f"wait {id_} {SECONDS}").stdout)["status"] == "CANCELLED"
    assert json.loads(one.say(f"status {id_}").stdout)["status"] == "CANCELLED"


def test_returned_files_beside_a_response(one: Client, two: Client, bobs: Client, room: Room) -> None:
    id_, _ = room.request()
    asked = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "outputs": [{"path": "*"}]}).encode()
    assert one.say(f"submit {id_}", asked).returncode == DONE
    response = json.loads(one.say(f"wait {id_} {SECONDS}").stdout)
    data = one.say(f"outputs {id_}").stdout
    assert hashlib.sha256(data).hexdigest() == response["outputs_tar"]["sha256"]
    for client, text in ((two, f"outputs {id_}"), (bobs, f"outputs one.{id_}"), (one, "outputs never-there")):
        done = client.say(text)
        assert (done.returncode, done.stdout) == (REFUSED, b"")


def test_its_idea_of_an_id_is_spoolds() -> None:
    module = loaded()
    assert module.ID.pattern == ids.ID.pattern
    assert module.RESERVED_ENDINGS == ids.RESERVED_ENDINGS
    assert module.NAME.fullmatch("a.b") is None, "otherwise one key's ids could be another's"


def loaded() -> ModuleType:
    loader = SourceFileLoader("ssh_gateway", str(GATEWAY))
    spec = importlib.util.spec_from_loader("ssh_gateway", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# -- what it is not for

NOT_COMMANDS = [
    "",
    "submit;id",
    "submit a; id",
    "submit a;id",
    "submit $(id)",
    "submit `id`",
    "submit a\nid",
    "status a|cat /etc/passwd",
    "status ../../../../etc/passwd",
    "status a/../../tmp/x",
    "status /etc/passwd",
    "status .hidden",
    "status -rf",
    "status --spool=/etc",
    "submit --spool /tmp",
    "submit --max-file 99999999",
    "status a b",
    "outputs a b",
    "outputs ../done/a",
    "status",
    "cancel",
    "wait a -1",
    "wait a 1e9",
    "wait a 9999999",
    "submit  a",
    " submit a",
    "SUBMIT a",
    "submit a.response",
    "cancel x.cancel",
    "submit " + "a" * 129,
    "submit " + "a" * 100_000,
    "status \x1b[31mred",
    "status a\x7f",
    "status é",
    "status a\u2028b",
    "status *",
    "submit ~root",
    "sh",
    "cat /etc/passwd",
    "internal-sftp",
    "/usr/lib/openssh/sftp-server",
    "scp -t /tmp",
    "rsync --server . /tmp",
    "help",
]


@pytest.mark.parametrize("text", NOT_COMMANDS, ids=range(len(NOT_COMMANDS)))
def test_nothing_else_is_done(text: str, room: Room, gateway: str) -> None:
    """sshd is left out, because it only passes the text on and would take 0.2 s each time."""
    before = os.listdir(room.spool / "incoming")
    done = subprocess.run(
        gateway.split(),
        input=room.request()[1],
        env={"SSH_ORIGINAL_COMMAND": text},
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == USAGE
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    for word in text.split():
        assert (
            len(word) < 4
            or word in {"submit", "status", "wait", "outputs", "cancel"}
            or word.encode() not in done.stderr
        )
    assert all(32 <= byte < 127 or byte == 10 for byte in done.stderr), "printed raw"
    assert set(os.listdir(room.spool / "incoming")) <= set(before), "earlier files may have been taken in"


def test_no_shell_no_terminal_no_files_no_forwarding(one: Client, room: Room) -> None:
    ssh = ["ssh", *room.options("one"), "-p", str(room.port), "-l", one.user.name]
    for words in ([], ["-tt"], ["-s"]):
        done = subprocess.run(
            [*ssh, *words, "127.0.0.1", *(["sftp"] if words == ["-s"] else [])],
            input=b"id\n",
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode in {USAGE, 255}
        assert b"uid=" not in done.stdout
    forward = subprocess.run(
        [*ssh, "-W", f"127.0.0.1:{room.port}", "127.0.0.1"], capture_output=True, check=False, timeout=PATIENCE
    )
    assert forward.returncode != 0
    assert b"SSH-2.0" not in forward.stdout, "the connection reached another place"
    remote = subprocess.run(
        [*ssh, "-o", "ExitOnForwardFailure=yes", "-N", "-R", "127.0.0.1:0:127.0.0.1:1", "127.0.0.1"],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert b"forwarding failed" in remote.stderr
    for copy in (["scp", "-O"], ["scp"]):
        target = f"{one.user.name}@127.0.0.1:{room.spool}/incoming/x.json"
        source = str(room.file("x", b"{}"))
        copied = subprocess.run(
            [*copy, *room.options("one"), "-P", str(room.port), source, target],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert copied.returncode != 0
    assert not (room.spool / "incoming" / "x.json").exists()


def test_the_keys_of_one_account_are_strangers(one: Client, two: Client, room: Room) -> None:
    id_, _ = room.request()
    one.submit(id_)
    assert one.say(f"wait {id_} {SECONDS}").returncode == DONE
    for text in (f"status {id_}", f"status one.{id_}", f"status two.one.{id_}"):
        assert two.say(text).returncode == REFUSED
    nothing = two.say("status never-there")
    assert two.say(f"status one.{id_}").stderr == nothing.stderr, "the refusal doesn't tell that the id exists"
    assert two.submit(id_) == f"two.{id_}", "the id is free for this key"
    nap = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": "nap 1"}).encode()
    one.say(f"submit {id_}-nap", nap)
    two.say(f"cancel one.{id_}-nap")
    assert json.loads(one.say(f"wait {id_}-nap {SECONDS}").stdout)["status"] == "COMPLETED"
    with room.settling(SETTLE):
        room.until(lambda: not list((room.spool / "incoming").iterdir()))


def test_no_other_account_can_hold_the_names_that_it_uses(one: Client, bob: User, room: Room) -> None:
    """The gateway ignores another account's files, and drops under a name that nobody can guess."""
    id_, _ = room.request()
    usual = [room.spool / "incoming" / f"one.{id_}.{ending}" for ending in ("json", "cancel")]
    for path in usual:
        path.write_text("{")
        os.chown(path, bob.uid, bob.uid)
    nap = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": "nap 600"}).encode()
    assert one.say(f"submit {id_}", nap).returncode == DONE
    room.until(lambda: one.say(f"status {id_}").returncode == WAITING)
    assert one.say(f"cancel {id_}").returncode == DONE
    assert json.loads(one.say(f"wait {id_} {SECONDS}").stdout)["status"] == "CANCELLED"
    for path in usual:
        path.unlink(missing_ok=True)


def test_the_kernel_keeps_accounts_apart(one: Client, bobs: Client, room: Room) -> None:
    id_, _ = room.request()
    one.submit(id_)
    assert one.say(f"wait {id_} {SECONDS}").returncode == DONE
    assert bobs.say(f"status one.{id_}").returncode == REFUSED
    assert bobs.say(f"submit one.{id_}", room.request()[1]).returncode == REFUSED


def test_an_id_that_is_used_is_refused_and_nothing_is_replaced(bobs: Client, room: Room) -> None:
    with room.stopped():
        id_ = bobs.submit()
        lies_there = (room.spool / "incoming" / f"{id_}.json").read_bytes()
        assert bobs.say(f"submit {id_}", room.request()[1]).returncode == REFUSED
        assert (room.spool / "incoming" / f"{id_}.json").read_bytes() == lies_there
        assert bobs.say(f"status {id_}").returncode == WAITING
    assert bobs.say(f"wait {id_} {SECONDS}").returncode == DONE
    assert bobs.say(f"submit {id_}", room.request()[1]).returncode == REFUSED


def test_an_id_of_another_user_is_refused_though_nobody_uses_it(bobs: Client, ann: User, room: Room) -> None:
    """Only intake can tell, so the gateway waits for it a moment. Here it waits as long as intake may stand still."""
    patient = room.directory / "patient-gateway"
    text = GATEWAY.read_text()
    assert text.count("SOON = 2.0 ") == 1
    patient.write_text(text.replace("SOON = 2.0 ", f"SOON = {SECONDS} "))
    patient.chmod(0o755)
    room.authorize(bobs.user, "patient", f'command="{patient} --spool {room.spool}",restrict')
    id_, data = room.request()
    done = bobs._replace(key="patient").say(f"submit {ann.uid}.{id_}", data)
    assert (done.returncode, b"another user's" in done.stderr) == (REFUSED, True)


# -- what comes in


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"[]",
        b'"{}"',
        b'{"files": [',
        b'{"files": [{"name": "run.sh", "content": "}]}',
        b'{"a": "\\"}',
        b'{"a": "\\',
        b"}{",
        b"[" * MOST,
        b'{"a":"' + b'\\"' * (MOST // 2 - 5),
        b"\xff\xfe{\0}\0",
    ],
    ids=range(12),
)
def test_what_is_not_whole_is_not_submitted(data: bytes, gateway: str, room: Room) -> None:
    """A connection that was cut off leaves nothing, and the id stays free."""
    id_, _ = room.request()
    began = time.monotonic()
    text = {"SSH_ORIGINAL_COMMAND": f"submit {id_}"}
    done = subprocess.run(gateway.split(), input=data, env=text, capture_output=True, check=False, timeout=PATIENCE)
    assert done.returncode == REFUSED
    assert time.monotonic() - began < PATIENCE / 2
    assert not list((room.spool / "incoming").glob(f"*{id_}*"))


def test_what_begins_like_a_request_is_whole_only_at_its_end() -> None:
    is_whole = loaded().is_whole
    request = json.dumps({"files": [{"name": 'a"\\', "content": '{[\\"'}], "inputs": "]}"}).encode()
    assert is_whole(request)
    assert is_whole(b" \n" + request + b"\n")
    assert not any(is_whole(request[:length]) for length in range(len(request)))


def test_what_is_too_large_is_refused_before_it_has_come(bobs: Client, room: Room) -> None:
    id_, _ = room.request()
    assert bobs.say(f"submit {id_}", b" " * (MOST + 1)).returncode == REFUSED
    assert bobs.say(f"submit {id_}", b" " * (MOST * 50)).returncode in {REFUSED, 255}
    assert not list((room.spool / "incoming").glob(f"*{id_}*"))


def test_who_sends_nothing_is_not_waited_for(gateway: str, room: Room) -> None:
    with subprocess.Popen(
        [*gateway.split(), "--upload-time", "1"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={"SSH_ORIGINAL_COMMAND": "submit"},
    ) as client:
        assert client.wait(PATIENCE) == HOST
        assert client.stderr
        assert b"too long" in client.stderr.read()


def test_it_ends_when_the_client_goes(bobs: Client, room: Room) -> None:
    """The client of a `wait` is killed. Nothing of it may stay on the host."""
    ssh = ["ssh", *room.options("bobs"), "-p", str(room.port), f"{bobs.user.name}@127.0.0.1", "wait never-there 600"]
    client = subprocess.Popen(ssh, stdin=subprocess.DEVNULL)
    room.until(lambda: waiting(bobs.user))
    client.send_signal(signal.SIGKILL)
    client.wait()
    room.until(lambda: not waiting(bobs.user))


def waiting(user: User) -> list[str]:
    """Return the gateways that run as ``user``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user.uid and b"ssh-gateway" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_without_a_spool_it_says_so(gateway: str, tmp_path: Path) -> None:
    command = [str(GATEWAY), "--spool", str(tmp_path)]
    done = subprocess.run(
        command, env={"SSH_ORIGINAL_COMMAND": "status a"}, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == HOST
    assert b"no spool" in done.stderr


def test_a_link_in_place_of_a_response_is_not_followed(gateway: str, room: Room, bobs: Client) -> None:
    link = room.spool / "done" / "link.response.json"
    link.symlink_to("/etc/hostname")
    done = bobs.say("status link")
    link.unlink()
    assert (done.returncode, done.stdout) == (HOST, b"")
