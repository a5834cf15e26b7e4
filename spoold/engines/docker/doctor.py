"""The doctor's look at Docker: who may use its socket, how old it is, and which isolation it can give."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from spoold.config import Settings
from spoold.engines.docker import checks
from spoold.engines.docker.connection import DockerConnection
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.host import accounts, packages, proc
from spoold.model import holes
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.findings import Finding, Level, Subject
from spoold.model.job import Runtime
from spoold.sandbox import trial_of_jobs

EXECUTOR, DOCKER = "spoold-executor", "docker"  # the executor's user and its further group, as the unit has them
ENGINE = "Docker Engine"  # which calls itself Engine among its components
OLD = timedelta(days=548)  # since an engine was built; all maintainers of engines publish more often


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; without a ``runtime``, which a builder provides, no container is tried."""
    what, engine = Subject(ENGINE), DockerConnection(settings.docker.host)
    yield from _socket(engine.where)
    try:
        with engine.client() as api:
            information, version = api.info(), api.version()
    except OperatorError as error:
        yield what.unknown(str(error), "run the doctor as the executor's user, or as root")
        return
    except SpooldError as error:
        yield what.refused(str(error), "start Docker, or set docker.host")
        return
    yield from _versions(version)
    found = checks.of_engine(information, settings)
    yield from found
    if "crun" in (information.get("Runtimes") or ()):
        yield _crun()
    if any(finding.level is Level.REFUSED for finding in found):
        return
    if runtime is None:
        yield trial_of_jobs.no_runtime()
        return
    tried = DockerSandbox(trial_of_jobs.on_trial(settings), runtime)
    yield from trial_of_jobs.examine(tried, settings, runtime, "read the engine's own log")


def _socket(where: str) -> Iterator[Finding]:
    if not where.startswith("unix://"):
        yield Subject(f"Docker at {where}").warning(
            "every client that can reach this address can become root on the engine's host",
            "use the Unix socket, or use TLS with client certificates and a firewall",
        )
        return
    path = where.removeprefix("unix://")
    what = Subject(f"Docker's socket {path}")
    try:
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
    except OSError:
        return  # the call that connects says it better
    if mode & 0o006:
        yield what.refused(f"mode {mode:04o}: every user of this host can become root through it", f"chmod 0660 {path}")
    else:
        yield what.fine(f"mode {mode:04o}")
    yield from _reach(path, found)


def _reach(path: str, found: os.stat_result) -> Iterator[Finding]:
    """Check whether the executor's user, where it has one of its own, may use the socket."""
    uid = accounts.uid_of(EXECUTOR)
    if uid is None:
        return
    what = Subject(f"Docker's socket, for {EXECUTOR}")
    groups = accounts.groups_of(EXECUTOR) | {accounts.gid_of(DOCKER)}  # the unit adds the latter
    if found.st_uid == uid or (found.st_gid in groups and found.st_mode & stat.S_IWGRP):
        yield what.fine("is open to the executor")
    else:
        remedy = f"chgrp {DOCKER} {path}; chmod g+rw {path} (or restart the engine)"
        yield what.warning("is closed to the executor", remedy)


def _versions(version: dict[str, Any]) -> Iterator[Finding]:
    yield _age(version)
    for component in version.get("Components") or ():
        name = ENGINE if component["Name"] == "Engine" else component["Name"]
        if name in holes.HOLES:
            yield holes.finding(name, component["Version"], *packages.of("dockerd" if name == ENGINE else name))


def _crun() -> Finding:
    """Ask crun itself, since the engine tells only of its default runtime."""
    try:
        said = proc.run(["crun", "--version"], packages.BOUNDS).stdout.data.decode(errors="replace")
    except OperatorError:
        said = ""
    version = said.partition("crun version ")[2].split("\n")[0]
    if not version:
        return Subject("crun").unknown("the engine has it, but it is not on the PATH of this command")
    return holes.finding("crun", version, *packages.of("crun"))


def _age(version: dict[str, Any]) -> Finding:
    what = Subject(f"{ENGINE} {version.get('Version', '')}")
    try:
        built = datetime.fromisoformat(str(version.get("BuildTime"))[:10]).replace(tzinfo=UTC)
    except ValueError:
        return what.unknown("the engine does not say when it was built")
    if datetime.now(UTC) - built > OLD:
        return what.warning(
            f"built on {built:%Y-%m-%d}: a version so old probably gets no more security fixes",
            "upgrade Docker, or the distribution that ships it",
        )
    return what.fine(f"built on {built:%Y-%m-%d}")
