"""Each daemon as its own user, on one spool, with the capabilities of its unit. Clients are other users.

The engines are stand-ins, because these tests are about rights in the spool. contrib/development/vm tests real engines
under systemd.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.cli import misnaming
from spoold.config import ExecutorSettings, LeaseSettings, MetricsSettings, Settings, SpoolSettings
from spoold.host import strangers
from spoold.host.accounts import Accounts
from spoold.model.errors import OperatorError
from spoold.model.states import ALWAYS, Role
from spoold.spool import layout
from tests import engines
from tests.names import named
from tests.pages import shell_client
from tests.refusals import look, of_name
from tests.rights import assert_answer, in_child, run_as
from tests.stopped import stands_still
from tests.test_systemd import SERVICES, unit
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
PATIENCE = 100.0  # seconds
GROUP = 64_000  # belongs to no account of any system, and the kernel needs none
UIDS = {user: 64_001 + number for number, user in enumerate(layout.USERS.values())}
ALICE, BOB = 64_101, 64_102
HELLO = {"files": [{"name": "run.sh", "content": "echo hi"}]}


class Installed:
    """A spool as an installation has it, and its daemons.

    However busy the host is, daemons that live keep their leases, and intake gives up no file that a client still
    writes. Tests of files that never become complete use ``settles``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.spool = directory, directory / "spool"
        layout.create(str(self.spool), Accounts(GROUP, UIDS))
        self.settings = Settings(
            spool=SpoolSettings(path=str(self.spool), settle=30.0, scan=0.5),
            lease=LeaseSettings(renewal=0.2, limit=120.0, check=0.2, pause=0.1),
            executor=ExecutorSettings(slots=2, drain=0.1),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = (directory / "log").open("wb")

    def settles(self, seconds: float) -> None:
        """Let intake answer files that are no valid submission once they are ``seconds`` old."""
        spool = msgspec.structs.replace(self.settings.spool, settle=seconds)
        self.settings = msgspec.structs.replace(self.settings, spool=spool)

    def start(self, role: str, *, capabilities: Sequence[str] = (), **changes: object) -> subprocess.Popen[bytes]:
        """Start a daemon with the capabilities of its unit and ``capabilities``. Return when it is ready."""
        config, address = self.directory / f"{role}.toml", str(self.directory / "notify")
        settings = msgspec.structs.replace(self.settings, **changes)
        config.write_bytes(msgspec.toml.encode(msgspec.to_builtins(settings)))
        capabilities = [*unit(SERVICES[Role(role)])["Service"]["AmbientCapabilities"].split(), *capabilities]
        ids = [str(UIDS[layout.USERS[Role(role)]]), str(GROUP)]
        command = [sys.executable, "-m", "tests.as_user", str(config), role, *ids, *capabilities]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(address)
            Path(address).chmod(0o777)
            listener.settimeout(PATIENCE)
            env = os.environ | {"NOTIFY_SOCKET": address}
            process = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log)
            self.processes.append(process)
            assert listener.recv(100) == b"READY=1", self.said()
        Path(address).unlink()
        return process

    def stop(self) -> None:
        """Make all daemons drain and end. None of them may have lacked a right."""
        try:
            for process in self.processes:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            assert {process.wait(PATIENCE) for process in self.processes} <= {0, -signal.SIGKILL}, self.said()
            assert not {word for word in ("denied", "not permitted") if word in self.said()}, self.said()
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
            self.log.close()

    def said(self) -> str:
        return (self.directory / "log").read_text()[-5000:]

    def drop(self, uid: int, name: str, request: object = HELLO) -> None:
        """Drop a file like a client whose umask lets nobody else read it."""
        data = json.dumps(request)
        done = run_as(uid, f"umask 077; printf %s '{data}' > {self.spool}/incoming/{name}")
        assert done.returncode == 0, done.stderr

    def response(self, uid: int, id_: str) -> dict[str, Any]:
        path = self.spool / "done" / f"{id_}.response.json"
        try:
            until(path.exists)
        except AssertionError:
            raise AssertionError(self.said()) from None
        loaded: dict[str, Any] = json.loads(run_as(uid, f"cat {path}").stdout)
        return loaded


def written(incoming: Path) -> list[str]:
    """Return the names of the files that are not empty. A file that is taken meanwhile doesn't count."""
    found = []
    for path in incoming.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [path.name] if path.stat().st_size else []
    return found


@pytest.fixture
def installed() -> Iterator[Installed]:
    directory = Path(tempfile.mkdtemp(prefix="spoold-users."))  # other users can get there
    directory.chmod(0o711)
    made = Installed(directory)
    yield made
    made.stop()
    shutil.rmtree(directory)


def test_a_submission_goes_all_the_way_and_is_its_clients_alone(installed: Installed) -> None:
    for role in ("builder", "intake", "executor", "health"):
        installed.start(role)
    owners = {os.stat(f"/proc/{process.pid}").st_uid for process in installed.processes}
    assert owners == {UIDS[layout.USERS[role]] for role in ALWAYS}
    spool = installed.spool
    for uid, id_ in ((ALICE, "alice"), (BOB, "bob")):
        installed.drop(uid, f"{id_}.json")
    installed.drop(BOB, "wrong.json", {"fils": []})
    for uid, id_, status in ((ALICE, "alice", "COMPLETED"), (BOB, "bob", "COMPLETED"), (BOB, "wrong", "REJECTED")):
        assert installed.response(uid, id_)["status"] == status
        assert_answer(spool / "done" / f"{id_}.response.json", uid, shared=True)
        assert (spool / "done" / f"{id_}.response.json").stat().st_gid == GROUP
        assert stat.S_IMODE((spool / "done" / f"{id_}.json").stat().st_mode) == 0o660
    for directory in layout.DIRECTORIES:
        assert run_as(ALICE, f"ls {spool / directory.path}").returncode != 0, directory.path
    others = ("done/bob.response.json", "done/bob.json", "done/alice.json", "new/x", "builds/runtime.json")
    for name in others:
        assert run_as(ALICE, f"cat {spool}/{name}").returncode != 0, name
        assert run_as(ALICE, f"rm -f {spool}/{name} && touch {spool}/{name}").returncode != 0, name
    assert run_as(ALICE, f"rm -f {spool}/done/alice.response.json").returncode != 0


def test_what_one_user_left_another_ends(installed: Installed) -> None:
    """An executor stops holding its entry, health puts it back, an operator requeues it, and a client cancels."""
    for role in ("builder", "health"):
        installed.start(role)
    installed.start("intake", lease=LeaseSettings(renewal=PATIENCE, limit=2 * PATIENCE))  # a lease this long
    first = installed.start("executor")
    end = installed.directory / "end"
    installed.drop(ALICE, "held.json", HELLO | {"inputs": f"await {end}"})
    until(lambda: os.listdir(installed.spool / "running"))
    first.send_signal(signal.SIGSTOP)
    until(lambda: stands_still(first.pid))
    # so that the test need not wait for the end of the lease
    os.utime(installed.spool / "running" / named("held", 1, ALICE), (1, 1))
    installed.start("executor", executor=ExecutorSettings(name="two", slots=1, drain=0.1))
    until(lambda: os.listdir(installed.spool / "running") == [named("held", 2, ALICE)])
    end.touch()
    assert installed.response(ALICE, "held")["status"] == "COMPLETED"
    assert_answer(installed.spool / "done" / "held.response.json", ALICE, shared=True)
    ctl = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(installed.directory / "executor.toml")]
    subprocess.run([*ctl, "requeue", "held"], check=True, capture_output=True)
    assert installed.response(ALICE, "held")["status"] == "COMPLETED"
    installed.drop(BOB, "long.json", HELLO | {"inputs": "nap 60"})
    until(lambda: [name for name in os.listdir(installed.spool / "running") if name.startswith("long")])
    run_as(BOB, f"echo long >{installed.spool}/incoming/long.cancel")
    response = installed.response(BOB, "long")
    assert (response["status"], response["run"]["outcome"], response["run"]["stdout"]) == (
        "CANCELLED",
        "cancelled",
        "nap 60",
    )
    assert_answer(installed.spool / "done" / "long.response.json", BOB, shared=True)
    until(lambda: not os.listdir(installed.spool / "incoming"))
    assert not (installed.spool / "tmp" / "long.cancel").exists()
    found = subprocess.run([*ctl, "check", "--json"], check=True, capture_output=True)
    assert json.loads(found.stdout) == {"unexplained": []}


def test_a_builder_goes_on_with_what_its_former_life_held(installed: Installed) -> None:
    """The builder may not set the times of entries that another user made, so these are due at once."""
    held = f"{'a' * 64}@1.json"
    for role in ("intake", "executor"):
        installed.start(role)
    builder = installed.start("builder")
    expression = {"name": "cutor.nix", "content": "hangs"}
    installed.drop(ALICE, "waits.json", {"files": [*HELLO["files"], expression]})
    until(lambda: os.listdir(installed.spool / "builds/building"))
    builder.kill()
    builder.wait()
    (held,) = os.listdir(installed.spool / "builds/building")
    installed.start("builder")
    until(lambda: os.listdir(installed.spool / "builds/building") == [held.replace("@1", "@2")])


def test_root_who_tried_the_daemons_by_hand_leaves_nothing_in_their_way(installed: Installed) -> None:
    """An operator who looks for a fault starts a daemon as root. Later it runs as its own user again."""
    config = installed.directory / "by-hand.toml"
    config.write_bytes(msgspec.toml.encode(msgspec.to_builtins(installed.settings)))
    command = [sys.executable, "-m", "tests.idle", str(config), "intake,builder,executor,health", "info"]
    by_hand = subprocess.Popen(command, stdout=installed.log, stderr=installed.log)
    installed.drop(ALICE, "first.json")
    assert installed.response(ALICE, "first")["status"] == "COMPLETED"
    by_hand.terminate()
    assert by_hand.wait(PATIENCE) == 0
    for role in ALWAYS:
        installed.start(role)
    installed.drop(ALICE, "second.json")
    assert installed.response(ALICE, "second")["status"] == "COMPLETED"


FORGERIES = (
    "chmod 644 $f; echo '{}' >$f",
    "echo '{}' >>$f",
    "truncate -s 17G $f",
    "rm -f $f; echo '{}' >$f",
    "echo '{}' >own; mv -f own $f",
    "ln -sf /etc/passwd $f",
)


def test_an_answer_cannot_be_forged(installed: Installed) -> None:
    """The owner tries it by a shell. The operator sees the published answer."""
    for role in ("builder", "intake", "executor"):
        installed.start(role)
    installed.drop(ALICE, "wrong.json", {"fils": []})
    installed.drop(ALICE, "a.json")
    home = installed.directory / "home"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    ctl = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(installed.directory / "intake.toml")]
    for id_ in ("wrong", "a"):
        before = installed.response(ALICE, id_)
        path = installed.spool / "done" / f"{id_}.response.json"
        for forgery in FORGERIES:
            run_as(ALICE, f"cd {home}; f={path}; {forgery}")
            assert json.loads(path.read_bytes()) == before, forgery
        shown = subprocess.run([*ctl, "status", id_, "--json"], check=True, capture_output=True)
        assert (json.loads(shown.stdout), shown.stderr) == (before, b"")


def drop_in() -> dict[str, str]:
    """Return what the operator's page adds to units for answers that are given away."""
    page = (engines.REPOSITORY / "contrib/docs/operator.md").read_text()
    text = page.partition("answers-owner.conf <<'END'\n")[2].partition("\nEND\n")[0]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_answers_that_are_given_away(installed: Installed) -> None:
    """The units get what the drop-in of the operator's page adds, and nothing else."""
    more = drop_in()
    assert more["AmbientCapabilities"] == more["CapabilityBoundingSet"] == "CAP_CHOWN"
    installed.settings = msgspec.structs.replace(
        installed.settings, spool=msgspec.structs.replace(installed.settings.spool, answers="owner")
    )
    for role in ("builder", "intake", "executor", "health"):
        installed.start(role, capabilities=[] if role == "builder" else more["AmbientCapabilities"].split())
    installed.drop(ALICE, "a.json")
    installed.drop(ALICE, "wrong.json", {"fils": []})
    ctl = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(installed.directory / "health.toml")]
    for id_ in ("a", "wrong"):
        before = installed.response(ALICE, id_)
        path = installed.spool / "done" / f"{id_}.response.json"
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (ALICE, 0o400)
        shown = subprocess.run([*ctl, "status", id_, "--json"], check=True, capture_output=True)
        assert (json.loads(shown.stdout), shown.stderr) == (before, b"")
        forged = run_as(ALICE, f"chmod 600 {path} && echo '{{}}' >{path} && chmod 400 {path}")
        assert forged.returncode == 0, forged.stderr
        shown = subprocess.run([*ctl, "status", id_, "--json"], check=False, capture_output=True)
        told = json.loads(shown.stdout)
        assert (shown.returncode, told.keys()) == (1, {"error", "exit_code"})
        assert "its owner has changed it" in told["error"]


@pytest.mark.parametrize("path", ["done", "builds/new"])
def test_what_root_makes_of_the_spool_is_nothing_outside(installed: Installed, path: str) -> None:
    """A daemon that was taken over may put a link in place of a directory. Root doesn't follow it."""
    canary = installed.directory / "canary"
    canary.mkdir(mode=0o700)
    before = canary.stat()
    place = installed.spool / path
    place.rmdir()
    place.symlink_to(canary)
    with pytest.raises(OperatorError, match=f"{path} is a symbolic link"):
        layout.create(str(installed.spool), Accounts(GROUP, UIDS))
    after = canary.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    place.unlink()
    assert layout.create(str(installed.spool), Accounts(GROUP, UIDS)) == [str(place)]


def test_a_directory_that_a_client_closed(installed: Installed) -> None:
    installed.settles(0.3)
    installed.start("intake")
    make = "mkdir -p .x/deep/deeper && chmod 0 .x/deep .x && mv .x x.json"
    made = run_as(ALICE, f"cd {installed.spool}/incoming && {make}")
    assert made.returncode == 0, made.stderr
    assert installed.response(ALICE, "x")["status"] == "REJECTED"
    until(lambda: not (installed.spool / "incoming" / "x.json").exists())
    (aside,) = os.listdir(installed.spool / "incoming")
    assert aside.startswith(".x.json@"), "it is moved aside, and still its client's"
    made = run_as(ALICE, f"cd {installed.spool}/incoming && chmod -R 700 {aside} && rm -r {aside}")
    assert made.returncode == 0, made.stderr


def test_a_directory_of_an_earlier_version_is_removed_as_root(installed: Installed) -> None:
    """The directory belongs to its client at every depth."""
    aside = installed.spool / "quarantine" / "x.json@1-2.directory"
    (aside / "deep" / "deeper").mkdir(parents=True)
    for path in (aside / "deep" / "deeper", aside / "deep", aside):
        os.chown(path, ALICE, ALICE)
        path.chmod(0)
    strangers.remove_tree(str(aside))
    assert not aside.exists()


def test_each_user_says_what_he_measures(installed: Installed) -> None:
    """All write into one directory. Only intake counts the drop box.

    Health sees how long the executor has its entries.
    """
    directory = installed.directory / "metrics"
    directory.mkdir()
    os.chown(directory, 0, GROUP)
    directory.chmod(0o3775)
    for role in ("builder", "intake", "executor", "health"):
        installed.start(role, metrics=MetricsSettings(directory=str(directory), interval=1.0))
    installed.drop(ALICE, "long.json", HELLO | {"inputs": "nap 60"})

    def value(daemon: str, series: str) -> float:
        text = "".join(path.read_text() for path in directory.glob(f"spoold-{daemon}-*.prom"))
        found = [line for line in text.splitlines() if line.startswith(series.partition("{")[0] + "{")]
        return max((float(line.split()[1]) for line in found if series.partition("{")[2] in line), default=-1.0)

    # The lease is renewed every 0.2 s, so this value counts from the claim.
    until(lambda: value("health", 'spoold_oldest_seconds{state="running"') > 1)
    until(lambda: value("intake", 'spoold_entries{state="incoming"') == 0)
    assert value("health", 'spoold_entries{state="incoming"') == -1
    users = {UIDS[layout.USERS[role]] for role in ALWAYS}
    until(lambda: {os.stat(path).st_uid for path in directory.glob("*.prom")} == users)


def test_the_shell_client_writes_into_nobody_elses_file(installed: Installed) -> None:
    """Another user makes world-writable files under all names that they may guess.

    The client writes into none of them.
    """
    for role in ("intake", "builder", "executor"):
        installed.start(role)
    client, request = installed.directory / "submit", installed.directory / "request.json"
    client.write_text(shell_client())
    request.write_text(json.dumps(HELLO))
    request.chmod(0o644)
    ids = [f"job-{name}-{int(time.time()) + ahead}-{pid}" for name in (ALICE, "") for ahead in range(9) for pid in "12"]
    for id_ in (*ids, "request", "job-request"):
        for name in (f".{id_}.tmp", f"{id_}.json.tmp"):
            run_as(BOB, f"umask 0; : >{installed.spool}/incoming/{name}")
    done = run_as(ALICE, f"sh -e {client} {installed.spool} {request}")
    assert json.loads(done.stdout)["status"] == "COMPLETED", done.stderr
    assert written(installed.spool / "incoming") == []
    again = run_as(ALICE, f"sh -e {client} {installed.spool} {request}")
    assert json.loads(again.stdout)["Submission_id"] != json.loads(done.stdout)["Submission_id"]


def test_the_shell_client_takes_no_other_answer_for_its_own(installed: Installed) -> None:
    """Tried with an id that was used before, and with a file that intake does not read to its end."""
    for role in ("intake", "builder", "executor"):
        installed.start(role, spool=msgspec.structs.replace(installed.settings.spool, max_file=1000))
    client = installed.directory / "submit"
    client.write_text(shell_client().replace("id=job-${private##*/.}", "id=$3"))

    def submit(id_: str, script: str) -> str:
        request = installed.directory / "request.json"
        request.write_text(json.dumps({"files": [{"name": "run.sh", "content": script}]}))
        request.chmod(0o644)
        response = json.loads(run_as(ALICE, f"sh -e {client} {installed.spool} {request} {id_}").stdout)
        return f"{response['status']} {response.get('reason', '')}"

    assert submit("x", "echo one") == "COMPLETED "
    assert "used already" in submit("x", "echo two")
    assert submit("x", "echo one") == "COMPLETED "
    assert "larger than the 1000 bytes" in submit("y", "echo large #" + 1000 * "x")


def test_the_shell_client_replaces_nothing_that_is_there(installed: Installed) -> None:
    incoming, request = installed.spool / "incoming", installed.directory / "request.json"
    request.write_text(json.dumps(HELLO))
    request.chmod(0o644)
    client = shell_client().replace("id=job-${private##*/.}", "id=taken").split("while")[0]
    run_as(BOB, f"umask 0; printf '{{' >{incoming}/taken.json")
    run_as(ALICE, f"set -- {installed.spool} {request}; {client}")
    assert (incoming / "taken.json").read_text() == "{"
    assert (incoming / "taken.json").stat().st_uid == BOB


def make_each_kind(incoming: Path) -> None:
    """Make entries without a valid name of a submission, as users do by a shell, each under its own name."""
    made = run_as(
        ALICE,
        f"""cd {incoming} && umask 077 && printf '{{}}' >'hw (1).json' && : >'empty one' && mkfifo 'fi fo' &&
        printf x >closed.zip && chmod 0 closed.zip && ln -s /etc/shadow 'li nk' && mkdir HW.JSON 'full one' &&
        : >'full one/x' && printf x >"$(printf 'new\\nline\\377.json')" && printf 1 >.upload && printf 1 >x.part""",
    )
    assert made.returncode == 0, made.stderr
    for name, uid in (("of root", 0), ("of intake", UIDS["spoold-intake"]), ("of health", UIDS["spoold-health"])):
        (incoming / name).write_text("{}")
        os.chown(incoming / name, uid, uid)
    os.mknod(incoming / "de vice", 0o20666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(incoming / "so cket"))


def test_every_name_is_answered_to_its_owner_alone(installed: Installed) -> None:
    incoming, done = installed.spool / "incoming", installed.spool / "done"
    make_each_kind(incoming)
    installed.settles(0.3)
    for role in ("intake", "health"):
        installed.start(role)
    until(lambda: {each for each in os.listdir(incoming) if not each.startswith(".full one@")} == {".upload", "x.part"})
    of_alice = [
        "hw%20%281%29",
        "empty%20one",
        "fi%20fo",
        "closed.zip",
        "li%20nk",
        "HW.JSON",
        "full%20one",
        "new%0Aline%FF",
    ]
    others = ["of%20root", "of%20intake", "of%20health", "de%20vice", "so%20cket"]
    assert {each.name for each in done.iterdir()} == {f"{each}.refused.json" for each in (*of_alice, *others)}
    for name in of_alice:
        assert_answer(done / f"{name}.refused.json", ALICE, shared=True)
    for name in (*of_alice, *others):
        answer = json.loads((done / f"{name}.refused.json").read_bytes())
        assert answer["status"] == "REJECTED"
        read = name in ("hw%20%281%29", "empty%20one", "closed.zip", "new%0Aline%FF", *others[:3])
        assert ("request_sha256" in answer) == read, name
        assert run_as(BOB, f"cat {done}/{name}.refused.json").returncode != 0
    count = installed.spool / "tmp" / "health.count"
    until(lambda: count.exists() and msgspec.json.decode(count.read_bytes())["owners"].get(str(ALICE), [0])[0] >= 8)


def test_a_second_user_finds_the_answer_to_a_name_that_is_none(installed: Installed) -> None:
    installed.settles(0.3)
    installed.start("intake")
    incoming, spool = installed.spool / "incoming", str(installed.spool)
    for uid in (ALICE, BOB):
        run_as(uid, f"cd {incoming} && printf {uid} >.own && mv .own 'hw (1).json'")
        until(lambda: not (incoming / "hw (1).json").exists())
    home = installed.directory / "home"
    home.mkdir()
    (home / "hw (1).json").write_text(str(BOB))

    def seen(name: str, directory: str = "/") -> list[object]:
        os.chdir(directory)
        found = look(spool, name)
        return [found and found.uid, misnaming.why_unknown(spool, name)]

    assert in_child(lambda: seen("hw (1)"), ALICE)[0] == ALICE
    assert in_child(lambda: seen("hw (1)"), BOB)[0] is None
    assert "another user's file" in in_child(lambda: seen("hw (1)"), BOB)[1]
    assert in_child(lambda: seen("hw (1)", str(home)), BOB)[0] == BOB
    assert in_child(lambda: seen("hw (1).json", str(home)), BOB)[0] == BOB
    assert seen("hw (1)", os.getcwd())[0] == ALICE
    digest = hashlib.sha256(str(BOB).encode()).hexdigest()
    found = in_child(lambda: msgspec.to_builtins(of_name(spool, "hw (1).json", BOB, digest)), BOB)
    assert found["request_sha256"] == digest


def test_nobody_keeps_another_from_an_id_that_they_know(installed: Installed) -> None:
    """Bob holds the usual names of an id that he knows. Alice uses names like those in the README."""
    installed.start("intake")
    incoming = installed.spool / "incoming"
    run_as(BOB, f"printf '{{' >{incoming}/x.json; printf '{{' >{incoming}/x.cancel")
    submit = f"private=$(mktemp {incoming}/.XXXXXXXXXX) && printf %s '{json.dumps(HELLO)}' >$private"
    done = run_as(ALICE, f"{submit} && mv -n $private {incoming}/x@${{private##*/.}}.json")
    assert done.returncode == 0, done.stderr
    until((installed.spool / "progress" / "x.json").exists)
    done = run_as(ALICE, f"echo x >$(mktemp --suffix=.cancel {incoming}/x@XXXXXXXXXX)")
    assert done.returncode == 0, done.stderr
    assert installed.response(ALICE, "x")["status"] == "CANCELLED"
