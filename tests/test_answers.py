"""Responses belong to the daemons: owners read their own, and nobody else touches them. Tried on real file systems.

Each daemon is a process with its own uid and no capabilities, like its unit. Clients are other users.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from spoold import daemon
from spoold.cli import reading
from spoold.client import directory
from spoold.config import Settings, SpoolSettings
from spoold.config.file import decode
from spoold.host import acl, attributes, fsops
from spoold.host.accounts import Accounts
from spoold.host.log import Log
from spoold.model.errors import ClientError, OperatorError
from spoold.model.response import Response, Status
from spoold.model.retention import Rules
from spoold.model.states import Role, State
from spoold.model.submission import File, Origin, Request
from spoold.spool import answers, layout, lists
from spoold.spool.builds import BuildStore
from spoold.spool.recovery import clear_private, publish_committed
from spoold.spool.results import Results
from spoold.spool.store import Spool
from spoold.spool.tar import Tar
from spoold.upkeep.check import Check
from spoold.upkeep.holdings import Item
from spoold.upkeep.repair import repair as carry_out
from spoold.upkeep.requeue import requeue
from spoold.upkeep.retention import Retention
from spoold.upkeep.unexplained import Action
from tests.as_user import become
from tests.engines import unavailable
from tests.names import mine, result_named
from tests.returned import made
from tests.rights import assert_answer, can_do, drop_rights, in_child, run_as

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
GROUP = 64_000
GIVES = ("CAP_CHOWN",)  # as in the drop-in of the operator's page
UIDS = {user: 64_001 + number for number, user in enumerate(layout.USERS.values())}
INTAKE, EXECUTOR, HEALTH = (UIDS[layout.USERS[role]] for role in (Role.INTAKE, Role.EXECUTOR, Role.HEALTH))
ALICE, BOB = 64_101, 64_102
DISKS = {
    "tmpfs": [],
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
}
log = Log("test")


class Shared:
    """A spool that several daemons share, and what they do in it one after the other."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.root = directory / "spool"
        layout.create(str(self.root), Accounts(GROUP, UIDS))
        self.settings = Settings(spool=SpoolSettings(path=str(self.root), **settings))  # type: ignore[arg-type]
        self.done = self.root / "done"
        self.own = directory / "own"  # a directory that everybody may write to
        self.own.mkdir()
        self.own.chmod(0o777)

    def spool(self) -> Spool:
        return Spool(self.settings, "test")

    def by(self, uid: int, act: Callable[[Spool], object], capabilities: tuple[str, ...] = ()) -> None:
        """Run a function as a daemon."""

        def act_as_daemon() -> None:
            become(uid, GROUP, list(capabilities))
            os.umask(0o077)
            act(self.spool())

        in_child(act_as_daemon)

    def response(self, id_: str) -> Path:
        return self.done / f"{id_}.response.json"

    def answer(self, id_: str, uid: int = ALICE, capabilities: tuple[str, ...] = ()) -> Path:
        """Let intake accept a submission and an executor answer it."""
        self.accept(id_, uid)
        self.by(EXECUTOR, lambda spool: finish(spool, id_, uid), capabilities)
        return self.response(id_)

    def return_files(self, id_: str, uid: int = ALICE, capabilities: tuple[str, ...] = ()) -> Path:
        """Let an executor answer a submission with returned files beside the response.

        Return the path of these files.
        """
        self.accept(id_, uid)
        self.by(EXECUTOR, lambda spool: finish(spool, id_, uid, Tar({"": made(b"returned")})), capabilities)
        return self.done / f"{id_}.outputs.tar"

    def accept(self, id_: str, uid: int = ALICE) -> None:
        request = Request(files=[File(name="run.sh", content="true")])
        self.by(INTAKE, lambda spool: spool.accept(id_, request, origin(uid)))

    def commit(
        self,
        id_: str,
        uid: int = ALICE,
        capabilities: tuple[str, ...] = (),
        at: tuple[object, str] = (Results, "_link"),
        tar: Tar | None = None,
    ) -> None:
        """Let an executor die between the commit and the publication."""
        self.accept(id_, uid)

        def die(spool: Spool) -> None:
            with mock.patch.object(*at, side_effect=lambda *_: os._exit(0)):
                finish(spool, id_, uid, tar)

        self.by(EXECUTOR, die, capabilities)
        assert (self.done / f"{id_}.json").exists()
        assert not self.response(id_).exists()


def origin(uid: int) -> Origin:
    return Origin(uid=uid, gid=uid, sha256="0" * 64, arrival=1.0)


def finish(spool: Spool, id_: str, uid: int, tar: Tar | None = None) -> None:
    entry = mine(id_, 1, uid)
    spool.queue.claim(entry, State.NEW, State.RUNNING)
    spool.finish(entry, Response(status=Status.COMPLETED), origin(uid), tar=tar)


@pytest.fixture
def shared(place: Path) -> Shared:
    return Shared(place)


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, place: Path) -> Iterator[Path]:
    """Yield a file system of each kind."""
    kind, make = request.param, DISKS[request.param]
    at, image = place / "disk", place / "image"
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(at)]
    if make:
        if shutil.which(make[0], path=os.environ["PATH"] + ":/usr/sbin") is None:
            unavailable(f"not installed: {make[0]}")
        with image.open("wb") as file:
            file.truncate(320 << 20)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        command = ["mount", "-t", kind, "-o", "loop", str(image), str(at)]
    mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"{kind} cannot be mounted here: {mounted.stderr}")
    at.chmod(0o711)
    yield at
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_an_owner_reads_and_nobody_changes(disk: Path) -> None:
    """Daemons without any capability publish for users that they don't know."""
    shared = Shared(disk)
    response = shared.answer("a")
    shared.accept("b")
    side = shared.root / "progress" / "b.json"
    shared.by(INTAKE, lambda spool: spool.refuse("c", "no", origin(ALICE)))
    shared.by(INTAKE, lambda spool: spool.refuse_reuse("a", "used", origin(ALICE)))
    (reuse,) = shared.done.glob("*.refused.json")
    assert lists.wrong(str(shared.root)) == ""
    for path in (response, side, shared.response("c"), reuse):
        assert_answer(path, ALICE, shared=True)
        assert path.stat().st_gid == GROUP
        before = path.read_bytes(), attributes.identity(str(path))
        assert can_do(path, ALICE, shared.own) == {"read"}, path
        assert can_do(path, BOB, shared.own) == set(), path
        assert can_do(path, BOB, shared.own, gid=ALICE) == set(), "a user who only has the owner's group may do nothing"
        assert (path.read_bytes(), attributes.identity(str(path))) == before
        assert "read" in can_do(path, HEALTH, shared.own, gid=GROUP)


def test_returned_files_are_an_answer_like_the_response(disk: Path) -> None:
    shared = Shared(disk)
    path = shared.return_files("a")
    assert_answer(path, ALICE, shared=True)
    assert can_do(path, ALICE, shared.own) == {"read"}
    assert can_do(path, BOB, shared.own) == set()
    assert run_as(ALICE, f"tar xOf {path} 0").stdout == "returned"
    found = {each.path for each in Check(shared.settings, "test").unexplained()}
    assert found <= {"progress/a.json"}
    os.removexattr(path, acl.NAME)
    path.chmod(0o640)
    for each in Check(shared.settings, "test").unexplained():
        carry_out(shared.spool(), each)
    assert_answer(path, ALICE, shared=True)


@pytest.mark.parametrize("step", ["_link_tar", "_link"])
def test_another_daemon_shows_the_returned_files_of_one_that_died(shared: Shared, step: str) -> None:
    tar = Tar({"": made(b"returned")})
    shared.commit("a", at=(Results, step), tar=tar)
    shared.by(HEALTH, lambda spool: publish_committed(spool.queue, log))
    path = shared.done / "a.outputs.tar"
    assert path.read_bytes() == b"".join(tar)
    for each in (path, shared.response("a")):
        assert_answer(each, ALICE, shared=True)
    assert os.listdir(shared.root / "tmp") == []


@pytest.mark.parametrize("way", ["acl", "owner"])
def test_status_for_the_owner(place: Path, way: str) -> None:
    """The command uses only what a client may see, and doubts none of the client's own answers."""
    shared = Shared(place, answers=way)
    shared.answer("a", capabilities=GIVES if way == "owner" else ())
    shared.by(
        INTAKE, lambda spool: spool.write_progress("b", Response(), origin(ALICE), 1), GIVES if way == "owner" else ()
    )

    def ask() -> bool:
        seen = [reading.look(directory.Directory(str(shared.root)), id_) for id_ in ("a", "b")]
        assert [each and each.status for each in seen] == [Status.COMPLETED, Status.PENDING]
        return reading.doubt(str(shared.root), "a") == ""

    def be_kept_out() -> bool:
        with pytest.raises(ClientError, match="belongs to another user"):
            reading.look(directory.Directory(str(shared.root)), "a")
        return True

    assert in_child(ask, ALICE)
    assert in_child(be_kept_out, BOB)


def test_a_desk_s_group_gets_nothing_by_a_list(place: Path) -> None:
    """On a desk one user runs all daemons. The group of the files is not spoold's, so no list mentions it."""
    root = place / "desk"
    layout.create(str(root))
    spool = Spool(Settings(spool=SpoolSettings(path=str(root))), "test")
    own = place / "own"
    own.mkdir()
    own.chmod(0o777)
    spool.refuse("a", "no", origin(ALICE))
    path = root / "done" / "a.response.json"
    assert_answer(path, ALICE)
    os.chown(path, 0, BOB)
    assert can_do(path, BOB, own) == set()
    assert can_do(path, ALICE, own) == {"read"}
    spool.refuse("mine", "no", Origin(uid=0, gid=0, sha256="1" * 64, arrival=1.0))
    found = attributes.rights(str(root / "done" / "mine.response.json"))
    assert found
    assert (found.uid, found.mode, found.access) == (0, 0o400, None), "the user who runs the daemons needs no list"


def test_further_readers(place: Path) -> None:
    shared = Shared(place, readers=[f"user:{BOB}", "group:65001"])
    path = shared.answer("a")
    assert can_do(path, ALICE, shared.own) == can_do(path, BOB, shared.own) == {"read"}
    assert can_do(path, 65_002, shared.own, gid=65_001) == {"read"}
    assert can_do(path, 65_002, shared.own) == set()
    with pytest.raises(OperatorError, match="this host has no group 'nobodys-own'"):
        Spool(Settings(spool=SpoolSettings(path=str(shared.root), readers=["group:nobodys-own"])), "test")


@pytest.mark.parametrize("who", [HEALTH, INTAKE])
def test_another_daemon_publishes_for_one_that_died(shared: Shared, who: int) -> None:
    """The kernel keeps the other daemon from linking a file that it doesn't own (fs.protected_hardlinks)."""
    assert Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"
    shared.commit("a")
    private = shared.root / "tmp" / result_named("a", 1, ALICE)
    data = private.read_bytes()
    shared.by(who, lambda spool: publish_committed(spool.queue, log))
    path = shared.response("a")
    assert path.read_bytes() == data
    assert not private.exists()
    assert_answer(path, ALICE, shared=True)
    assert can_do(path, ALICE, shared.own) == {"read"}
    shared.by(who, lambda spool: publish_committed(spool.queue, log))
    assert path.read_bytes() == data


def test_who_comes_late_to_publish_changes_nothing(shared: Shared) -> None:
    """A second publisher, or the holder itself, publishes between the first one's look and its rename."""
    shared.commit("a")
    private, path = shared.root / "tmp" / result_named("a", 1, ALICE), shared.response("a")
    data = private.read_bytes()

    def late(spool: Spool) -> None:
        real = fsops.replace

        def replace(source: str, target: str) -> None:
            if target == str(path):
                real(source, target)  # the other publisher's rename
            real(source, target)

        with mock.patch.object(fsops, "replace", replace):
            spool.queue.results.publish(mine("a", 1, ALICE))

    shared.by(HEALTH, late)
    assert path.read_bytes() == data
    shared.by(INTAKE, lambda spool: spool.queue.results.publish(mine("a", 1, ALICE)))
    assert path.read_bytes() == data


def test_another_daemon_replaces_nothing(shared: Shared) -> None:
    shared.commit("a")
    path = shared.response("a")
    path.write_bytes(b"there already\n")
    shared.by(HEALTH, lambda spool: spool.queue.results.publish(mine("a", 1, ALICE)))
    assert path.read_bytes() == b"there already\n"


def test_what_an_earlier_version_left_is_served_kept_and_removed(shared: Shared) -> None:
    """Responses of that version belong to their clients, published or not. No daemon has a capability any more."""
    old = msgspec.structs.replace(shared.settings.spool, answers="owner")
    settings, shared.settings = shared.settings, Settings(spool=old)
    given = ("CAP_CHOWN", "CAP_FOWNER")
    shown = shared.answer("shown", capabilities=given)
    shared.commit("hidden", capabilities=given)
    shared.settings = settings
    for path in shared.root.rglob("*.sha256"):
        path.unlink()
    shared.by(HEALTH, lambda spool: publish_committed(spool.queue, log))
    for id_ in ("shown", "hidden"):
        path = shared.response(id_)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (ALICE, 0o400)
        assert run_as(ALICE, f"cat {path}").returncode == 0
    found = {each.path for each in Check(settings, "test").unexplained()}
    assert found == {"progress/hidden.json"}, "the only leftover is the one that health removes"
    os.utime(shared.done / "shown.json", (1, 1))

    def sweep(spool: Spool) -> None:
        for _ in Retention(settings, spool, BuildStore(settings)).sweep():
            pass

    shared.by(HEALTH, sweep)
    assert not shown.exists()
    requeue(shared.spool(), "hidden")
    shared.by(EXECUTOR, lambda spool: finish(spool, "hidden", ALICE))
    assert_answer(shared.response("hidden"), ALICE, shared=True)


def test_a_backup_that_lost_the_lists_is_mended(shared: Shared, place: Path) -> None:
    path = shared.answer("a")
    shared.by(INTAKE, lambda spool: spool.refuse_reuse("a", "used", origin(BOB)))
    (refusal,) = shared.done.glob("*.refused.json")
    subprocess.run(["rsync", "-a", f"{shared.root}/", f"{place}/backup/"], check=True)
    shutil.rmtree(shared.root)
    subprocess.run(["rsync", "-a", f"{place}/backup/", f"{shared.root}/"], check=True)
    assert run_as(ALICE, f"cat {path}").returncode != 0
    check = Check(shared.settings, "test")
    found = check.unexplained()
    assert {(each.path, each.action) for each in found} == {
        (f"done/{each.name}", Action.LET_IN) for each in (path, refusal)
    }
    for each in found:
        carry_out(check.spool, each)
    assert check.unexplained() == []
    assert_answer(path, ALICE, shared=True)
    assert_answer(refusal, BOB, shared=True)


@pytest.mark.parametrize("change", ["chmod 664", f"chown {ALICE}:{ALICE}", "chmod 644"])
def test_wrong_owners_and_modes_are_mended(shared: Shared, change: str) -> None:
    path = shared.answer("a")
    data = path.read_bytes()
    subprocess.run([*change.split(), str(path)], check=True)
    check = Check(shared.settings, "test")
    (found,) = check.unexplained()
    assert (found.path, found.action) == ("done/a.response.json", Action.LET_IN)
    carry_out(check.spool, found)
    assert_answer(path, ALICE, shared=True)
    assert path.read_bytes() == data


def test_an_owner_who_cannot_be_let_in_holds_nobody_up(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system was mounted again without lists. The response is published, and only the daemons can read it."""

    def refuse(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(acl, "give", refuse)
    path = shared.answer("a")
    found = attributes.rights(str(path))
    assert found
    assert (found.uid, found.mode, found.access) == (EXECUTOR, 0o640, None)
    with pytest.raises(OperatorError, match='answers = "owner"'):
        lists.require(shared.settings)
    with pytest.raises(OperatorError, match='answers = "owner"'):
        lists.settle(shared.settings)
    monkeypatch.undo()
    check = Check(shared.settings, "test")
    for each in check.unexplained():
        carry_out(check.spool, each)
    assert_answer(path, ALICE, shared=True)


# -- where executors only commit


def pilot(shared: Shared, act: Callable[[Spool], object]) -> None:
    """Run a function as an executor on a node that can neither set lists nor give files away."""
    refusal = OSError(errno.EOPNOTSUPP, "a file server that keeps no lists")

    def act_as_pilot() -> None:
        become(EXECUTOR, GROUP, [])
        with mock.patch.object(acl, "give", side_effect=refusal):
            act(Spool(shared.settings, "executor-pool-0", executes=True))

    in_child(act_as_pilot)


@pytest.mark.parametrize("way", ["acl", "owner"])
@pytest.mark.parametrize("who", [HEALTH, INTAKE])
def test_health_lets_the_owner_in_where_executors_only_commit(place: Path, way: str, who: int) -> None:
    shared = Shared(place, answers=way, published_by="health")
    rights = GIVES if way == "owner" else ()
    tar = Tar({"": made(b"returned")})
    for id_, beside in (("a", None), ("b", tar)):
        shared.accept(id_)
        side = shared.root / "progress" / f"{id_}.json"
        before = side.read_bytes()
        pilot(shared, lambda spool, id_=id_, beside=beside: finish(spool, id_, ALICE, beside))  # type: ignore[misc] # mypy cannot infer it
        assert (shared.done / f"{id_}.json").exists(), "the result is committed"
        assert not shared.response(id_).exists()
        assert side.read_bytes() == before, "the executor writes no side file, because nobody could read it"
    wrote = (shared.root / "tmp" / result_named("a", 1, ALICE)).read_bytes()
    pilot(shared, lambda spool: publish_committed(spool.queue, log))
    assert not shared.response("a").exists(), "such an executor publishes no result, not even of others"
    shared.by(who, lambda spool: publish_committed(spool.queue, log), rights)
    assert shared.response("a").read_bytes() == wrote
    assert (shared.done / "b.outputs.tar").read_bytes() == b"".join(tar)
    assert os.listdir(shared.root / "tmp") == []
    for path in (shared.response("a"), shared.response("b"), shared.done / "b.outputs.tar"):
        if way == "acl":
            assert_answer(path, ALICE, shared=True)
            assert can_do(path, ALICE, shared.own) == {"read"}
        else:
            assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (ALICE, ALICE, 0o400)
            assert not changed(path)
        assert can_do(path, BOB, shared.own) == set()
    found = {each.path for each in Check(shared.settings, "test").unexplained()}
    assert found == {"progress/a.json", "progress/b.json"}


def test_a_result_that_was_taken_back_is_not_handed_over(place: Path) -> None:
    """An operator requeues the submission while health makes the copy."""
    shared = Shared(place, published_by="health")
    shared.accept("a")
    pilot(shared, lambda spool: finish(spool, "a", ALICE))
    spool, real = shared.spool(), answers.Answers.write

    def write(self: answers.Answers, path: str, *arguments: object, **options: object) -> None:
        real(self, path, *arguments, **options)  # type: ignore[arg-type]
        if path.endswith(".private.json"):
            requeue(shared.spool(), "a")

    with mock.patch.object(answers.Answers, "write", write):
        assert publish_committed(spool.queue, log) == []
    assert not shared.response("a").exists()
    assert os.listdir(shared.root / "tmp") == ["requeue.lock"]
    assert os.listdir(shared.root / "new")


def test_executors_that_only_commit_need_no_lists(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other daemons need lists, and say so."""
    shared = Shared(place, published_by="health")
    monkeypatch.setattr(lists, "keeps_lists", lambda _: False)
    monkeypatch.setattr(daemon, "ROLES", dict.fromkeys(Role, began := mock.Mock(side_effect=InterruptedError)))
    with pytest.raises(InterruptedError):
        daemon.serve(shared.settings, [Role.EXECUTOR])
    began.reset_mock()
    for roles in ([Role.HEALTH], [Role.EXECUTOR, Role.HEALTH]):
        with pytest.raises(OperatorError, match='answers = "owner"'):
            daemon.serve(shared.settings, roles)
    began.assert_not_called()


# -- where answers are given away


@pytest.fixture
def giving(place: Path) -> Shared:
    return Shared(place, answers="owner")


def forge(path: Path, uid: int = ALICE) -> None:
    done = run_as(uid, f"chmod 600 {path} && echo forged >{path} && chmod 400 {path}")
    assert done.returncode == 0, done.stderr


def changed(path: Path) -> bool:
    found = answers.doubt(str(path), path.read_bytes())
    return found is not None and found.changed


@pytest.mark.parametrize("dies", [None, (Results, "_link"), (fsops, "publish")], ids=["lives", "before", "between"])
def test_a_given_answer_that_was_changed_is_known(giving: Shared, dies: tuple[object, str] | None) -> None:
    if dies:
        giving.commit("a", capabilities=GIVES, at=dies)
        giving.by(HEALTH, lambda spool: publish_committed(spool.queue, log))
    path = giving.response("a") if dies else giving.answer("a", capabilities=GIVES)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (ALICE, 0o400)
    assert not changed(path)
    assert can_do(giving.done / "a.response.sha256", ALICE, giving.own) == set()
    forge(path)
    assert changed(path)
    assert sorted(os.listdir(giving.root / "tmp")) == []
    assert [each for each in Check(giving.settings, "test").unexplained() if "sha256" in each.path] == []
    requeue(giving.spool(), "a")
    giving.by(EXECUTOR, lambda spool: finish(spool, "a", ALICE), GIVES)
    assert not changed(giving.response("a"))
    requeue(giving.spool(), "a")
    assert [each for each in Check(giving.settings, "test").unexplained() if "sha256" in each.path] == []
    listed = msgspec.structs.replace(giving.settings.spool, answers="acl")
    giving.settings = msgspec.structs.replace(giving.settings, spool=listed)
    giving.by(EXECUTOR, lambda spool: finish(spool, "a", ALICE))
    assert answers.doubt(str(path), path.read_bytes()) is None, "with the other setting no digest is kept"


def sweep(shared: Shared, command: list[str]) -> None:
    settings = msgspec.structs.replace(shared.settings, retention=Rules(archive=command))

    def go(spool: Spool) -> None:
        for _ in Retention(settings, spool, BuildStore(settings)).sweep():
            pass

    shared.by(HEALTH, go, (*GIVES, "CAP_DAC_READ_SEARCH"))


@pytest.fixture
def archive(place: Path) -> Path:
    made = place / "archive"
    made.mkdir()
    os.chown(made, HEALTH, GROUP)
    return made


def answer_long_ago(shared: Shared, id_: str) -> Path:
    path = shared.answer(id_, capabilities=GIVES)
    os.utime(shared.done / f"{id_}.json", (1, 1))
    return path


@contextlib.contextmanager
def leased(path: Path) -> Iterator[None]:
    """Let an owner hold a lease on an answer and keep it when the kernel asks for it."""
    out, into = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            drop_rights(ALICE)
            path.chmod(0o600)
            fcntl.fcntl(os.open(path, os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
            os.write(into, b"held")
            signal.pause()
        except BaseException:  # noqa: BLE001 - pytest must not go on in the child
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(into)
    with os.fdopen(out, "rb") as said:
        held = said.read(4)
    try:
        assert held == b"held"
        yield
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def test_an_archive_gets_what_was_published(giving: Shared, archive: Path) -> None:
    """A changed response is left out. Its entry is archived, so that a record of the submission remains."""
    data = answer_long_ago(giving, "good").read_bytes()
    forge(answer_long_ago(giving, "bad"))
    assert (
        run_as(ALICE, f"chmod 600 {answer_long_ago(giving, 'long')} && echo >>{giving.response('long')}").returncode
        == 0
    )
    sweep(giving, ["false"])
    assert giving.response("good").stat().st_uid == ALICE, "its owner may still fetch it"
    assert not changed(giving.response("good"))
    sweep(giving, ["xargs", "cp", "-t", str(archive)])
    known = {f"{id_}.{kind}" for id_ in ("bad", "long") for kind in ("json", "response.sha256")}
    assert set(os.listdir(archive)) == {"good.json", "good.response.json", *known}
    assert (archive / "good.response.json").read_bytes() == data
    assert os.listdir(giving.done) == []


def test_returned_files_are_given_away_archived_and_removed_with_their_response(giving: Shared, archive: Path) -> None:
    data = {}
    for id_ in ("good", "bad"):
        path = giving.return_files(id_, capabilities=GIVES)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (ALICE, 0o400)
        assert not changed(path)
        data[id_] = path.read_bytes()
        os.utime(giving.done / f"{id_}.json", (1, 1))
    forge(giving.done / "bad.outputs.tar")
    assert [each for each in Check(giving.settings, "test").unexplained() if "sha256" in each.path] == []
    sweep(giving, ["false"])
    assert (giving.done / "good.outputs.tar").stat().st_uid == ALICE, "its owner may still fetch it"
    sweep(giving, ["xargs", "cp", "-t", str(archive)])
    names = {f"{id_}.{kind}" for id_ in ("good", "bad") for kind in ("json", "response.json")}
    assert set(os.listdir(archive)) == names | {"good.outputs.tar", "bad.outputs.sha256"}
    assert (archive / "good.outputs.tar").read_bytes() == data["good"]
    assert os.listdir(giving.done) == []


def test_a_response_whose_returned_files_cannot_be_archived_stays_its_owners(giving: Shared, archive: Path) -> None:
    path = giving.return_files("a", capabilities=GIVES)
    os.utime(giving.done / "a.json", (1, 1))
    with leased(path):
        sweep(giving, ["xargs", "cp", "-t", str(archive)])
        assert os.listdir(archive) == []
        assert giving.response("a").stat().st_uid == ALICE
    sweep(giving, ["xargs", "cp", "-t", str(archive)])
    assert set(os.listdir(archive)) == {"a.json", "a.response.json", "a.outputs.tar"}
    assert os.listdir(giving.done) == []


def test_what_cannot_be_read_to_be_archived_stays_alone(giving: Shared, archive: Path) -> None:
    for id_ in ("held", "good"):
        answer_long_ago(giving, id_)
    files = {id_: {f"{id_}.json", f"{id_}.response.json"} for id_ in ("held", "good")}
    with leased(giving.response("held")):
        sweep(giving, ["xargs", "cp", "-t", str(archive)])
        assert set(os.listdir(archive)) == files["good"]
        assert set(os.listdir(giving.done)) == files["held"] | {"held.response.sha256"}
        sweep(giving, ["false"])
        assert set(os.listdir(giving.done)) == files["held"] | {"held.response.sha256"}
    sweep(giving, ["xargs", "cp", "-t", str(archive)])
    assert set(os.listdir(archive)) == files["good"] | files["held"]
    assert os.listdir(giving.done) == []


def test_who_looks_at_an_answer_does_not_wait_for_a_lease(giving: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    path = giving.answer("a", capabilities=GIVES)
    monkeypatch.setattr(directory, "LEASED", 0.0)
    with leased(path), pytest.raises(ClientError, match="holds a lease"):
        reading.look(directory.Directory(str(giving.root)), "a")
    assert reading.look(directory.Directory(str(giving.root)), "a")


def test_no_more_is_read_of_a_given_answer_than_was_published(
    giving: Shared, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner can make the file as long as they like, because a hole takes no room on the disk."""
    path = giving.answer("a", capabilities=GIVES)
    os.utime(giving.done / "a.json", (1, 1))
    published = path.stat().st_size
    assert run_as(ALICE, f"chmod 600 {path} && truncate -s 1G {path} && chmod 400 {path}").returncode == 0
    parts, real = [], os.read

    def read(descriptor: int, most: int) -> bytes:
        parts.append(most)
        return real(descriptor, most)

    monkeypatch.setattr(os, "read", read)
    settings = msgspec.structs.replace(giving.settings, retention=Rules(archive=["cp", "-t", str(place)]))
    for _ in Retention(settings, giving.spool(), BuildStore(settings))._archive._take_back(
        [Item(ALICE, 1.0, 0, "a.json", "a.response.json")]
    ):
        assert not parts, "the archive yields to other work before it reads anything"
    assert max(parts, default=0) <= 1024, "only the digest's file is read"
    tracemalloc.start()
    try:
        with pytest.raises(ClientError, match="not what was published"):
            reading.look(directory.Directory(str(giving.root)), "a")
        assert tracemalloc.get_traced_memory()[1] < 10 * published + (1 << 20)
    finally:
        tracemalloc.stop()
    digest = path.with_suffix(".sha256")
    digest.write_text(digest.read_text().split()[0] + "\n")
    os.truncate(path, published)
    assert not changed(path), "a digest without a size, as earlier versions wrote it, still holds"


def test_a_repair_makes_no_forgery_true(giving: Shared) -> None:
    path = giving.answer("a", capabilities=GIVES)
    forge(path)
    path.chmod(0o644)
    check = Check(giving.settings, "test")
    (found,) = [each for each in check.unexplained() if each.path == "done/a.response.json"]
    carry_out(check.spool, found)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (ALICE, 0o400)
    assert changed(path)
    assert [name for name in os.listdir(giving.root / "tmp") if not name.endswith(".probe")] == []


def test_an_answer_that_is_there_keeps_its_digest(giving: Shared) -> None:
    """The same file is refused again for another reason. The refusal that was published first stays."""
    for reason in ("used", "another user's"):
        giving.by(INTAKE, lambda spool, reason=reason: spool.refuse_reuse("a", reason, origin(ALICE)), GIVES)  # type: ignore[misc] # mypy cannot infer it
    (path,) = giving.done.glob("*.refused.json")
    assert b'"used"' in path.read_bytes()
    assert not changed(path)
    assert os.listdir(giving.root / "tmp") == []


def test_a_lost_attempt_s_digest_stands_for_nothing(giving: Shared) -> None:
    """One attempt writes a result and loses its lease. The next attempt commits, and its digest counts."""
    giving.accept("a")

    def lose(spool: Spool) -> None:
        spool.queue.claim(mine("a", 1, ALICE), State.NEW, State.RUNNING)
        spool.answers.write(spool.queue.path("tmp", result_named("a", 1, ALICE)), b"late\n", (ALICE, ALICE))
        spool.queue.retry(mine("a", 1, ALICE), State.RUNNING)
        spool.queue.claim(mine("a", 2, ALICE), State.NEW, State.RUNNING)
        spool.finish(mine("a", 2, ALICE), Response(status=Status.COMPLETED), origin(ALICE))

    giving.by(EXECUTOR, lose, GIVES)
    giving.by(HEALTH, lambda spool: publish_committed(spool.queue, log))
    assert b"COMPLETED" in giving.response("a").read_bytes()
    assert not changed(giving.response("a"))
    left = giving.root / "tmp" / result_named("a", 1, ALICE).replace(".json", ".sha256")
    spool = Spool(giving.settings, "test")
    clear_private(spool.queue, spool.clock)
    assert left.exists()
    os.utime(left, (1, 1))
    clear_private(spool.queue, spool.clock)
    assert not left.exists()


def test_readers_need_lists() -> None:
    with pytest.raises(OperatorError, match="readers needs access control lists"):
        decode(b'[spool]\nanswers = "owner"\nreaders = ["group:staff"]\n')
