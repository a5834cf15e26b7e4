"""A spool with its executor, builder and health checker. A test steps them, and the engines are stand-ins."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.actors.health import Health
from spoold.actors.intake import Intake
from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.store import Spool
from tests.schemas import validator
from tests.standins import PlainBackend, PlainSandbox

PATIENCE = 100.0  # seconds: many, because a disk may be busy with something else
OLD = (1.0, 1.0)  # atime and mtime of a file, long ago


def settings_for(root: Path, **changes: Any) -> Settings:
    made = Settings(
        spool=SpoolSettings(path=str(root), settle=0.1),
        # No lease runs out because the machine stands still for a while. A test chooses which do, by
        # let_leases_run_out.
        lease=LeaseSettings(renewal=0.05, limit=600.0, check=0.1, pause=0.05),
        executor=ExecutorSettings(slots=2),
        nixpkgs={"default": "/srv/nixpkgs"},
    )
    return msgspec.structs.replace(made, **changes)


class Bench:
    """All four actors over one spool."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        layout.create(str(root))
        self.root = root
        self.settings = settings or settings_for(root)
        self.sandbox = PlainSandbox()
        self.backend = PlainBackend()
        self.intake = Intake(self.settings)
        self.executor = self.new_executor()
        self.builder = Builder(self.settings, self.backend)
        self.health = Health(self.settings)
        self.spool = Spool(self.settings, "test")
        self.builds = BuildStore(self.settings)
        self.builder.start()

    def new_executor(self) -> Executor:
        executor = Executor(self.settings, lambda _: self.sandbox)
        executor.start()
        return executor

    def close(self) -> None:
        self.sandbox.gate.set()
        self.backend.gate.set()
        self.executor.stop()
        self.builder.stop()

    def drop(self, id_: str, script: str = "echo hi", expression: str | None = None, **keys: Any) -> None:
        files = [{"name": "run.sh", "content": script}, *keys.pop("files", [])]
        if expression is not None:
            files.append({"name": "cutor.nix", "content": expression})
        self.drop_bytes(id_, json.dumps({"files": files, **keys}).encode())

    def drop_bytes(self, id_: str, data: bytes) -> None:
        (self.root / "incoming" / f"{id_}.json").write_bytes(data)
        self.take_in()

    def put(self, uid: int, id_: str) -> None:
        """Drop a submission of a user without a step of intake."""
        path = self.root / "incoming" / f"{id_}.json"
        path.write_bytes(b'{"files": [{"name": "run.sh", "content": "echo hi"}]}')
        os.chown(path, uid, uid)

    def drop_of(self, uid: int, id_: str) -> None:
        self.put(uid, id_)
        self.take_in()

    def take_in(self) -> None:
        """Let intake take in all files, even if it rests because the machine stood still during a look."""
        self.intake._box._rests_until = 0.0
        while self.intake.step() == 0:
            pass

    def step(self) -> None:
        self.executor.step()
        self.builder.step()

    def until(self, condition: Callable[[], object], step: Callable[[], object] | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; {self.picture()}"
            (step or self.step)()
            time.sleep(0.01)

    def wait_for(self, *ids: str) -> None:
        self.until(lambda: all(self.has("done", f"{id_}.response.json") for id_ in ids))

    def response(self, id_: str) -> dict[str, Any]:
        name = f"{id_}.response.json"
        self.until(lambda: self.has("done", name), lambda: None)  # a thread publishes it, and its entry is there first
        loaded: dict[str, Any] = json.loads((self.root / "done" / name).read_bytes())
        validator("response").validate(loaded)
        return loaded

    def let_leases_run_out(self, directory: str) -> None:
        """Age all entries in a directory so that leases that nobody renews have run out."""
        for name in self.names(directory):
            with contextlib.suppress(FileNotFoundError):  # a thread has moved it on
                os.utime(self.root / directory / name, OLD)

    def wait_for_a_tick(self) -> None:
        """Return when later changes of files get later times than all changes so far.

        The kernel sets these times by its ticks of some milliseconds.
        """
        before = self.spool.clock.file_system()
        self.until(lambda: self.spool.clock.file_system() > before, lambda: None)

    def progress(self, id_: str) -> str:
        """Return the status in a side file, or "" where there is none. The file may vanish at any time."""
        with contextlib.suppress(FileNotFoundError):
            return str(json.loads((self.root / "progress" / f"{id_}.json").read_bytes())["status"])
        return ""

    def has(self, directory: str, name: str) -> bool:
        return (self.root / directory / name).exists()

    def names(self, directory: str) -> set[str]:
        passing = (".probe", ".held", ".count", ".usage", ".store", "requeue.lock")
        return {name for name in os.listdir(self.root / directory) if not name.endswith(passing)}

    def picture(self) -> dict[str, set[str]]:
        return {d.path: self.names(d.path) for d in layout.DIRECTORIES if self.names(d.path)}

    def assert_nothing_is_left(self) -> None:
        """Assert that every accepted submission is done, and that nothing private, held or in progress remains.

        A response is visible before its private name is removed, so this may wait for a moment.
        """
        for directory in (
            "incoming",
            "new",
            "building",
            "running",
            "ids",
            "tmp",
            "progress",
            "builds/new",
            "builds/building",
        ):
            self.until(lambda d=directory: self.names(d) == set(), lambda: None)  # type: ignore[misc] # mypy cannot infer it
        done = self.names("done")
        entries = {name for name in done if not name.endswith((".response.json", ".refused.json"))}
        assert {name.removesuffix(".json") + ".response.json" for name in entries} == {
            name for name in done if name.endswith(".response.json")
        }
