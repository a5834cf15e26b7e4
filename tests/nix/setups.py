"""The setups in which a builder runs: as root, as the package's service user, and as an ordinary user at a desk.

Builders other than root's are processes of their own. The service user has what the unit gives: two capabilities and
nothing more. The ordinary user has what useradd gives: a range of subordinate ids. Neither may be able to read the
tests' interpreter. So they run the system's Python, with a copy of this checkout and of the packages that it needs.
"""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Literal

import msgspec
import pytest

from spoold.config import Settings
from spoold.host import accounts, userns
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.nix.build import NixBuilder
from spoold.nix.verify import Verified, verify
from tests import engines, users
from tests.nix.as_builder import TRIES, VERIFY

Kind = Literal["root", "unit", "desk", "systemd"]
# for every host; "systemd" is only for hosts where systemd is process 1
KINDS: tuple[Kind, ...] = ("root", "unit", "desk")
SYSTEMS_PYTHON = "/usr/bin/python3"
PACKAGES = ("msgspec",)
MEMBERS = 4
FIRST_SUBORDINATE = 3_000_000
RIGHTS = "+setuid,+setgid"
NOBODYS = ("nobody knows whose", "that were found in no build")  # what an error says that need not be the build's


class InProcess:
    """A builder in this process, which runs as root."""

    def __init__(self, builder: NixBuilder) -> None:
        self._builder = builder
        self._number = 0
        self.state = Path(builder.settings.nix.state)
        self.uid = os.geteuid()

    def build(self, expression: str) -> BuildResult:
        """Build an expression. Try again as :class:`AnothersProcess` does."""
        for left in reversed(range(TRIES)):
            self._number += 1
            try:
                return self._builder.build(f"in-process-{self._number}", expression, "default", Event())
            except TemporaryError as error:
                if not left or not any(words in str(error) for words in NOBODYS):
                    raise
        raise AssertionError

    def verify(self) -> Verified:
        return verify(self._builder.settings.nix)


class AnothersProcess:
    """A builder in a process of another user."""

    def __init__(self, settings: Settings, command: list[str], environment: dict[str, str], uid: int) -> None:
        self.state = Path(settings.nix.state)
        self.uid = uid
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/"
        )
        self._send(settings)
        assert self._receive().startswith(b'"/nix/store/'), "the builder did not start"

    def build(self, expression: str) -> BuildResult:
        """Build an expression. Try again where the build was ended for what another program may have done.

        The kernel killed a process and nobody knows whose it was, or other programs filled the disk.
        """
        for _ in range(TRIES):
            self._send(expression)
            said = self._receive()
            if not any(words.encode() in said for words in NOBODYS):
                break
        assert said.startswith(b"{"), said
        return msgspec.json.decode(said, type=BuildResult)

    def verify(self) -> Verified:
        self._send(VERIFY)
        return msgspec.json.decode(self._receive(), type=Verified)

    def _send(self, value: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(value) + b"\n")
        self.process.stdin.flush()

    def _receive(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        with self.process.stdin or contextlib.nullcontext(), self.process.stdout or contextlib.nullcontext():
            self.process.wait()


Setup = InProcess | AnothersProcess


@contextlib.contextmanager
def anothers(kind: Kind, settings: Settings) -> Iterator[AnothersProcess]:
    """Yield a builder that runs as another user, on a store of its own.

    "unit" runs as the service user, "desk" as an ordinary user, and "systemd" as the service user with all settings of
    the package's unit.
    """
    if os.geteuid() != 0 or not os.access(SYSTEMS_PYTHON, os.X_OK):
        pytest.skip("these tests need root, and a Python that all users may run")
    if kind == "desk" and shutil.which("newuidmap") is None:
        engines.unavailable("there is no newuidmap")
    # Others cannot enter pytest's own directories, and the unit has its own /tmp.
    room = Path(tempfile.mkdtemp(prefix="spoold-setup.", dir="/var/lib" if kind == "systemd" else None))
    with contextlib.ExitStack() as held:
        held.callback(engines.remove_store, room)
        room.chmod(0o755)
        copy_code(room / "code")
        nixpkgs = room / "nixpkgs"
        subprocess.run(["cp", "-a", settings.nixpkgs["default"], nixpkgs], check=True)
        subprocess.run(["chmod", "-R", "a+rX", nixpkgs], check=True)
        uid, gid = held.enter_context(_ordinary_user() if kind == "desk" else service_user())
        (room / "state").mkdir()
        os.chown(room / "state", uid, gid)
        command = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        if kind == "unit":
            command += ["--no-new-privs", f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"]
            command += [f"--bounding-set=-all,{RIGHTS}"]
        nix = msgspec.structs.replace(settings.nix, state=str(room / "state"))
        wanted = msgspec.structs.replace(settings, nix=nix, nixpkgs={"default": str(nixpkgs)})
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(room / "code"), "PYTHONDONTWRITEBYTECODE": "1"}
        if kind == "systemd":
            name = f"spoold-test-{os.getpid()}"
            command = [
                *_under_the_unit(name, uid, gid, room),
                *(f"--setenv={key}={environment[key]}" for key in environment),
            ]
            held.callback(subprocess.run, ["systemctl", "stop", name], capture_output=True, check=False)
        builder = AnothersProcess(
            wanted, [*command, "--", SYSTEMS_PYTHON, "-m", "tests.nix.as_builder"], environment, uid
        )
        held.callback(builder.close)
        yield builder


def _under_the_unit(name: str, uid: int, gid: int, room: Path) -> list[str]:
    """Return the command that starts a program with the builder's unit, but as another user and in another place."""
    unit = (engines.REPOSITORY / "systemd/spoold-builder.service").read_text().replace("\\\n", " ")
    lines = unit.partition("[Service]\n")[2].partition("\n[Install]")[0].splitlines()
    others = (
        "Type",
        "Exec",
        "Restart",
        "Watchdog",
        "User",
        "Group",
        "Timeout",
        "ReadWritePaths",
        "Environment",
        "Slice",
    )
    kept = [line for line in lines if line[:1].isalpha() and not line.startswith(others)]
    kept += [f"User={uid}", f"Group={gid}", f"ReadWritePaths={room}", f"StandardError=append:{room}/said"]
    options = [word for line in kept for word in ("--property", line)]
    return [
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        "--service-type=exec",
        f"--unit={name}",
        *options,
    ]


def copy_code(directory: Path) -> None:
    ours = ("spoold", "tests")
    for name in ours:
        shutil.copytree(engines.REPOSITORY / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    version = subprocess.run([SYSTEMS_PYTHON, "--version"], check=True, capture_output=True, text=True).stdout
    if version.split()[1].split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{SYSTEMS_PYTHON} has another version than the tests' Python, so it cannot run its packages")
    for name in PACKAGES:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, directory / name)
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)


@contextlib.contextmanager
def service_user() -> Iterator[tuple[int, int]]:
    """Yield the uid and gid of a service user. Make the users of builds that sysusers.d would make."""
    with contextlib.ExitStack() as held:
        if accounts.gid_of(userns.BUILD_GROUP) is None:
            users.change("groupadd", "--system", userns.BUILD_GROUP)
            held.callback(users.change, "groupdel", userns.BUILD_GROUP)
        if not grp.getgrnam(userns.BUILD_GROUP).gr_mem:
            for number in range(1, MEMBERS + 1):
                name = f"{userns.BUILD_GROUP}{number}"
                group = ("--no-user-group", "--gid", userns.BUILD_GROUP, "--groups", userns.BUILD_GROUP)
                users.change("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", *group, name)
                held.callback(users.change, "userdel", "--force", name)
        yield held.enter_context(_user(f"spoold-unit-{os.getpid()}"))


@contextlib.contextmanager
def _ordinary_user() -> Iterator[tuple[int, int]]:
    """Yield the uid and gid of a user with subordinate ids."""
    name = f"spoold-desk-{os.getpid()}"
    with _user(name) as ids:
        first = FIRST_SUBORDINATE + os.getpid() % 1000 * 65536
        subordinate = f"{first}-{first + 65535}"
        users.change("usermod", "--add-subuids", subordinate, "--add-subgids", subordinate, name)
        yield ids


@contextlib.contextmanager
def _user(name: str) -> Iterator[tuple[int, int]]:
    users.change("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", name)
    try:
        uid, gid = accounts.uid_of(name), accounts.gid_of(name)
        assert uid is not None
        assert gid is not None
        yield uid, gid
    finally:
        users.change("userdel", "--force", name)  # with --force, because its last processes may still be dying
