"""The client library over ssh: through a shell account and through the gateway, over one connection."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold import client
from spoold.cli import exits
from spoold.client import names, ssh
from spoold.client.gateway import Gateway
from tests.engines import REPOSITORY
from tests.remote.room import GATEWAY, Room, User

NAP = client.program({"run.sh": "true"}, "nap 600")


def hello(number: int = 0, **options: object) -> client.Request:
    return client.program({"run.sh": f"echo {number}"}, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def gateway_keys(room: Room, ann: User) -> None:
    installed = room.directory / "gateway-of-clients"
    shutil.copy(GATEWAY, installed)
    installed.chmod(0o755)
    for name in ("lib-one", "lib-two"):
        room.authorize(ann, name, f'command="{installed} --spool {room.spool} --name {name}",restrict')


@pytest.fixture
def reach(room: Room, ann: User, gateway_keys: None) -> Iterator[Callable[..., client.Spool]]:
    """Yield a function that makes a spool of an address and a key. All are closed at the end."""
    made: list[client.Spool] = []

    def connect(kind: str = "shell", key: str = "", user: User = ann) -> client.Spool:
        path = str(room.spool) if kind == "shell" else ""
        key = key or (user.name if kind == "shell" else "lib-one")
        where = f"ssh://{user.name}@127.0.0.1:{room.port}{path}"
        made.append(client.Spool(where, ssh=["ssh", *room.options(key)]))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_what_a_client_does(room: Room, reach: Callable[..., client.Spool], kind: str) -> None:
    spool = reach(kind)
    submission = spool.submit(hello(), stem="over-ssh")
    response = spool.wait(submission, 60)
    assert (response.status, response.id) == ("COMPLETED", submission.id)
    assert spool.status(submission.id) == response
    assert spool.wait(submission.id, 60) == response
    assert spool.status("nobody") is None
    long = spool.submit(NAP)
    with pytest.raises(client.TimedOutError):
        spool.wait(long, 0.1)
    room.until(lambda: (spool.status(long.id) or response).status == "RUNNING")
    spool.cancel(long)
    assert spool.wait(long, 60).status == "CANCELLED"


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_many_go_over_one_connection(room: Room, reach: Callable[..., client.Spool], kind: str) -> None:
    log = room.directory / "sshd.log"
    spool = reach(kind)
    before = log.read_text().count("Accepted publickey")
    found = list(spool.map((hello(number) for number in range(12)), bound=8, timeout=100))
    assert [each.status for each in found] == ["COMPLETED"] * 12
    assert len({each.id for each in found}) == 12
    assert log.read_text().count("Accepted publickey") - before <= 1


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_files_that_came_back(reach: Callable[..., client.Spool], kind: str, tmp_path: Path) -> None:
    spool = reach(kind)
    submission = spool.submit(hello(outputs=[{"path": "*"}]))
    response = spool.wait(submission, 60)
    assert response.outputs_tar
    found = spool.outputs(submission)
    assert {name: len(data) for name, data in found.items()} == {
        each.name: each.size for each in response.outputs or []
    }
    assert sorted(spool.save(submission, tmp_path / "here")) == sorted(found)
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == found


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_an_id_that_is_used(reach: Callable[..., client.Spool], kind: str) -> None:
    spool = reach(kind)
    id_ = names.new_id("chosen")
    first = spool.wait(spool.submit(hello(1), id=id_), 60)
    again = spool.wait(spool.submit(hello(1), id=id_), 60)
    assert again == first, "the same request is the same submission"
    other = spool.submit(hello(2), id=id_)
    if kind == "shell":
        assert "used already" in str(spool.wait(other, 60).reason)
    else:
        with pytest.raises(client.AnswerError, match="answers another request"):
            spool.wait(other, 60)


def test_another_users(reach: Callable[..., client.Spool], bob: User) -> None:
    mine, theirs = reach(), reach(user=bob)
    submission = mine.submit(hello())
    assert mine.wait(submission, 60).ok
    with pytest.raises(client.AnswerError, match="belongs to another user"):
        theirs.status(submission.id)
    with pytest.raises(client.AnswerError, match="belongs to another user"):
        theirs.wait(submission.id, 60)
    taken = theirs.submit(hello(), id=submission.id)
    assert theirs.wait(taken, 60).status == "REJECTED"


def test_a_key_for_the_gateway_is_found_out_where_a_path_is_named(reach: Callable[..., client.Spool]) -> None:
    spool = reach("shell", "lib-two")
    assert isinstance(spool.transport, Gateway)
    submission = spool.submit(hello())
    assert submission.id.startswith("lib-two.job-")
    assert spool.wait(submission, 60).ok


def test_a_connection_that_ends_is_made_anew(reach: Callable[..., client.Spool]) -> None:
    spool = reach()
    submission = spool.submit(hello())
    connection = spool.transport._connection  # type: ignore[attr-defined]
    socket = os.path.join(connection._place, "ssh")
    (master,) = pids_of(socket)
    os.kill(master, 9)
    assert spool.wait(submission, 60).ok
    assert spool.wait(spool.submit(hello()), 60).ok


def pids_of(socket: str) -> list[int]:
    """Return the ssh masters whose command line names a socket."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                words = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if socket.encode() in words and b"-M" in words.split(b"\0"):
                found.append(int(each.name))
    return found


def test_nothing_is_left_when_it_is_closed(reach: Callable[..., client.Spool]) -> None:
    spool = reach()
    place = spool.transport._connection._place  # type: ignore[attr-defined]
    assert pids_of(place)
    spool.close()
    spool.close()
    assert not os.path.exists(place)


def test_what_cannot_be_reached_says_why(room: Room, reach: Callable[..., client.Spool], ann: User) -> None:
    options = ["ssh", *room.options(ann.name)]
    with pytest.raises(client.UnreachableError, match="holds no spool"):
        client.Spool(f"ssh://{ann.name}@127.0.0.1:{room.port}/nonexistent", ssh=options)
    with pytest.raises(client.UnreachableError, match="denied"):
        client.Spool(f"ssh://nobody@127.0.0.1:{room.port}{room.spool}", ssh=options)
    with pytest.raises(client.UnreachableError, match="install OpenSSH"):
        client.Spool("ssh://host/x", ssh=["/nonexistent/ssh"])


@pytest.mark.parametrize(
    "where", ["ssh://-oProxyCommand=x/y", "ssh://a b/c", "ssh://h:x/y", "ssh:///x", "ssh://-l@h/x", "ssh://h/a%0Ab"]
)
def test_an_address_is_no_option_of_ssh(where: str) -> None:
    with pytest.raises(client.UnreachableError, match="not the address of a spool"):
        ssh.parse(where)


def test_an_address() -> None:
    connection, path = ssh.parse("ssh://me@[::1]:2222/srv/a%20spool/", ["ssh", "-q"])
    assert (connection._to, path) == (["-l", "me", "-p", "2222", "::1"], "/srv/a spool")
    assert "'/srv/a '\"'\"'spool'" in ssh.command(ssh.PROBE, "/srv/a 'spool")


@pytest.mark.parametrize("script", [ssh.PROBE, ssh.DROP, ssh.ANSWERS, ssh.READ, ssh.DROPPED, ssh.LOOK, ssh.CANCEL])
def test_a_script_is_one_line_for_whatever_shell(script: str) -> None:
    assert not set("'!\n") & set(script)
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_a_spool_with_odd_letters_in_its_path(tmp_path: Path) -> None:
    """No other host takes part. sh gets the command line that ssh would pass on."""
    root = tmp_path / "a 'spool' $HOME \"x\""
    for name in ("incoming", "done", "progress"):
        (root / name).mkdir(parents=True)
    shell = tmp_path / "ssh"
    shell.write_text(f'#!{sys.executable}\nimport os, sys\nos.execvp("sh", ["sh", "-c", sys.argv[-1]])\n')
    shell.chmod(0o755)
    spool = client.Spool(f"ssh://host{root}".replace(" ", "%20").replace('"', "%22"), ssh=[str(shell)])
    submission = spool.submit(b"{}", id="x")
    assert (root / "incoming" / "x.json").read_bytes() == b"{}"
    assert os.listdir(root / "incoming") == ["x.json"]
    with pytest.raises(client.TimedOutError):
        spool.wait(submission, 0.05)
    (root / "incoming" / "x.json").unlink()
    (root / "done" / "x.response.json").write_text('{"status": "COMPLETED"}')
    assert spool.wait(submission, 60).ok
    assert spool.status("x") == submission.response
    spool.cancel("x")
    (cancel,) = (root / "incoming").iterdir()
    assert cancel.read_text() == "x\n"
    spool.close()


def test_an_answer_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    done = ssh.Connection._once(["sh", "-c", "cat /dev/zero"], b"", 1000)
    assert len(done.out) == 1001
    done = ssh.Connection._once(["sh", "-c", "cat; echo x >&2; exit 3"], b"data", 1000)
    assert done == (3, b"data", b"x\n")


def test_who_is_cut_off_drops_nothing(tmp_path: Path) -> None:
    """Fewer bytes arrive than were announced. The file never gets its name, and is removed."""
    (tmp_path / "incoming").mkdir()
    command = ssh.command(ssh.DROP, str(tmp_path), "x", "9")
    done = subprocess.run(["sh", "-c", command], input=b"{", check=False, capture_output=True)
    assert done.returncode != 0
    assert os.listdir(tmp_path / "incoming") == []


def test_the_other_host_is_asked_less_and_less_often(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    command = ssh.command(ssh.ANSWERS, str(tmp_path), "0.01", "0.01", "0")
    done = subprocess.run(["sh", "-c", command], input=b"a\nb\n", check=True, capture_output=True)
    assert done.stdout == b""
    (tmp_path / "done" / "b").touch()
    done = subprocess.run(["sh", "-c", command], input=b"a\nb\n", check=True, capture_output=True)
    assert done.stdout == b"r b\n"


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_people_run_list_fetch_and_build_ahead_through_ssh(
    room: Room, ann: User, gateway_keys: None, tmp_path: Path, kind: str
) -> None:
    key, path = (ann.name, room.spool) if kind == "shell" else ("lib-one", "")
    environment = os.environ | {
        "SPOOLD_SSH": " ".join(["ssh", *room.options(key)]),
        "SPOOLD_SPOOL": f"ssh://{ann.name}@127.0.0.1:{room.port}{path}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(REPOSITORY),
    }

    def ctl(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "spoold.cli.ctl", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, stdin=-3, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout.decode()

    (tmp_path / "hello.py").write_text("print(42)")
    response = json.loads(ctl("run", "hello.py", "--output", "*", "--json"))
    assert response["status"] == "COMPLETED"
    ours = {file["name"]: file["size"] for file in response["outputs"]}
    assert {name: (tmp_path / name).stat().st_size for name in ours} == ours
    (row,) = json.loads(ctl("list", "--json"))["submissions"]
    id_ = row["Submission_id"]
    assert (row["state"], row["name"]) == ("COMPLETED", "hello.py")
    assert id_.startswith("hello-" if kind == "shell" else "lib-one.hello-")
    assert ctl("logs", id_) == ctl("logs", "-f", id_) == response["run"]["stdout"]
    ctl("outputs", id_, "-C", "to")
    assert {path.name: path.stat().st_size for path in (tmp_path / "to").iterdir()} == ours
    assert json.loads(ctl("wait", "--any", id_, "nobody", "--json"))["Submission_id"] == id_

    (tmp_path / "cutor.nix").write_text(f"# {kind}")
    (build,) = json.loads(ctl("deps", "build", "cutor.nix", "--wait", "--json"))["builds"]
    assert (build["response"]["status"], build["sources"]) == ("COMPLETED", ["cutor.nix"])
    assert build["build_id"]


@pytest.mark.parametrize("kind", ["shell", "gateway"])
def test_a_batch_through_ssh_is_interrupted_and_goes_on(
    room: Room, ann: User, gateway_keys: None, tmp_path: Path, kind: str
) -> None:
    """No submission is lost, and none is run twice."""
    key, path = (ann.name, room.spool) if kind == "shell" else ("lib-two", "")
    environment = os.environ | {
        "SPOOLD_SSH": " ".join(["ssh", *room.options(key)]),
        "SPOOLD_SPOOL": f"ssh://{ann.name}@127.0.0.1:{room.port}{path}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(REPOSITORY),
    }
    gate = room.directory / f"gate-{kind}"  # most jobs wait for it
    lines = [
        {
            "name": f"{kind}-batch{n}",
            "request": client.program({"run.sh": f"echo {n}"}, "" if n < 8 else f"await {gate}"),
        }
        for n in range(12)
    ]
    (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    line = [sys.executable, "-m", "spoold.cli.ctl", "batch", str(tmp_path / "list.jsonl"), "--jobs", "4", "--json"]

    def known() -> set[str]:
        entries = (room.spool / "done").glob(f"*{kind}-batch*.json")
        return {entry.name for entry in entries if not entry.name.endswith(".response.json")}

    null = subprocess.DEVNULL
    with subprocess.Popen(line, env=environment, stdout=null, stderr=null) as running:
        room.until(lambda: len(known()) >= 3)
        running.send_signal(signal.SIGINT)  # SIGKILL would leave the connection open until its idle time is over
    assert running.returncode == exits.INTERRUPTED
    gate.touch()
    done = subprocess.run(line, env=environment, capture_output=True, check=False, stdin=null)
    assert done.returncode == exits.OK, done.stderr
    found = [json.loads(each) for each in done.stdout.splitlines()]
    assert {each["name"]: each["response"]["status"] for each in found} == {each["name"]: "COMPLETED" for each in lines}
    assert len(known()) == 12
    again = subprocess.run(line, env=environment, capture_output=True, check=False, stdin=null)
    assert (again.returncode, b"12 had been run before" in again.stderr) == (exits.OK, True), again.stderr
    assert len(known()) == 12


def test_the_command_goes_through_ssh_as_well(room: Room, ann: User, tmp_path: Path) -> None:
    words = " ".join(["ssh", *room.options(ann.name)])
    environment = os.environ | {
        "SPOOLD_SSH": words,
        "TMPDIR": str(room.directory),
        "SPOOLD_SPOOL": f"ssh://{ann.name}@127.0.0.1:{room.port}{room.spool}",
    }
    (tmp_path / "r.json").write_text(json.dumps(hello()))

    def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "spoold.cli.ctl", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = ctl("submit", str(tmp_path / "r.json"), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    id_ = json.loads(done.stdout)["Submission_id"]
    assert json.loads(ctl("status", id_, "--json").stdout)["status"] == "COMPLETED"
    assert "COMPLETED" in ctl("status", id_).stdout
    assert "nothing is known" in ctl("status", "nobody").stderr
    assert ctl("--spool", "ssh://nobody@127.0.0.1:9/x", "status", id_).returncode == exits.SERVICE
    assert not [name for name in os.listdir(room.directory) if name.startswith("spoold-ssh")], "no socket is left"
