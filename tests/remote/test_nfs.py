"""Clients that mount the spool through NFS, from a real server: dropping, polling, reading, and their rights.

The daemons run on the server's host. contrib/docs/operator.md tells what the caches of clients' kernels would add.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import nfs_rs
import pytest

from tests.names import named
from tests.remote import nfs
from tests.remote.nfs import Client
from tests.remote.room import PATIENCE, SETTLE, Room, User, fixtures
from tests.remote.slow import Write

HOUR_NS = 3600 * 10**9
REFUSED = (nfs_rs.NfsError, OSError)


room, ann, bob = fixtures("owner", "module")  # answers are given away, because the server ignores access control lists


@pytest.fixture(scope="module")
def connect(room: Room) -> Iterator[Callable[[User], Client]]:
    """Yield a function that makes a client for a user. Each user has one client."""
    with nfs.serving(room.spool, room.directory / "nfs") as server, contextlib.ExitStack() as stack:
        made: dict[int, Client] = {}

        def client(user: User) -> Client:
            if user.uid not in made:
                made[user.uid] = server.client(user.uid, user.gid)
                stack.callback(made[user.uid].raw.close)
            return made[user.uid]

        yield client


@pytest.fixture
def anns(connect: Callable[[User], Client], ann: User) -> Client:
    return connect(ann)


@pytest.fixture
def bobs(connect: Callable[[User], Client], bob: User) -> Client:
    return connect(bob)


def fetch(client: Client, id_: str) -> dict[str, Any]:
    """Poll for a response, like a client that has only the file system."""
    path = f"/done/{id_}.response.json"
    deadline = time.monotonic() + PATIENCE
    while not client.exists(path):
        assert time.monotonic() < deadline, f"{id_}: no response"
        time.sleep(0.05)
    return dict(json.loads(client.read(path)))


def in_place(client: Client, id_: str, data: bytes) -> None:
    client.put(f"/incoming/{id_}.json", data)


def by_rename(client: Client, id_: str, data: bytes) -> None:
    client.put(f"/incoming/.{id_}.tmp", data)
    client.rename(f"/incoming/.{id_}.tmp", f"/incoming/{id_}.json")


def by_link(client: Client, id_: str, data: bytes) -> None:
    """Write a private file, link it to the final name, and unlink the private name."""
    client.put(f"/incoming/.{id_}.tmp", data)
    client.link(f"/incoming/.{id_}.tmp", f"/incoming/{id_}.json")
    client.unlink(f"/incoming/.{id_}.tmp")


@pytest.mark.parametrize("drop", [in_place, by_rename, by_link])
def test_drop_poll_and_read(room: Room, ann: User, anns: Client, drop: Callable[[Client, str, bytes], None]) -> None:
    id_, data = room.request(300_000)
    drop(anns, id_, data)
    assert fetch(anns, id_)["status"] == "COMPLETED"
    room.assert_completed(id_, ann, data)
    with pytest.raises(FileNotFoundError):
        anns.raw.stat(f"/incoming/{id_}.json")  # the client sees that it is gone


def test_one_after_the_other_and_all_at_once(room: Room, anns: Client) -> None:
    """The daemons remove names on the server. No later name vanishes by that."""
    names = []
    for _ in range(10):
        id_, data = room.request()
        in_place(anns, id_, data)
        assert fetch(anns, id_)["status"] == "COMPLETED"
    for _ in range(30):
        id_, data = room.request()
        by_rename(anns, id_, data)
        names.append(id_)
    assert {fetch(anns, id_)["Submission_id"] for id_ in names} == set(names)


def test_a_slow_writer(room: Room, ann: User, anns: Client) -> None:
    @contextlib.contextmanager
    def uploading(name: str) -> Iterator[Write]:
        with anns.open(f"/incoming/{name}", "wb") as file:
            yield lambda part, offset: anns.write_at(file, part, offset)

    room.upload_slowly(ann, uploading)


def test_a_writer_that_stops_in_the_middle_is_given_up(room: Room, anns: Client) -> None:
    """Its file is still open. No server could tell this writer from one that only pauses."""
    id_, data = room.request(2000)
    with room.settling(SETTLE), anns.open(f"/incoming/{id_}.json", "wb") as file:
        anns.write_at(file, data[:1000], 0)
        answer = fetch(anns, id_)
    assert answer["status"] == "REJECTED"
    assert "without a change" in answer["reason"]


def test_what_is_written_after_it_was_whole_changes_nothing(room: Room, ann: User, anns: Client) -> None:
    """The client keeps the file open, and a handle works without a name."""
    id_, data = room.request(2000)
    with anns.open(f"/incoming/{id_}.json", "wb") as file:
        anns.write_at(file, data, 0)
        room.until((room.spool / "done" / f"{id_}.json").exists)
        with contextlib.suppress(*REFUSED):  # a server may have closed the removed file
            anns.write_at(file, b"X" * 100, 0)
    room.assert_completed(id_, ann, data)


@pytest.mark.parametrize("skew", [-HOUR_NS, HOUR_NS])
def test_the_times_that_a_client_sets_change_nothing(room: Room, ann: User, anns: Client, skew: int) -> None:
    """The client's clock may be an hour off, and `cp -p` copies such times."""
    whole, data = room.request()
    part, half = room.request()
    now = time.time_ns() + skew
    with room.settling(SETTLE):
        began = time.monotonic()
        for id_, content in ((whole, data), (part, half[: len(half) // 2])):
            anns.put(f"/incoming/.{id_}.tmp", content)
            anns.utime(f"/incoming/.{id_}.tmp", ns=now)
            anns.rename(f"/incoming/.{id_}.tmp", f"/incoming/{id_}.json")
        room.assert_completed(whole, ann, data)
        assert fetch(anns, part)["status"] == "REJECTED"
        assert time.monotonic() - began >= SETTLE * 0.9, "it has its settle time, whatever its mtime says"


def test_cancelling(room: Room, ann: User, anns: Client) -> None:
    id_ = room.request()[0]
    nap = {"files": [{"name": "run.sh", "content": "true"}], "inputs": "nap 600"}
    in_place(anns, id_, json.dumps(nap).encode())
    room.until((room.spool / "running" / named(id_, owner=ann.uid)).exists)
    anns.put(f"/incoming/{id_}.cancel", id_.encode())
    assert fetch(anns, id_)["status"] == "CANCELLED"


# -- rights: the server applies the uid in each request


def test_users_are_strangers(room: Room, ann: User, anns: Client, bobs: Client) -> None:
    id_, data = room.request()
    path = f"/incoming/{id_}.json"
    with room.stopped():
        in_place(anns, id_, data)
        anns.chmod(path, 0o600)  # this client has no umask
        bobs.put(f"/incoming/.{id_}.bob.tmp", b"{}")
        for attempt in (
            lambda: bobs.unlink(path),
            lambda: bobs.rename(f"/incoming/.{id_}.bob.tmp", path),
            lambda: bobs.rename(path, "/incoming/mine.json"),
            lambda: bobs.put(path, b"x", mode="r+b"),
            lambda: bobs.read(path),
            lambda: bobs.names("/incoming"),
        ):
            with pytest.raises(REFUSED):
                attempt()
        bobs.unlink(f"/incoming/.{id_}.bob.tmp")
    room.assert_completed(id_, ann, data)
    for directory in ("/done", "/new", "/tmp"):
        with pytest.raises(REFUSED):
            bobs.names(directory)
    for name in (f"/done/{id_}.response.json", f"/done/{id_}.json"):
        with pytest.raises(REFUSED):
            bobs.read(name)
    with pytest.raises(REFUSED):
        anns.unlink(f"/done/{id_}.response.json")


def test_a_link_to_anothers_file_is_refused(room: Room, ann: User, anns: Client, bobs: Client) -> None:
    """NFS has no protected_hardlinks: a server lets any user link a file that they can name."""
    id_, data = room.request()
    other, _ = room.request()
    in_place(anns, id_, data)
    room.assert_completed(id_, ann, data)
    try:
        bobs.link(f"/done/{id_}.response.json", f"/incoming/{other}.json")
    except REFUSED:
        return  # this server refuses it
    with room.settling(SETTLE):
        room.until((room.spool / "done" / f"{other}.response.json").exists)
    answer = json.loads((room.spool / "done" / f"{other}.response.json").read_bytes())
    assert answer["status"] == "REJECTED"
