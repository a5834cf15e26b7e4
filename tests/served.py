"""A spool served by its four daemons as processes, and a client that uses only cp and cat."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from spoold.config import (
    DockerSettings,
    ExecutorSettings,
    LeaseSettings,
    SandboxSettings,
    Settings,
    SpoolSettings,
)
from spoold.model.collection import Rules
from spoold.model.states import ALWAYS
from spoold.spool import layout
from tests.engines import SLOWNESS

PATIENCE = 300.0 * SLOWNESS
EVERYTHING_UNUSED = Rules(max_age=0, max_size=1, min_free=0, interval=0)
# a daemon that lives keeps its lease, however busy the host is
LEASE = LeaseSettings(renewal=0.5, limit=120.0, check=0.5, pause=0.5)
SETTLE = 10.0  # seconds that a client may stand still while it writes


class Served:
    """A spool with its four daemons as processes.

    ``module`` runs them, with ``variables`` of the environment. Each goes by the file of its role in ``configs``, or by
    ``config`` where there is none.
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        lease: LeaseSettings = LEASE,
        *,
        roles: Iterable[str] = ALWAYS,
        module: str = "spoold.cli.daemon",
        variables: dict[str, str] | None = None,
        configs: dict[str, Path] | None = None,
    ) -> None:
        self._module, self._variables, self._configs = module, variables or {}, configs or {}
        self.spool = directory / "spool"
        layout.create(str(self.spool))
        self.config = directory / "spoold.toml"
        own = msgspec.structs.replace(
            settings,
            spool=SpoolSettings(path=str(self.spool), settle=SETTLE, published_by=settings.spool.published_by),
            lease=lease,
            gc=EVERYTHING_UNUSED,
        )
        self.config.write_bytes(msgspec.toml.encode(own))
        self.log = (directory / "log").open("wb")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start(roles)

    def start(self, roles: Iterable[str]) -> None:
        """Start daemons. Return when all have said that they are ready."""
        started = list(roles)
        address = str(self.config.parent / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(address)
            listener.settimeout(PATIENCE)
            for role in started:
                config = str(self._configs.get(role, self.config))
                command = [sys.executable, "-m", self._module, "--config", config, role]
                env = os.environ | self._variables | {"NOTIFY_SOCKET": address}
                self.processes[role] = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log)
            try:
                for _ in started:
                    while (said := listener.recv(1000)) != b"READY=1":
                        assert said.startswith(b"STATUS="), self.said()  # that it waits for room on the disk
            except BaseException:  # whoever asked for this has nothing yet to stop
                for role in started:
                    self.processes[role].kill()
                    self.processes[role].wait()
                raise
        Path(address).unlink()

    def settle(self, seconds: float) -> None:
        """Give intake another settle time from now on."""
        settings = msgspec.toml.decode(self.config.read_bytes())
        settings["spool"]["settle"] = seconds
        self.config.write_bytes(msgspec.toml.encode(settings))
        log = Path(self.log.name)
        before = log.read_text().count("settings read again")
        self.processes["intake"].send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while log.read_text().count("settings read again") == before:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)  # between two looks into the log

    def stop(self) -> None:
        """Make all daemons drain and end. May be called again."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            assert process.wait(PATIENCE) == 0, self.said()
        self.log.close()

    def said(self) -> str:
        return Path(self.log.name).read_text()[-5000:]

    def drop(self, id_: str, run: str, expression: str | None = None, **more: Any) -> None:
        used = self.spool / "done" / f"{id_}.json"
        assert not used.exists(), f"another test used {id_}: this submission would get no answer"
        files = [{"name": "run.sh", "content": run}, *more.pop("files", [])]
        if expression is not None:
            files.append({"name": "cutor.nix", "content": expression})
        private = self.config.parent / f"{id_}.json"
        private.write_text(json.dumps({"files": files, **more}))
        subprocess.run(["cp", str(private), str(self.spool / "incoming")], check=True)

    def drop_as(self, uid: int, id_: str, run: str, expression: str | None = None, **more: Any) -> None:
        """Drop a file as a user does: write a private name, then rename it."""
        files = [{"name": "run.sh", "content": run}, *more.pop("files", [])]
        if expression is not None:
            files.append({"name": "cutor.nix", "content": expression})
        script = f"cd '{self.spool}/incoming' && cat >'.{id_}' && mv '.{id_}' '{id_}.json'"
        data = json.dumps({"files": files, **more}).encode()
        subprocess.run(["sh", "-c", script], user=uid, group=uid, extra_groups=[], cwd="/", input=data, check=True)

    def response(self, id_: str, patience: float = PATIENCE) -> dict[str, Any]:
        path = self.spool / "done" / f"{id_}.response.json"
        deadline = time.monotonic() + patience
        while not path.exists():
            assert time.monotonic() < deadline, f"{id_}: no response; {self.said()}"
            time.sleep(0.01)
        loaded: dict[str, Any] = json.loads(path.read_bytes())
        return loaded

    def ctl(self, *words: str) -> Any:
        """Return the JSON output of spoolctl."""
        command = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(self.config), *words, "--json"]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def builds(self) -> set[str]:
        """Return the good builds. A failed build is forgotten after a while and not collected."""
        return {record["build_id"] for record in self.records() if record["result"]["shell"]}

    def records(self) -> list[dict[str, Any]]:
        done = self.spool / "builds" / "done"
        found = []
        for path in done.glob("*.response.json"):
            with suppress(FileNotFoundError):  # a failed one was forgotten meanwhile
                found.append(json.loads(path.read_bytes()))
        return found

    def assert_nothing_is_left(self) -> None:
        for directory in ("incoming", "new", "building", "running", "ids", "progress", "builds/new", "builds/building"):
            deadline = time.monotonic() + PATIENCE
            while os.listdir(self.spool / directory):
                assert time.monotonic() < deadline, (directory, os.listdir(self.spool / directory))
                time.sleep(0.05)
        deadline = time.monotonic() + PATIENCE
        # A process that is killed while it writes a side file leaves that file for an hour.
        passing = (".progress.json", ".probe", ".count", ".usage", ".lock", ".held", ".host", ".store")
        while left := [name for name in os.listdir(self.spool / "tmp") if not name.endswith(passing)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert os.listdir(self.spool / "quarantine") == []


@contextmanager
def in_mode(
    mode: Literal["single-use", "recycled"],
    settings: Settings,
    docker_host: str,
    prefix: str,
    lease: LeaseSettings | None = None,
) -> Iterator[Served]:
    """Serve a spool that other users can reach, with two slots and real containers in one of the modes."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o711)
    own = msgspec.structs.replace(
        settings,
        docker=DockerSettings(host=docker_host),
        sandbox=SandboxSettings(mode=mode, waiting=2),  # no reserve for bursts
        executor=ExecutorSettings(slots=2, drain=0.1),
    )
    made = Served(directory, own) if lease is None else Served(directory, own, lease)
    yield made
    made.stop()
    shutil.rmtree(directory)
