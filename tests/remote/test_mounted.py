"""Daemons on a spool that another host serves: they poll, and need no locks that the other host would see."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.doctor import protection
from spoold.doctor import spool as doctor
from spoold.model.ids import parse_entry
from spoold.spool import layout, lists
from tests.engines import REPOSITORY, unavailable
from tests.remote import nfs
from tests.remote.room import PATIENCE, Room, User, settling
from tests.remote.slow import SLOW, slowly
from tests.rights import assert_answer


class Mounted:
    """A spool on a server's disk, the place where a host has it mounted, and that host's daemons."""

    def __init__(self, served: Path, mount: Path, server: nfs.Server) -> None:
        self.server = server
        self.served = served
        self.spool = mount / "spool"
        self.config = served.parent / "spoold.toml"
        self.settings = Settings(
            spool=SpoolSettings(
                path=str(self.spool), remote=True, remote_scan=0.5, scan=1.0, settle=PATIENCE, answers="owner"
            ),
            lease=LeaseSettings(renewal=0.5, limit=3.0, check=0.5, pause=0.2),
            executor=ExecutorSettings(slots=2),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        self.config.write_bytes(msgspec.toml.encode(self.settings))
        self.log = served.parent / "log"
        self.daemons = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.idle", str(self.config), "intake,builder,executor,health", "info"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def response(self, id_: str) -> dict[str, Any]:
        """Return a response as users on the server's host see it."""
        path = self.served / "done" / f"{id_}.response.json"
        self.until(path.exists)
        return dict(json.loads(path.read_bytes()))


@contextlib.contextmanager
def mounting(room: Room, name: str) -> Iterator[tuple[Path, Path, nfs.Server]]:
    """Serve a spool and mount it. Yield its path, its mount point, and the server."""
    if shutil.which("fusermount3") is None:
        unavailable("not installed: fuse3")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel, or this container, has no FUSE, and no package can add it")
    exported, at = room.directory / f"exported-{name}", room.directory / f"mounted-{name}"
    layout.create(str(exported / "spool"))
    at.mkdir()
    with nfs.serving(exported, room.directory / f"nfs-{name}") as server:
        mount = subprocess.Popen(
            [sys.executable, "-m", "tests.remote.mount", str(server.port), str(at)], cwd=REPOSITORY
        )
        try:
            room.until(lambda: os.path.ismount(at) or mount.poll() is not None)
            if mount.poll() is not None:
                pytest.skip("FUSE cannot mount here")
            yield exported / "spool", at, server
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(at)], check=False)
            mount.terminate()
            mount.wait(PATIENCE)


def end(daemons: subprocess.Popen[bytes]) -> None:
    """Make daemons drain and end, with as much time as they may take."""
    daemons.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemons.wait(PATIENCE)
    daemons.kill()
    daemons.wait()


@pytest.fixture(scope="module")
def mounted(room: Room) -> Iterator[Mounted]:
    with mounting(room, "all") as (served, at, server):
        made = Mounted(served, at, server)
        try:
            made.until(lambda: "ready" in made.log.read_text())
            yield made
        finally:
            end(made.daemons)


def test_an_executor_on_a_mount_commits_and_health_on_the_server_lets_owners_read(room: Room, ann: User) -> None:
    """The executor can neither set lists nor give files away."""
    with mounting(room, "executor") as (served, at, _), contextlib.ExitStack() as stack:
        assert not lists.keeps_lists(str(at / "spool"))
        lease = LeaseSettings(renewal=0.5, limit=3.0, check=3600.0)
        for roles, path, remote in (("intake,builder,health", served, False), ("executor", at / "spool", True)):
            spool = SpoolSettings(path=str(path), remote=remote, remote_scan=0.5, scan=1.0, published_by="health")
            config = room.directory / f"{'there' if remote else 'here'}.toml"
            config.write_bytes(
                msgspec.toml.encode(Settings(spool=spool, lease=lease, nixpkgs={"default": "/srv/nixpkgs"}))
            )
            log = stack.enter_context(config.with_suffix(".log").open("wb"))
            command = [sys.executable, "-m", "tests.idle", str(config), roles, "info"]
            stack.callback(end, subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY))
        id_, data = room.request(2000)
        (served / "incoming" / f"{id_}.json").write_bytes(data)
        os.chown(served / "incoming" / f"{id_}.json", ann.uid, ann.gid)
        response = served / "done" / f"{id_}.response.json"
        room.until(response.exists)
        assert json.loads(response.read_bytes())["status"] == "COMPLETED"
        assert_answer(response, ann.uid)
        room.until(lambda: not list((served / "tmp").glob("*.response.json")))


def test_what_others_write_on_the_server_is_found_and_answered(mounted: Mounted, room: Room, ann: User) -> None:
    """No event reports it."""
    sent = {}
    for _ in range(10):
        id_, data = room.request(2000)
        sent[id_] = hashlib.sha256(data).hexdigest()
        private = mounted.served / "incoming" / f".{id_}.tmp"
        private.write_bytes(data)
        os.chown(private, ann.uid, ann.gid)
        private.rename(mounted.served / "incoming" / f"{id_}.json")
    for id_, digest in sent.items():
        assert mounted.response(id_)["status"] == "COMPLETED"
        found = (mounted.served / "done" / f"{id_}.response.json").stat()
        assert (found.st_uid, found.st_mode & 0o7777) == (ann.uid, 0o400), "given to its owner, through NFS"
        assert json.loads((mounted.served / "done" / f"{id_}.json").read_bytes())["Spool"]["sha256"] == digest
    mounted.until(lambda: not [name for name in os.listdir(mounted.served / "tmp") if name.endswith(".json")])
    mounted.until(lambda: not os.listdir(mounted.served / "incoming"))


def test_a_client_on_the_mount_sees_the_same(mounted: Mounted, room: Room) -> None:
    id_, data = room.request(2000)
    subprocess.run(["cp", str(room.file(id_, data)), str(mounted.spool / "incoming")], check=True)
    assert mounted.response(id_)["status"] == "COMPLETED"
    assert (mounted.spool / "done" / f"{id_}.response.json").exists()


def test_an_upload_that_arrives_slowly_and_one_that_does_not(mounted: Mounted, room: Room) -> None:
    rested = math.inf
    while rested >= SLOW.settle:  # the machine stood still
        slow, data = room.request(2000)
        never, _ = room.request(2000)
        (mounted.served / "incoming" / f"{never}.json").write_bytes(data[:500])
        path = mounted.served / "incoming" / f"{slow}.json"
        with (
            settling(SLOW.settle, mounted.settings, mounted.config, mounted.daemons, mounted.log),
            path.open("wb", buffering=0) as file,
        ):
            rested = slowly(data, lambda part, _: file.write(part), lambda _: True)
            assert mounted.response(never)["status"] == "REJECTED"
    assert mounted.response(slow)["status"] == "COMPLETED"


def test_a_kill_of_the_daemons_costs_a_lease_at_most(mounted: Mounted, room: Room) -> None:
    id_, _ = room.request()
    end = room.directory / id_
    lasts = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": f"await {end}"})
    (mounted.served / "incoming" / f"{id_}.json").write_text(lasts)
    mounted.until(lambda: attempts(mounted, id_))
    mounted.daemons.send_signal(signal.SIGKILL)
    mounted.daemons.wait()
    before = max(attempts(mounted, id_))
    mounted.daemons = mounted.start()
    mounted.until(lambda: max(attempts(mounted, id_), default=0) > before)
    end.touch()
    assert mounted.response(id_)["status"] == "COMPLETED"


def attempts(mounted: Mounted, id_: str) -> list[int]:
    """Return the attempt numbers of a running submission. A machine that stands still costs an attempt too."""
    entries = map(parse_entry, os.listdir(mounted.served / "running"))
    return [entry.attempt for entry in entries if entry and entry.id == id_]


def test_the_doctor_finds_it_fit(mounted: Mounted) -> None:
    bad = [each for each in doctor.examine(mounted.settings) if each.level in {"refused", "warning"}]
    # The kernel is the host's, which may lack these protections.
    assert [each.what for each in bad if each.what != protection.WHAT.name] == [lists.WHAT], "the loss is named"
    acl = msgspec.structs.replace(mounted.settings.spool, answers="acl")
    (found,) = [
        each for each in doctor.examine(msgspec.structs.replace(mounted.settings, spool=acl)) if each.what == lists.WHAT
    ]
    assert (found.level, found.detail) == ("warning", "no access control list can be set")


def test_a_server_that_is_killed_and_started_again_loses_nothing(mounted: Mounted, room: Room) -> None:
    """Answers are really lost: some of the operations under way were done, and some were not."""
    ids = []
    for number in range(20):
        id_, _ = room.request()
        nap = json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": f"nap 0.{number % 3}"})
        private = mounted.served / "incoming" / f".{id_}.tmp"
        private.write_text(nap)
        private.rename(mounted.served / "incoming" / f"{id_}.json")
        ids.append(id_)
    mounted.until((mounted.served / "done" / f"{ids[2]}.response.json").exists)
    mounted.server.kill()
    time.sleep(1)
    mounted.server.start()
    assert {mounted.response(id_)["status"] for id_ in ids} == {"COMPLETED"}
    mounted.until(lambda: not os.listdir(mounted.served / "incoming"))
    mounted.until(lambda: not os.listdir(mounted.served / "running"))
