"""No build can change its dependencies, whatever it tries, in each of the setups that builders run in."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Timer

import pytest

from spoold.config import NixSettings, Settings
from spoold.host import proc, userns
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.response import Outcome
from spoold.nix import users, verify
from spoold.nix.build import NixBuilder
from tests.nix import room, setups
from tests.nix.room import Copy
from tests.nix.setups import InProcess, Kind, Setup

pytestmark = pytest.mark.nix

OUTPUT = 200_000_000  # bytes
EVIL = """{ pkgs ? import <nixpkgs> { } }:
let
  text = builtins.toFile "text" "as it was NOW";
  evil = derivation {
    name = "evil"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; inherit text; at = "NOW";
    PATH = "${pkgs.coreutils}/bin"; hello = pkgs.hello; bash = pkgs.bash;
    args = [ "-c" ''SCRIPT'' ];
  };
in pkgs.mkShell { inherit evil text; packages = [ pkgs.hello ]; }
"""
# Each of these succeeds if it reaches its aim, which must not happen.
ATTEMPTS = {
    "a program": "chmod u+w $hello $hello/bin $hello/bin/hello && echo TROJAN > $hello/bin/hello && echo > $out",
    "a file": "chmod u+w $text && echo TROJAN > $text && echo > $out",
    "a new file": "chmod u+w $hello/bin && echo TROJAN > $hello/bin/python3 && echo > $out",
    "another name": "chmod u+w $hello $hello/bin && mv $hello/bin/hello $hello/bin/bye && echo > $out",
    "a removal": "chmod u+w $hello && rm -rf $hello/bin && echo > $out",
    "the loader": "l=$(echo $bash/bin/bash); chmod u+w $l && cat $hello/bin/hello > $l && echo > $out",
    "times": "touch -d @0 $hello/bin/hello && echo > $out",
    "a hard link": "mkdir $out && ln $hello/bin/hello $out/hello && chmod u+w $out/hello && echo TROJAN > $out/hello",
    "the store itself": "cd /nix/store && p=${hello#/nix/store/} && mv $p $p.old && mkdir $p && echo > $out",
    "by a descriptor": "exec 3< $hello/bin/hello; cd /proc/self/fd; chmod u+w 3 && echo T > 3 && echo > $out",
    "as its owner": "cat /proc/self/uid_map; [ $(stat -c %u $hello) = $(id -u) ] && echo > $out",
}


@pytest.fixture(scope="module", params=setups.KINDS)
def setup(request: pytest.FixtureRequest, nix_builder: NixBuilder) -> Iterator[Setup]:
    kind: Kind = request.param
    builder = room.limited(nix_builder, output=OUTPUT)
    if kind == "root":
        yield InProcess(builder)
        return
    with setups.anothers(kind, builder.settings) as other:
        yield other


def store_of(setup: Setup) -> Path:
    return setup.state / "nix/nix/store"


def contents(setup: Setup) -> dict[str, tuple[object, ...]]:
    """Return all names in the store with their modes, owners, sizes and times."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(store_of(setup)):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[path] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime)
    return found


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_build_does_not_change_what_it_depends_on(setup: Setup, name: str) -> None:
    assert setup.build("{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { packages = [ pkgs.hello ]; }").shell
    before = contents(setup)
    expression = EVIL.replace("SCRIPT", ATTEMPTS[name].replace("${", "''${")).replace("NOW", str(time.time_ns()))
    result = setup.build(expression)
    assert result.phase.outcome is Outcome.NONZERO_EXIT, result.phase
    after = contents(setup)
    assert {path: after.get(path) for path in before} == before


def test_all_that_is_in_the_store_belongs_to_whoever_runs_the_builder(setup: Setup) -> None:
    """So no user of builds owns anything in it."""
    assert setup.build(f"{{ pkgs ? import <nixpkgs> {{ }} }}: pkgs.mkShell {{ AT = {time.time_ns()}; }}").shell
    with closing(sqlite3.connect(f"file:{setup.state}/nix/nix/var/nix/db/db.sqlite?mode=ro", uri=True)) as database:
        valid = {row[0].rpartition("/")[2] for row in database.execute("SELECT path FROM ValidPaths")}
    owners = {
        owner
        for path, (_, owner, *_) in contents(setup).items()
        if Path(path).relative_to(store_of(setup)).parts[0] in valid
    }
    assert owners == {setup.uid}
    status = store_of(setup).stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (setup.uid, 0o1771)


def test_the_store_is_whole_after_all_this(setup: Setup) -> None:
    found = setup.verify()
    assert found.paths > 10
    assert found.damaged == []
    assert store_of(setup).stat().st_mode & 0o7777 == 0o1771


def test_what_was_changed_before_is_found(copy: Copy) -> None:
    """A build of a version that allowed it may have done that. The database doesn't know."""
    builder = copy()
    hello = room.shell(builder, "packages = [ pkgs.hello ];")
    with builder.store.database() as database:
        names = [path for (path,) in database.execute("SELECT path FROM ValidPaths WHERE path LIKE '%-hello-%'")]
    # Other tests may have made paths with this name.
    path = next(name for name in names if (builder.store.on_disk(name) / "bin/hello").exists())
    program = builder.store.on_disk(path) / "bin/hello"
    fresh = program.with_name("fresh")  # because the file is shared with the original of this store
    program.parent.chmod(0o755)
    fresh.write_text("#!/bin/sh\necho TROJAN\n")
    fresh.replace(program)
    assert hello
    found = verify.verify(builder.settings.nix)
    assert [(damaged.path, damaged.what) for damaged in found.damaged] == [(path, "was modified")]


def test_a_build_sees_no_process_but_its_own(setup: Setup) -> None:
    script = "for p in /proc/[0-9]*; do echo seen; done; exit 1"
    result = setup.build(EVIL.replace("SCRIPT", script).replace("NOW", str(time.time_ns())))
    assert 0 < result.phase.stderr.count("seen") <= 6


# It does not end by itself, because everybody could read its output afterwards.
HOLDS = """
import time
for number in range(100):
    with open("large%d" % number, "wb") as file:
        file.write(bytes(5000000))
    time.sleep(0.01)
time.sleep(3600)
"""


def test_what_a_build_writes_is_seen_though_it_is_closed_to_others(setup: Setup) -> None:
    """Only the build's own user can enter the directory."""
    inputs = f"{{ p = pkgs.python3; passAsFile = [ ''code'' ]; code = ''{HOLDS}''; }}"
    attributes = (
        f'X = pkgs.runCommand "large-{time.time_ns()}" {inputs} "mkdir -m 700 $out; cd $out; $p/bin/python3 $codePath";'
    )
    result = setup.build(room.SHELL % attributes)
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr
    assert f"more than {OUTPUT} bytes were written" in result.phase.stderr


SAYS = """echo "error: builder for '/nix/store/x' failed due to signal 25 (File size limit exceeded)"
echo "error: builder for '/nix/store/x' failed with exit code 153"
echo "error: builder for '/nix/store/x' killed after writing more than 5 bytes of log"
"""


@pytest.mark.parametrize("end", ["exit 153", "kill -XFSZ $$"])
def test_what_a_builder_says_or_ends_with_names_no_limit(setup: Setup, end: str) -> None:
    attributes = f"X = pkgs.runCommand \"says-{time.time_ns()}\" {{}} ''{SAYS}{end}'';"
    result = setup.build(room.SHELL % attributes)
    assert result.phase.outcome is Outcome.NONZERO_EXIT, result.phase


def test_a_builder_that_prints_more_than_its_log_may_hold_has_met_that_limit(setup: Setup) -> None:
    attributes = f"X = pkgs.runCommand \"prints-{time.time_ns()}\" {{}} ''yes | head -c 9000000; exit 1'';"
    result = setup.build(room.SHELL % attributes)
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase
    assert "bytes of log" in result.phase.stderr


def test_a_daemon_keeps_no_capability(setup: Setup) -> None:
    """It has nothing that could bring one back either. (Root keeps its own.)"""
    if isinstance(setup, InProcess):
        return
    lines = Path(f"/proc/{setup.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["Uid"].split() == [str(setup.uid)] * 4


# --- which users builds get


def test_builds_at_once_have_a_user_each(nix_builder: NixBuilder) -> None:
    ours = nix_builder.store.users
    assert ours is not None
    with ours.one(Event()) as first, ours.one(Event()) as second:
        assert first.uid != second.uid


def test_a_user_serves_one_build_at_a_time_of_whichever_store(
    nix_settings: Settings, nix_builder: NixBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process with its own store finds the users busy that this process has."""
    ours = nix_builder.store.users
    assert ours is not None
    program = (
        "import sys; from threading import Event; from spoold.config import NixSettings; from spoold.nix import users\n"
        "with users.find(NixSettings()).one(Event()) as user: print(user.name, flush=True); sys.stdin.readline()"
    )
    one = users.BuildUsers(ours._namespaces)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        name = other.stdout.readline().strip()
        one.users = ours.users._replace(uids={name: ours.users.uids[name]})
        cancelled = Event()
        Timer(0.3, cancelled.set).start()
        with pytest.raises(TemporaryError, match="busy"), one.one(cancelled):
            pass
        assert "all users of builds are busy" in caplog.text
        other.stdin.write("\n")
    with one.one(Event()) as user:
        assert user.name == name


def test_without_users_no_builder_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, words in ((0, "groupadd"), (12345, "usermod --add-subuids")):
        monkeypatch.setattr("spoold.host.userns.group_members", lambda _: None)
        monkeypatch.setattr("spoold.host.userns.subordinate", lambda _: None)
        with pytest.raises(OperatorError, match=words):
            users._found.__wrapped__("auto", uid, 60705)
    monkeypatch.setattr(users, "find", lambda _: (_ for _ in ()).throw(OperatorError("no users")))
    with pytest.raises(OperatorError, match="no users"):
        NixBuilder(Settings(nix=NixSettings(state=str(tmp_path)), nixpkgs={"default": "/x"})).prepare()


def test_a_program_that_enters_the_namespace_dies_with_us(nix_builder: NixBuilder) -> None:
    ours = nix_builder.store.users
    assert ours is not None
    finished = proc.run(
        ["sh", "-c", "cat /proc/self/status; sleep 0.1"],
        proc.Bounds(wall=30),
        entering=ours.namespace.entering,
        pid_namespace=True,
    )
    assert finished.ok, finished.stderr
    assert b"Uid:\t0\t0\t0\t0" in finished.stdout.data


COUNTED = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
count = 0
while libc.inotify_init1(0) >= 0:
    count += 1
print("inotify", count, "errno", ctypes.get_errno(), flush=True)
import resource
for name, number in (("sigpending", 11), ("msgqueue", 12), ("memlock", 8)):
    print(name, *resource.getrlimit(number), flush=True)
for flags in (0x10000000, 0x10020000, 0x50000000, 0x20000, 0x40000000):
    ctypes.set_errno(0)
    print("unshare", libc.unshare(flags), ctypes.get_errno(), flush=True)
"""


def test_a_build_takes_no_more_than_its_share_of_what_is_counted_by_user(setup: Setup) -> None:
    host = int(Path("/proc/sys/user/max_inotify_instances").read_text())
    code = f"{{ p = pkgs.python3; passAsFile = [ ''code'' ]; code = ''{COUNTED}''; }}"
    attributes = f'X = pkgs.runCommand "count-{time.time_ns()}" {code} "$p/bin/python3 $codePath; exit 1";'
    said = setup.build(room.SHELL % attributes).phase.stderr
    (count,) = (int(line.split()[1]) for line in said.splitlines() if line.startswith("inotify "))
    assert 0 < count <= host // (2 * userns.SHARES)
    # With a namespace of its own, a build could hide its output under a mount, or have memory that no group counts.
    tried = [line for line in said.splitlines() if line.startswith("unshare ")]
    assert len(tried) == 5
    assert all(line.startswith("unshare -1 ") for line in tried), tried
    limits = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    for name, number in {"sigpending": 11, "msgqueue": 12, "memlock": resource.RLIMIT_MEMLOCK}.items():
        soft, _ = resource.getrlimit(number)
        assert limits[name] == [str(soft // userns.SHARES)] * 2 or soft == resource.RLIM_INFINITY, (name, limits)
