"""Clients on other hosts with ssh alone: every way to write a file, slowly, cut off, resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.pages import shell_client
from tests.remote.room import PATIENCE, SETTLE, Room, User
from tests.remote.slow import Write

LARGE = 8 << 20  # bytes: more than the pipes and sockets on the way hold
KBIT, KBYTE = "2000", "250"  # a second, so an upload takes half a minute and is cut off before its end
Upload = Callable[[Room, User, Path, str], list[str]]


def by_cat(room: Room, user: User, file: Path, target: str) -> list[str]:
    ssh = ["ssh", *room.options(user.name), "-p", str(room.port), f"{user.name}@127.0.0.1"]
    return ["sh", "-c", '"$@" <"$0"', str(file), *ssh, f"cat >{target}"]


def by_scp(room: Room, user: User, file: Path, target: str) -> list[str]:
    return ["scp", "-q", *room.options(user.name), "-P", str(room.port), str(file), f"{user.name}@127.0.0.1:{target}"]


def by_old_scp(room: Room, user: User, file: Path, target: str) -> list[str]:
    return [*by_scp(room, user, file, target)[:1], "-O", *by_scp(room, user, file, target)[1:]]


def by_sftp(room: Room, user: User, file: Path, target: str, word: str = "put") -> list[str]:
    sftp = ["sftp", "-q", "-b", "-", *room.options(user.name), "-P", str(room.port), f"{user.name}@127.0.0.1"]
    return ["sh", "-c", 'echo "$0" | "$@"', f"{word} {file} {target}", *sftp]


def by_rsync(room: Room, user: User, file: Path, target: str, *more: str) -> list[str]:
    ssh = " ".join(["ssh", *room.options(user.name), "-p", str(room.port)])
    return ["rsync", *more, "-e", ssh, str(file), f"{user.name}@127.0.0.1:{target}"]


def by_rsync_in_place(room: Room, user: User, file: Path, target: str) -> list[str]:
    return by_rsync(room, user, file, target, "--inplace")


def by_rename(room: Room, user: User, file: Path, target: str) -> list[str]:
    """Upload in the way that the spec recommends."""
    private = f"{target.rpartition('/')[0]}/.{file.name}.tmp"
    ssh = ["ssh", *room.options(user.name), "-p", str(room.port), f"{user.name}@127.0.0.1"]
    return ["sh", "-c", '"$@" <"$0"', str(file), *ssh, f"cat >{private} && mv {private} {target}"]


def by_cp(room: Room, user: User, file: Path, target: str) -> list[str]:
    """Copy on the host itself."""
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "cp", str(file), target]


WAYS = [by_cp, by_cat, by_rename, by_scp, by_old_scp, by_sftp, by_rsync, by_rsync_in_place]


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    # With --inplace and --append, rsync still works on a file that is whole already, which intake may take.
    was_taken = command[0] == "rsync" and done.returncode == 23 and b"No such file" in done.stderr
    assert done.returncode == 0 or was_taken, done.stderr.decode()


@pytest.mark.parametrize("upload", WAYS)
def test_every_way_to_write_a_file(room: Room, ann: User, upload: Upload) -> None:
    id_, data = room.request(100_000)
    run(upload(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    room.assert_completed(id_, ann, data)


def test_the_client_of_the_spec_needs_scp_and_ssh_only(room: Room, ann: User) -> None:
    id_, data = room.request()
    run(by_scp(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    done = room.in_spool(f"done/{id_}.response.json")
    got = room.ssh(ann, "127.0.0.1", f"until cat '{done}' 2>/dev/null; do sleep 0.2; done")
    assert b"COMPLETED" in got.stdout


# -- slow


@contextlib.contextmanager
def into(room: Room, user: User, target: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes to a file through ssh."""
    command = ["ssh", *room.options(user.name), "-p", str(room.port), f"{user.name}@127.0.0.1", f"cat >{target}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as client:

        def write(data: bytes) -> None:
            assert client.stdin
            client.stdin.write(data)
            client.stdin.flush()

        yield write
    assert client.returncode == 0


def test_an_upload_may_take_long_under_its_final_name(room: Room, ann: User) -> None:
    """It takes longer than the settle time, but no pause does."""

    @contextlib.contextmanager
    def uploading(name: str) -> Iterator[Write]:
        with into(room, ann, room.in_spool(f"incoming/{name}")) as write:
            yield lambda part, _: write(part)

    room.upload_slowly(ann, uploading)


def test_an_upload_that_rests_longer_than_the_settle_time_is_given_up(room: Room, ann: User) -> None:
    id_, data = room.request(2000)
    with room.settling(SETTLE), into(room, ann, room.in_spool(f"incoming/{id_}.json")) as write:
        write(data[:1000])
        answer = room.response(id_, ann)
        write(data[1000:])
    assert room.response(id_, ann) == answer
    assert answer["status"] == "REJECTED"
    assert f"after {SETTLE:g} s without a change" in answer["reason"]


# -- cut off


def cut_off(room: Room, id_: str, command: Sequence[str]) -> None:
    """Kill an upload when a part of the file is there, under any name."""
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    incoming = room.spool / "incoming"
    room.until(lambda: any(0 < path.stat().st_size < LARGE for path in incoming.glob(f"*{id_}*")))
    subprocess.run(["kill", "-KILL", "--", f"-{client.pid}"], check=True)  # ssh, scp, and their children
    assert client.wait() == -signal.SIGKILL


def slow_cat(room: Room, user: User, file: Path, target: str) -> list[str]:
    ssh = ["ssh", *room.options(user.name), "-p", str(room.port), f"{user.name}@127.0.0.1"]
    return ["sh", "-c", '(head -c 1000000 "$0"; sleep 60) | "$@"', str(file), *ssh, f"cat >{target}"]


def slow_scp(room: Room, user: User, file: Path, target: str) -> list[str]:
    scp, *rest = by_scp(room, user, file, target)
    return [scp, "-l", KBIT, *rest]


def slow_old_scp(room: Room, user: User, file: Path, target: str) -> list[str]:
    scp, *rest = by_old_scp(room, user, file, target)
    return [scp, "-l", KBIT, *rest]


def slow_sftp(room: Room, user: User, file: Path, target: str) -> list[str]:
    shell, option, script, text, sftp, *rest = by_sftp(room, user, file, target)
    return [shell, option, script, text, sftp, "-l", KBIT, *rest]


def slow_rsync_in_place(room: Room, user: User, file: Path, target: str) -> list[str]:
    return by_rsync(room, user, file, target, "--inplace", f"--bwlimit={KBYTE}")


def slow_rsync_partial(room: Room, user: User, file: Path, target: str) -> list[str]:
    return by_rsync(room, user, file, target, "--partial", f"--bwlimit={KBYTE}")


CUT_OFF = [slow_cat, slow_scp, slow_old_scp, slow_sftp, slow_rsync_in_place, slow_rsync_partial]


def test_an_upload_that_was_cut_off_is_no_submission(room: Room, ann: User) -> None:
    """It lies there under its final name. Only a parser can tell that it is not whole."""

    def begin_with(upload: Upload) -> str:
        id_, data = room.request(LARGE)
        cut_off(room, id_, upload(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
        return id_

    with ThreadPoolExecutor(len(CUT_OFF)) as together:
        ids = list(together.map(begin_with, CUT_OFF))
    with room.settling(SETTLE):
        for id_, upload in zip(ids, CUT_OFF, strict=True):
            answer = room.response(id_, ann)
            assert answer["status"] == "REJECTED", upload
            assert "without a change" in answer["reason"]
            room.until(lambda file=room.spool / "incoming" / f"{id_}.json": not file.exists())  # type: ignore[misc] # mypy cannot infer it


def test_rsync_leaves_nothing_when_it_is_cut_off(room: Room, ann: User) -> None:
    id_, data = room.request(LARGE)
    upload = by_rsync(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json"), f"--bwlimit={KBYTE}")
    cut_off(room, id_, upload)
    room.until(lambda: not list((room.spool / "incoming").glob(f"*{id_}*")))
    later, data = room.request()
    run(by_scp(room, ann, room.file(later, data), room.in_spool(f"incoming/{later}.json")))
    room.assert_completed(later, ann, data)
    assert not (room.spool / "done" / f"{id_}.json").exists()


# -- resumed


def sftp_again(room: Room, user: User, file: Path, target: str) -> list[str]:
    return by_sftp(room, user, file, target, word="reput")


def rsync_again(room: Room, user: User, file: Path, target: str) -> list[str]:
    return by_rsync(room, user, file, target, "--partial", "--append")


@pytest.mark.parametrize(
    ("begin", "resume"), [(slow_sftp, sftp_again), (slow_rsync_partial, rsync_again)], ids=["sftp reput", "rsync"]
)
def test_an_upload_is_resumed_within_the_settle_time(room: Room, ann: User, begin: Upload, resume: Upload) -> None:
    id_, data = room.request(LARGE)
    file, target = room.file(id_, data), room.in_spool(f"incoming/{id_}.json")
    cut_off(room, id_, begin(room, ann, file, target))
    path = room.spool / "incoming" / f"{id_}.json"
    room.until(path.exists)
    assert path.stat().st_size < len(data)
    run(resume(room, ann, file, target))
    room.assert_completed(id_, ann, data)


# -- two users


def test_nobody_can_look_into_the_spool(room: Room, ann: User) -> None:
    for directory in (".", "incoming", "done", "progress", "new", "running", "tmp"):
        assert room.ssh(ann, "127.0.0.1", "ls", room.in_spool(directory)).returncode != 0


def test_what_another_dropped_can_be_neither_removed_nor_replaced(room: Room, ann: User, bob: User) -> None:
    id_, data = room.request()
    theirs, mine = room.in_spool(f"incoming/{id_}.json"), room.in_spool(f"incoming/.{id_}.tmp")
    with room.stopped():
        run(by_scp(room, ann, room.file(id_, data), theirs))
        room.ssh(bob, "127.0.0.1", f"cat >{mine}", data=b"{}")
        for command in (
            f"rm -f {theirs}",
            f"mv -f {mine} {theirs}",
            f"mv -f {theirs} {mine}",
            f"echo x >>{theirs}",
            f"echo x >{theirs}",
            f"chmod 0 {theirs}",
            f"ls {room.in_spool('incoming')}",
        ):
            assert room.ssh(bob, "127.0.0.1", command).returncode != 0, command
        assert Path(theirs).read_bytes() == data
        # They cannot read it either, if its owner's umask says so.
        assert room.ssh(ann, "127.0.0.1", f"chmod 600 {theirs}").returncode == 0
        assert room.ssh(bob, "127.0.0.1", f"cat {theirs}").returncode != 0
        Path(mine).unlink()
    room.assert_completed(id_, ann, data)


def test_anothers_response_cannot_be_read_or_removed(room: Room, ann: User, bob: User) -> None:
    id_, data = room.request()
    run(by_scp(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    room.assert_completed(id_, ann, data)
    path = room.in_spool(f"done/{id_}.response.json")
    for command in (f"cat {path}", f"rm -f {path}", f"mv {path} /tmp/", f"cat {room.in_spool(f'done/{id_}.json')}"):
        assert room.ssh(bob, "127.0.0.1", command).returncode != 0, command
    assert room.ssh(ann, "127.0.0.1", f"rm -f {path}").returncode != 0, "nor its owner: it goes with its entry"
    assert Path(path).exists()


# -- fetching


def as_user(user: User, *command: str) -> list[str]:
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", *command]


def fetch_by_scp(room: Room, user: User, source: str, target: Path) -> list[str]:
    return ["scp", "-q", *room.options(user.name), "-P", str(room.port), f"{user.name}@127.0.0.1:{source}", str(target)]


def fetch_by_old_scp(room: Room, user: User, source: str, target: Path) -> list[str]:
    return ["scp", "-O", "-p", *fetch_by_scp(room, user, source, target)[1:]]


def fetch_by_sftp(room: Room, user: User, source: str, target: Path) -> list[str]:
    return by_sftp(room, user, Path(source), str(target), word="get")


def fetch_by_rsync(room: Room, user: User, source: str, target: Path) -> list[str]:
    ssh = " ".join(["ssh", *room.options(user.name), "-p", str(room.port)])
    return ["rsync", "-a", "-e", ssh, f"{user.name}@127.0.0.1:{source}", str(target)]


def fetch_by_cp(room: Room, user: User, source: str, target: Path) -> list[str]:
    return as_user(user, "cp", source, str(target))


def fetch_by_cp_p(room: Room, user: User, source: str, target: Path) -> list[str]:
    return as_user(user, "cp", "-p", source, str(target))


def fetch_by_local_rsync(room: Room, user: User, source: str, target: Path) -> list[str]:
    return as_user(user, "rsync", "-aAX", source, str(target))


def fetch_by_tar(room: Room, user: User, source: str, target: Path) -> list[str]:
    return as_user(user, "sh", "-c", 'tar -cPf - "$0" | tar -xPOf - >"$1"', source, str(target))


FETCHES: list[Callable[[Room, User, str, Path], list[str]]] = [
    fetch_by_scp,
    fetch_by_old_scp,
    fetch_by_sftp,
    fetch_by_rsync,
    fetch_by_cp,
    fetch_by_cp_p,
    fetch_by_local_rsync,
    fetch_by_tar,
]


@pytest.mark.parametrize("fetch", FETCHES)
def test_every_way_to_fetch_a_response(
    room: Room, ann: User, bob: User, fetch: Callable[[Room, User, str, Path], list[str]]
) -> None:
    """Some programs look at modes, copy rights, or read by ssh.

    The daemons own the response, and its owner can read it.
    """
    id_, data = room.request()
    run(by_scp(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    room.assert_completed(id_, ann, data)
    path = room.spool / "done" / f"{id_}.response.json"
    for user in (ann, bob):
        home = room.directory / f"home-{id_}-{user.uid}"
        home.mkdir()
        os.chown(home, user.uid, user.gid)
        target = home / "response.json"
        command = fetch(room, user, str(path), target)
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        if user == ann:
            assert done.returncode == 0, done.stderr
            assert target.read_bytes() == path.read_bytes()
        else:
            assert not target.exists() or target.read_bytes() == b""


def test_anothers_id_is_refused_without_a_word_about_its_owner(room: Room, ann: User, bob: User) -> None:
    id_, data = room.request()
    run(by_scp(room, ann, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    room.assert_completed(id_, ann, data)
    run(by_scp(room, bob, room.file(id_, data), room.in_spool(f"incoming/{id_}.json")))
    room.until(lambda: list((room.spool / "done").glob(f"{id_}@{bob.uid}-*.refused.json")))
    (refused,) = (room.spool / "done").glob(f"{id_}@{bob.uid}-*.refused.json")
    assert room.ssh(bob, "127.0.0.1", f"cat {refused}").returncode == 0
    assert room.ssh(ann, "127.0.0.1", f"cat {refused}").returncode != 0


def test_the_client_of_the_spec_takes_no_other_answer_for_its_own(room: Room, ann: User, tmp_path: Path) -> None:
    (tmp_path / "client").write_text(shell_client("submit HOST SPOOL REQUEST.json").replace("id=job-", "id=$4 #"))
    for program, port in (("ssh", "-p"), ("scp", "-P")):
        options = shlex.join([*room.options(ann.name), port, str(room.port)])
        (tmp_path / program).write_text(f'#!/bin/sh\nexec {shutil.which(program)} {options} "$@"\n')
        (tmp_path / program).chmod(0o755)
    id_ = f"of-the-spec-{ann.uid}"

    def submit(data: bytes) -> dict[str, Any]:
        (tmp_path / "request.json").write_bytes(data)
        done = subprocess.run(
            ["sh", "-e", tmp_path / "client", f"{ann.name}@127.0.0.1", room.spool, tmp_path / "request.json", id_],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["request_sha256"] == hashlib.sha256(data).hexdigest()
        return answer

    first, other = (b'{"files": [{"name": "run.sh", "content": "echo %d"}]}' % number for number in (1, 2))
    assert submit(first)["status"] == "COMPLETED"
    assert "used already" in submit(other)["reason"]
    assert submit(first)["status"] == "COMPLETED"
