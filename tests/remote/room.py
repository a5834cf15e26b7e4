"""A spool on a host with two users and an sshd, for clients of another machine. All of it is removed at the end."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.spool import layout
from tests.engines import REPOSITORY, SLOWNESS, unavailable
from tests.remote.slow import SLOW, Write, slowly
from tests.rights import assert_answer

SETTLE = 1.0  # seconds where intake should give an upload up; elsewhere it is much, because uploads may stand still
PATIENCE = 100.0 * SLOWNESS
TAKEN_OVER = "settings read again"  # the daemons log this
PROGRAMS = ("sshd", "ssh", "scp", "sftp", "ssh-keygen", "rsync", "useradd")
GATEWAY = REPOSITORY / "contrib/deploy/ssh-gateway"


class User(NamedTuple):
    """A user of the host, made for the tests."""

    name: str
    uid: int
    gid: int

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as this user on the host."""
        return subprocess.run(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **options,
        )


def need() -> None:
    """Skip or fail where the tests cannot make users, or where a program is missing."""
    os.environ["PATH"] += ":/usr/sbin"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        unavailable(f"not installed: {', '.join(missing)} (openssh-server, openssh-client, rsync)")
    if os.geteuid() != 0:
        unavailable("only root can make users")


@contextlib.contextmanager
def user(number: int) -> Iterator[User]:
    """Yield a user without a password, with / as home, and whose account is not locked."""
    remove_users_of_the_dead()
    name = f"spoold-{os.getpid()}-{number}"
    with contextlib.suppress(KeyError):  # a killed run that had our number left it
        change_users("userdel", pwd.getpwnam(name).pw_name)
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh"]
    change_users("useradd", *options, "--password", "*", name)
    try:
        found = pwd.getpwnam(name)
        yield User(name, found.pw_uid, found.pw_gid)
    finally:
        change_users("userdel", name)


def remove_users_of_the_dead() -> None:
    """Remove the users of tests that were killed."""
    for each in pwd.getpwall():
        match = re.fullmatch(r"spoold-(\d+)-\d", each.pw_name)
        if match and not Path("/proc", match[1]).exists():
            change_users("userdel", each.pw_name)


def change_users(*command: str) -> None:
    """Run useradd or userdel.

    Others may change the same file or remove the same user, and sshd may still serve them.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        passes = "cannot lock" in done.stderr or "is currently used by process" in done.stderr
        if not passes or time.monotonic() > deadline:
            break
        time.sleep(0.1)  # nothing tells when another process unlocks the accounts
    is_gone = command[0] == "userdel" and "does not exist" in done.stderr
    assert done.returncode == 0 or is_gone, done.stderr


class Room:
    """The spool, its daemons over stand-in engines as one process, and the sshd, all below one directory."""

    def __init__(self, directory: Path, users: Sequence[User], answers: Literal["acl", "owner"] = "acl") -> None:
        self.directory = directory
        self.users = users
        self.spool = directory / "spool"
        layout.create(str(self.spool))
        self.settings = Settings(
            spool=SpoolSettings(path=str(self.spool), settle=PATIENCE, scan=0.5, answers=answers),
            lease=LeaseSettings(renewal=0.5, limit=60.0, check=0.5, pause=0.5),
            executor=ExecutorSettings(slots=2),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        self.port = free_port()
        self.config = directory / "spoold.toml"
        self.config.write_bytes(msgspec.toml.encode(self.settings))
        self.daemons = self._start_daemons()
        self.sshd = self._start_sshd()
        self.until(lambda: "msg=ready" in (self.directory / "log").read_text())  # by then SIGHUP ends no daemon

    def stop(self) -> None:
        for process in (self.daemons, self.sshd):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in (self.daemons, self.sshd):
            process.wait(PATIENCE)

    def _start_daemons(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.idle", str(self.config), "intake,builder,executor,health", "info"]
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)

    def _start_sshd(self) -> subprocess.Popen[bytes]:
        keys = self.directory / "keys"
        keys.mkdir(0o711)
        # the directory of sshd's unprivileged process, which a service would make
        Path("/run/sshd").mkdir(exist_ok=True)
        self._make_key("host")
        config = self.directory / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.key('host')}\nPidFile none\n"
            f"AuthorizedKeysFile {keys}/authorized-%u\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
            f"PrintMotd no\nMaxStartups 50\nSubsystem sftp internal-sftp\n"
        )
        for each in self.users:
            self._make_key(each.name)
            self.authorize(each, each.name)
        sshd = shutil.which("sshd")  # sshd starts itself again for each connection, and needs its full path for that
        assert sshd
        process = subprocess.Popen([sshd, "-D", "-f", str(config), "-E", str(self.directory / "sshd.log")])
        self.until(self._answers)
        return process

    def _answers(self) -> bool:
        with (
            contextlib.suppress(ConnectionRefusedError, TimeoutError),
            socket.create_connection(("127.0.0.1", self.port), 5),
        ):
            return True
        return False

    # -- keys

    def key(self, name: str) -> Path:
        return self.directory / "keys" / name

    def _make_key(self, name: str) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key(name))], check=True)

    def authorize(self, user: User, name: str, options: str = "") -> None:
        """Let the key ``name`` log in as ``user``. Make the key if it doesn't exist."""
        if not self.key(name).exists():
            self._make_key(name)
        line = f"{options} {self.key(name).with_suffix('.pub').read_text()}".lstrip()
        authorized = self.key(f"authorized-{user.name}")
        with authorized.open("a") as file:
            file.write(line)
        authorized.chmod(0o644)

    # -- clients

    def options(self, key: str) -> list[str]:
        """Return the options of ssh, scp and sftp, without the port."""
        wanted = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
        return ["-F", "/dev/null", "-i", str(self.key(key)), *(word for each in wanted for word in ("-o", each))]

    def ssh(self, user: User, *words: str, key: str = "", data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host through ssh. ``words`` may begin with options."""
        command = ["ssh", *self.options(key or user.name), "-p", str(self.port), "-l", user.name]
        return subprocess.run(
            [*command, *words], input=data, capture_output=True, check=False, timeout=PATIENCE, cwd="/"
        )

    def in_spool(self, path: str) -> str:
        return str(self.spool / path)

    def request(self, size: int = 0) -> tuple[str, bytes]:
        """Return an id, and a unique request of at least ``size`` bytes."""
        id_ = f"job-{secrets.token_hex(6)}"
        files = [{"name": "run.sh", "content": "true"}, {"name": "data", "content": f"{id_} " * (size // 17)}]
        return id_, json.dumps({"files": files}).encode()

    def file(self, id_: str, data: bytes) -> Path:
        """Return a file on the client's machine with a request."""
        made = self.directory / f"{id_}.json"
        made.write_bytes(data)
        made.chmod(0o644)
        return made

    # -- what the spool shows

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (self.directory / "log").read_text()[-3000:]
            time.sleep(0.02)

    def response(self, id_: str, owner: User) -> dict[str, Any]:
        """Wait for a response. Only its owner may be able to read it."""
        path = self.spool / "done" / f"{id_}.response.json"
        self.until(path.exists)
        if self.settings.spool.answers == "acl":
            assert_answer(path, owner.uid)
        else:
            assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (owner.uid, 0o400)
        for each in self.users:
            read = each.run("cat", str(path))
            assert (read.returncode == 0) == (each == owner)
            if each == owner:
                answer = json.loads(read.stdout)
        assert answer["Submission_id"] == id_
        return dict(answer)

    def assert_completed(self, id_: str, owner: User, data: bytes) -> None:
        """Assert that every byte has arrived, and was run for its sender."""
        assert self.response(id_, owner)["status"] == "COMPLETED"
        entry = json.loads((self.spool / "done" / f"{id_}.json").read_bytes())
        assert (entry["Spool"]["sha256"], entry["Spool"]["uid"]) == (hashlib.sha256(data).hexdigest(), owner.uid)
        self.until(lambda: not list((self.spool / "incoming").glob(f"*{id_}*")))

    def upload_slowly(self, owner: User, uploading: Callable[[str], contextlib.AbstractContextManager[Write]]) -> None:
        """Upload for longer than the settle time, with pauses that are all shorter.

        ``uploading`` gets the file's name. If the machine stood still for the settle time, the upload is tried again.
        """
        for _ in range(20):
            id_, data = self.request(2000)
            with self.settling(SLOW.settle), uploading(f"{id_}.json") as write:
                rested = slowly(data, write, partial(self.has_come, id_))
            if rested < SLOW.settle:
                self.assert_completed(id_, owner, data)
                return
        pytest.fail("the machine stood still each time")

    def has_come(self, id_: str, size: int) -> bool:
        """Tell whether ``size`` bytes of an upload lie there under its final name, or it was answered."""
        with contextlib.suppress(FileNotFoundError):
            if (self.spool / "incoming" / f"{id_}.json").stat().st_size >= size:
                return True
        return (self.spool / "done" / f"{id_}.response.json").exists()

    def settling(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Let intake wait ``seconds`` for uploads that rest, in the block."""
        return settling(seconds, self.settings, self.config, self.daemons, self.directory / "log")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the daemons from taking anything in, in the block."""
        self.daemons.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.daemons.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def settling(
    seconds: float, settings: Settings, config: Path, daemons: subprocess.Popen[bytes], log: Path
) -> Iterator[None]:
    """Let daemons wait ``seconds`` for uploads that rest, in the block. ``settings`` are their usual ones."""

    def change(changed: Settings) -> None:
        before = log.read_text().count(TAKEN_OVER)
        config.write_bytes(msgspec.toml.encode(changed))
        daemons.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while log.read_text().count(TAKEN_OVER) == before:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.02)

    change(msgspec.structs.replace(settings, spool=msgspec.structs.replace(settings.spool, settle=seconds)))
    try:
        yield
    finally:
        change(settings)


def free_port() -> int:
    """Return a free port below the range from which the kernel chooses ports for connections.

    No other process of these tests gets it before this one has ended, however late a server listens there.
    """
    while True:
        port = random.randint(15_000, 32_000)  # noqa: S311 - no secret
        claim = socket.socket(socket.AF_UNIX)
        atexit.register(claim.close)
        with socket.socket() as probe, contextlib.suppress(OSError):
            claim.bind(f"\0spoold-tests-{port}")
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def room(answers: Literal["acl", "owner"] = "acl") -> Iterator[Room]:
    """Yield a room whose directory users can enter."""
    need()
    directory = Path(tempfile.mkdtemp(prefix="spoold-remote.", dir="/tmp"))
    directory.chmod(0o711)
    try:
        first = 1 if answers == "acl" else 3
        with user(first) as one, user(first + 1) as other:
            made = Room(directory, [one, other], answers)
            try:
                yield made
            finally:
                made.stop()
    finally:
        shutil.rmtree(directory)


def fixtures(answers: Literal["acl", "owner"], scope: Literal["module", "package"]) -> tuple[Any, Any, Any]:
    """Return the fixtures of a room and of its first two users.

    They are shared, because making one takes a second or two.
    """

    @pytest.fixture(scope=scope)
    def made() -> Iterator[Room]:
        with room(answers) as given:
            yield given

    @pytest.fixture(scope=scope)
    def ann(room: Room) -> User:
        return room.users[0]

    @pytest.fixture(scope=scope)
    def bob(room: Room) -> User:
        return room.users[1]

    return made, ann, bob
