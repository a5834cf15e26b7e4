"""A spool with its daemons, and a client that drops and waits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import docker
import msgspec

from benchmarks.arrivals import Arrivals
from benchmarks.daemons import Daemons
from benchmarks.programs import TRIVIAL, Program
from benchmarks.ways import MeasuringError, moments
from spoold.config import Settings
from spoold.model.job import Runtime
from spoold.model.response import Response, Status
from spoold.model.submission import Origin, Request, Submission
from spoold.spool import layout

RESPONSE_TIMEOUT = 300.0  # seconds for one response
UNREST = 5.0  # seconds within which used containers are removed and replaced


class Served:
    """One served spool below ``work``; a :class:`benchmarks.ways.Way`. For ``tree`` see :class:`Daemons`."""

    def __init__(
        self, name: str, programs: tuple[Program, ...], work: Path, settings: Settings, tree: Path | None = None
    ) -> None:
        self.name, self.programs = name, programs
        self.spool = work / name
        layout.create(str(self.spool))
        spool = msgspec.structs.replace(settings.spool, path=str(self.spool))
        oci = msgspec.structs.replace(settings.oci, state=str(work / f"{name}.oci"))
        self.settings = msgspec.structs.replace(settings, spool=spool, oci=oci)
        self.daemons = Daemons(name, work, self.settings, tree)
        self.arrivals = Arrivals(str(self.spool / "done"))
        self._docker = docker.APIClient(base_url=settings.docker.host, version="auto")
        self._serial = self.containers_at_rest = 0

    def close(self) -> None:
        """End the daemons, the watch and the connection to the engine."""
        self.daemons.end()
        self.arrivals.close()
        self._docker.close()

    # -- submissions

    def drop(self, program: Program) -> str:
        """Drop a submission and return its id."""
        return self._publish(*self._write(program))

    def _write(self, program: Program) -> tuple[Path, str]:
        self._serial += 1
        id_ = f"{self.name}-{self._serial}"
        private = self.spool / "incoming" / f".{id_}.tmp"
        private.write_bytes(program.request)
        return private, id_

    def _publish(self, private: Path, id_: str) -> str:
        private.rename(private.with_name(f"{id_}.json"))
        return id_

    def seen(self, id_: str) -> float:
        """Wait for the response of ``id_``, and return when (on the monotonic clock) it became visible."""
        moment = self.arrivals.wait(id_, RESPONSE_TIMEOUT)
        if moment is None:
            raise MeasuringError(f"{id_}: no response in {RESPONSE_TIMEOUT:g} s{self.daemons.said()}")
        return moment

    def check(self, program: Program, id_: str) -> None:
        """Raise :class:`MeasuringError` unless the response is what it should be."""
        response: Any = json.loads((self.spool / "done" / f"{id_}.response.json").read_bytes())
        if (response["status"], response["run"]["stdout"]) != (Status.COMPLETED, program.output):
            raise MeasuringError(f"{id_}: unexpected response: {response}{self.daemons.said()}")

    def burst(self, programs: Sequence[Program]) -> float:
        """See :class:`benchmarks.ways.Way`."""
        written = [self._write(program) for program in programs]
        began = time.monotonic()
        ids = [self._publish(*each) for each in written]
        taken = max(self.seen(id_) for id_ in ids) - began
        for program, id_ in zip(programs, ids, strict=True):
            self.check(program, id_)
        return taken

    def paced(self, program: Program, gaps: list[float]) -> list[float]:
        """See :class:`benchmarks.ways.Way`."""
        written = iter([self._write(program) for _ in gaps])
        dropped = {self._publish(*next(written)): moment for moment in moments(gaps)}
        taken = [self.seen(id_) - moment for id_, moment in dropped.items()]
        for id_ in dropped:
            self.check(program, id_)
        return taken

    def rest(self) -> None:
        """Wait until there are as many containers as before anything ran, so that none is being made or removed.

        If that does not happen, the machine was slow when they were counted, and the number of now counts instead.
        """
        deadline = time.monotonic() + UNREST
        while self.containers() != self.containers_at_rest and time.monotonic() < deadline:
            time.sleep(0.1)  # each look asks the engine: more of them would be a load
        self.containers_at_rest = self.containers()

    def containers(self) -> int:
        """Return how many containers this spool's executor has."""
        return len(self.container_ids())

    def a_container(self) -> int:
        """Return the pid of the first process in one of the containers."""
        pid: int = self._docker.inspect_container(next(iter(self.container_ids())))["State"]["Pid"]
        return pid

    def container_ids(self) -> set[str]:
        """Return the ids of this spool's containers."""
        if self.settings.sandbox.engine == "oci":
            return {path.name for path in Path(self.settings.oci.state).glob("*/*/spoold-*")}
        found = self._docker.containers(all=True, filters={"label": f"spoold.spool={self.spool}"})
        return {str(container["Id"]) for container in found}

    # -- what peers get too

    @property
    def runtime(self) -> Runtime:
        """Return the runtime that the builder provides."""
        return msgspec.json.decode((self.spool / "builds" / "runtime.json").read_bytes(), type=Runtime)

    def path(self, program: Program) -> str:
        """Return the PATH with which a peer runs ``program`` in the same store, where it has been built already."""
        built = [json.loads(path.read_bytes()) for path in (self.spool / "builds" / "done").glob("*.response.json")]
        packages = {p["name"]: p["path"] for record in built for p in record["result"]["packages"]}
        wanted = [next(packages[name] for name in packages if name.startswith(p)) for p in program.packages]
        return ":".join(f"{path}/bin" for path in [*wanted, self.runtime.coreutils, self.runtime.bash])

    @property
    def image(self) -> str:
        """Return the name of the sandboxes' image."""
        return str(self._docker.images("spoold-sandbox")[0]["RepoTags"][0])

    # -- a full queue

    def fill(self, count: int) -> None:
        """Put ``count`` accepted submissions into ``new/`` as intake would; the executor must not run meanwhile."""
        request = msgspec.json.decode(TRIVIAL.request, type=Request)
        origin = Origin(uid=os.getuid(), gid=os.getgid(), sha256="0" * 64, arrival=time.time())
        for number in range(count):
            id_ = f"fill-{self._serial}-{number}"
            submission = Submission(Submission_id=id_, Request=request, Response=Response(), Spool=origin)
            (self.spool / "ids" / id_).symlink_to(str(origin.uid))
            (self.spool / "new" / f"{id_}@{origin.uid}-1.json").write_bytes(msgspec.json.encode(submission))
        self._serial += 1

    def empty(self) -> None:
        """Remove the submissions that wait, once intake has taken all in; the executor must not run meanwhile."""
        while any(name.endswith(".json") for name in os.listdir(self.spool / "incoming")):
            time.sleep(0.1)  # nothing is measured now, and intake does not say when it has taken all in
        for directory in ("new", "ids"):
            for path in (self.spool / directory).iterdir():
                path.unlink()


def settle(spools: Collection[Served]) -> None:
    """Note how many containers each spool has when nothing runs: once the number is the same a second later."""
    earlier: list[int] = []
    while (now := [served.containers() for served in spools]) != earlier:
        earlier = now
        time.sleep(1.0)  # longer than it takes to make a container, so the same number twice means rest
    for served, count in zip(spools, now, strict=True):
        served.containers_at_rest = count
