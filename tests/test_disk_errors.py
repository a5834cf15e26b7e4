"""The spool's disk reports errors (EIO) in the middle of work for a second or two, and then works again.

Each kind of operation has a spool of its own, on a file system that fails on demand (``tests.faulty``). Its daemons run
as one process over stand-in engines. In one more spool all operations fail. All spools have their errors at the same
time, because a daemon that met an error rests for a while. Each accepted submission gets its one right answer at the
first attempt.

Where $SPOOLD_TEST_LONG is set there are a few more kinds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from spoold.cli import exits
from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.model.ids import Private
from spoold.spool import layout
from spoold.upkeep.check import Check
from spoold.upkeep.judges.private import KEPT
from spoold.upkeep.unexplained import Unexplained
from tests.engines import REPOSITORY, SLOWNESS, unavailable
from tests.faulty import OPERATIONS

pytestmark = pytest.mark.timeout(1800 * SLOWNESS)
PATIENCE = 600.0 * SLOWNESS  # seconds: a busy machine takes minutes with so many daemons at once
OUTAGE = 1.5  # seconds
LONG = bool(os.environ.get("SPOOLD_TEST_LONG"))
RARE = () if LONG else ("list", "statfs")  # with these errors, daemons begin nothing
AILMENTS = {
    **{word: word for word in OPERATIONS if word not in RARE},
    "everything": " ".join(word for word in OPERATIONS if word != "statfs"),
}
SAYS = "Input/output error"
RUN = [{"name": "run.sh", "content": "true"}]
# A build and runs that are in progress when the errors begin, and end during the errors. The rest waits in line.
BEFORE = {
    "builds": {"files": [*RUN, {"name": "cutor.nix", "content": "await @"}]},
    **{f"runs-{number}": {"files": RUN, "inputs": "await @"} for number in range(2)},
    "cancelled": {"files": RUN, "inputs": "nap 600"},
    **{f"waits-{number}": {"files": RUN} for number in range(3)},
}
# Files that are dropped during the errors.
DURING = {
    **{f"comes-{number}": {"files": RUN} for number in range(3)},
    "other": {"files": [*RUN, {"name": "cutor.nix", "content": "other"}]},
    "broken": {"files": [*RUN, {"name": "cutor.nix", "content": "broken"}]},
    "list": {"kind": "list-dependencies"},
    "wrong": {"files": "none"},
}
ENDS = {"cancelled": "CANCELLED", "broken": "DEPENDENCIES_FAILED", "wrong": "REJECTED"}
EMPTY = ("incoming", "new", "building", "running", "progress", "builds/new", "builds/building")


class Ailing:
    """A spool with one kind of error, the mount through which its daemons see it, and the daemons."""

    def __init__(self, name: str, directory: Path, answers: Literal["acl", "owner"] = "acl") -> None:
        self.name = name
        self.spool = directory / "disk" / name
        layout.create(str(self.spool))
        self.settings = Settings(
            spool=SpoolSettings(path=str(directory / "mount" / name), scan=0.5, settle=1.0, answers=answers),
            # A lease lasts longer than the errors, however busy the host is, so no daemon has to lose one.
            lease=LeaseSettings(renewal=0.5, limit=600.0, check=0.5, pause=0.2),
            executor=ExecutorSettings(slots=3),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        self.config = directory / f"{name}.toml"
        self.config.write_bytes(msgspec.toml.encode(self.settings))
        self.incoming = Path(self.settings.spool.path, "incoming")
        self.switch = directory / "switches" / name
        self.log = directory / f"{name}.log"
        self.daemons: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.idle", str(self.config), "intake,builder,executor,health", "info"]
        with self.log.open("ab") as log:
            environment = os.environ | {"SPOOLD_TEST_REST": "1"}
            self.daemons = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY, env=environment)

    def said(self) -> str:
        return self.log.read_text()

    def drop(self, submissions: dict[str, Any]) -> None:
        """Drop files through the mount, so that the daemons get events. The mount never fails for this process."""
        for id_, request in submissions.items():
            private = self.incoming / f".{id_}.tmp"
            private.write_text(json.dumps(request))
            private.rename(self.incoming / f"{id_}.json")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{self.left()}\n{self.said()[-5000:]}"
            time.sleep(0.05)

    def has(self, *ids: str) -> bool:
        return all((self.spool / "done" / f"{id_}.response.json").exists() for id_ in ids)

    def left(self) -> list[str]:
        """Return the names of entries that are on their way, and of files that should be gone by now.

        Health removes a private file whose unlink failed, but only after an hour, so such files don't count.
        """
        found = [f"{directory}/{name}" for directory in EMPTY for name in os.listdir(self.spool / directory)]
        later = tuple(Private) if "unlink" in AILMENTS.get(self.name, "") else ()
        for directory in ("tmp", "builds/tmp"):
            names = [name for name in os.listdir(self.spool / directory) if not KEPT.fullmatch(name)]
            found += [f"{directory}/{name}" for name in names if not name.endswith(later)]
        return found

    def unexplained(self) -> list[Unexplained]:
        """Return the findings of `spoolctl check`."""
        spool = msgspec.structs.replace(self.settings.spool, path=str(self.spool))
        return Check(msgspec.structs.replace(self.settings, spool=spool), "test").unexplained()

    def stop(self) -> None:
        if self.daemons is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemons.wait(PATIENCE)
        self.daemons.kill()
        self.daemons.wait()


def end_all(spools: list[Ailing]) -> None:
    for each in spools:
        if each.daemons:
            each.daemons.terminate()


@contextlib.contextmanager
def mounted(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Mount ``directory``/disk on ``directory``/mount, with the switches in ``directory``/switches.

    The process that serves the mount is yielded.
    """
    if shutil.which("fusermount3") is None:
        unavailable("not installed: fuse3")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel, or this container, has no FUSE, and no package can add it")
    for name in ("disk", "mount", "switches"):
        (directory / name).mkdir()
    command = [sys.executable, "-m", "tests.faulty", *(str(directory / name) for name in ("disk", "mount", "switches"))]
    mount = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + PATIENCE
        while not os.path.ismount(directory / "mount") and mount.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if mount.poll() is not None:
            pytest.skip("FUSE cannot mount here")
        yield mount
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(directory / "mount")], check=False)
        mount.terminate()
        mount.wait(PATIENCE)


@pytest.fixture(scope="module")
def ailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ailing]]:
    """Yield the spools by their kind of error, once the errors are over."""
    directory = tmp_path_factory.mktemp("ailing")
    enough = directory / "enough"
    with mounted(directory), contextlib.ExitStack() as stack:
        made = [Ailing(name, directory) for name in AILMENTS]
        for each in made:
            each.start()
            stack.callback(each.stop)
        stack.callback(end_all, made)
        for each in made:
            each.until(lambda each=each: "ready" in each.said())  # type: ignore[misc] # mypy cannot infer it
            each.drop({"warm": {"files": RUN}})
        for each in made:
            each.until(lambda each=each: each.has("warm"))  # type: ignore[misc] # mypy cannot infer it
            each.drop(json.loads(json.dumps(BEFORE).replace("@", str(enough))))
        for each in made:
            each.until(lambda each=each: len(os.listdir(each.spool / "running")) == 3)  # type: ignore[misc] # mypy cannot infer it
            each.until(lambda each=each: os.listdir(each.spool / "builds" / "building"))  # type: ignore[misc] # mypy cannot infer it
        for each in made:
            each.switch.write_text(AILMENTS[each.name])
        for each in made:
            each.drop(DURING)
            (each.incoming / ".cancel").write_text("cancelled\n")
            (each.incoming / ".cancel").rename(each.incoming / "cancelled.cancel")
        enough.touch()
        time.sleep(OUTAGE)
        for each in made:
            each.until(lambda each=each: SAYS in each.said())  # type: ignore[misc] # mypy cannot infer it
        for each in made:
            each.switch.unlink()
        yield {each.name: each for each in made}


@pytest.mark.parametrize("name", AILMENTS)
def test_a_disk_that_reports_errors_for_a_while(ailing: dict[str, Ailing], name: str) -> None:
    spool = ailing[name]
    ids = {"warm", *BEFORE, *DURING}
    spool.until(lambda: spool.has(*ids))
    spool.until(lambda: not spool.left())
    done = spool.spool / "done"
    responses = {id_: json.loads((done / f"{id_}.response.json").read_bytes()) for id_ in ids}
    assert {id_: each["status"] for id_, each in responses.items()} == {
        id_: ENDS.get(id_, "COMPLETED") for id_ in ids
    }, spool.said()
    assert set(os.listdir(done)) == {f"{id_}{ending}" for id_ in ids for ending in (".json", ".response.json")}
    assert "attempt=2" not in spool.said(), "an attempt was lost"
    assert "traceback" not in spool.said()
    assert any("level=error" in line for line in spool.said().splitlines() if SAYS in line)
    assert spool.daemons
    assert spool.daemons.poll() is None
    assert spool.unexplained() == []


def test_a_client_is_told_that_a_file_system_does_not_answer(tmp_path: Path) -> None:
    """Its spool is there, so the code is that of a service that failed, and not that of a wrong place."""
    with mounted(tmp_path) as mount:
        (tmp_path / "disk" / "spool" / "incoming").mkdir(parents=True)
        mount.kill()
        mount.wait()
        command = [sys.executable, "-m", "spoold.cli.ctl", "--spool", str(tmp_path / "mount" / "spool"), "status", "x"]
        done = subprocess.run([*command, "--json"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (exits.SERVICE, exits.SERVICE), done.stderr
    assert "cannot be reached" in done.stderr
