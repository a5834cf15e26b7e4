"""Docker Engines for tests in uncommon set-ups: userns-remap, rootless, other runtimes.

``keep_docker`` in contrib/development/lib.sh starts them, as it does contrib/test's own engine. Each ends with
everything that it made when its standard input ends, so even a killed test run leaves none behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from spoold.engines.docker.connection import DockerConnection
from spoold.host import accounts
from spoold.model.errors import OperatorError, TemporaryError
from tests import users
from tests.engines import REPOSITORY, SLOWNESS, unavailable

PATIENCE = 200.0 * SLOWNESS  # seconds until an engine answers, and until it has ended
ROOTLESS_USER = "spoold-rootless"  # and numbers
NUMBERS = itertools.count(1)
REMAPPED_USER = "dockremap"  # as dockerd calls it


def need(*programs: str) -> None:
    """Skip or fail where a program is missing, or where we are not root."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        unavailable(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        unavailable("only root can start a Docker Engine in another set-up")


@contextlib.contextmanager
def engine(*options: str, wrappers: dict[str, str] | None = None) -> Iterator[str]:
    """Yield the URL of a dockerd with these options. ``wrappers`` are further runtimes: names and commands."""
    need("dockerd")
    run = Path(tempfile.mkdtemp(prefix="spoold-docker.", dir="/tmp"))  # paths of sockets must be short
    run.chmod(0o711)
    for name, runtime in (wrappers or {}).items():
        (run / name).write_text(f'#!/bin/sh\nexec {runtime} "$@"\n')
        (run / name).chmod(0o755)
        options = (*options, "--add-runtime", f"{name}={run / name}")
    script = f"""
        set -euo pipefail
        root={shlex.quote(str(REPOSITORY))} work=/nonexistent
        source "$root/contrib/development/lib.sh"
        keep_docker {shlex.quote(str(run))} {os.getgid()} {shlex.join(options)}
    """
    command = ["setsid", "--wait", "unshare", "--mount", "--propagation", "slave", "bash", "-c", script]
    with (run / "log").open("wb") as log:
        keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        url = f"unix://{run}/socket"
        _wait_for(url, keeper, run / "log")
        yield url
    finally:
        keeper.communicate(b"stop\n", timeout=PATIENCE)
        shutil.rmtree(run, ignore_errors=True)


@contextlib.contextmanager
def rootless_engine() -> Iterator[str]:
    """Yield the URL of a dockerd that an ordinary user runs, and that has no control groups for containers."""
    need("dockerd", "rootlesskit", "newuidmap", "setpriv", "useradd")
    run = Path(tempfile.mkdtemp(prefix="spoold-docker.", dir="/tmp"))
    with ordinary_user() as user:
        shutil.chown(run, user, pwd.getpwnam(user).pw_gid)
        inside = f"""
            rm -rf /run/docker /run/containerd /run/xtables.lock
            exec dockerd --rootless --data-root {run}/data --exec-root {run}/exec --pidfile {run}/pid \
                --host unix://{run}/socket --bridge none --iptables=false --exec-opt native.cgroupdriver=cgroupfs
        """
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig", "TERM", "--"]
        command += ["env", "-i", f"PATH={os.environ['PATH']}:/usr/sbin:/sbin", f"HOME={run}", f"XDG_RUNTIME_DIR={run}"]
        command += ["rootlesskit", "--net=host", "--copy-up=/etc", "--copy-up=/run", f"--state-dir={run}/kit"]
        with (run / "log").open("wb") as log:
            kit = subprocess.Popen([*command, "sh", "-c", inside], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_for(f"unix://{run}/socket", kit, run / "log")
            yield f"unix://{run}/socket"
        finally:
            kit.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                kit.wait(20)
            kit.kill()
            kit.wait()
            shutil.rmtree(run, ignore_errors=True)


@contextlib.contextmanager
def remapping_engine() -> Iterator[str]:
    """Yield the URL of a dockerd with userns-remap. It makes the user to whom users in containers are mapped."""
    with _gone_at_the_end(REMAPPED_USER), engine("--userns-remap=default") as url:
        yield url


@contextlib.contextmanager
def ordinary_user() -> Iterator[str]:
    """Yield the name of a new user with subordinate ids."""
    name = f"{ROOTLESS_USER}-{os.getpid()}-{next(NUMBERS)}"
    if accounts.uid_of(name) is not None:  # a killed run that had our number left it
        users.change("userdel", name)
    with _gone_at_the_end(name):
        users.change("useradd", "--system", "--user-group", "--home-dir", "/nonexistent", name)
        with Path(tempfile.gettempdir(), "spoold-tests.subids").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of tests must not find the same free ids
            lines = [line.split(":") for file in ("/etc/subuid", "/etc/subgid") for line in _lines(file)]
            free = max([100000, *(int(start) + int(count) for _, start, count in lines)])
            ids = f"{free}-{free + 65535}"
            users.change("usermod", "--add-subuids", ids, "--add-subgids", ids, name)
        yield name


@contextlib.contextmanager
def _gone_at_the_end(user: str) -> Iterator[None]:
    """Remove a user that is made in the block. A user that existed before stays."""
    there = accounts.uid_of(user) is not None
    try:
        yield
    finally:
        if not there and accounts.uid_of(user) is not None:
            users.change("userdel", user)


def _lines(file: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return Path(file).read_text().splitlines()
    return []


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(TemporaryError, OperatorError), DockerConnection(url).client() as api:
            api.ping()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            unavailable(f"dockerd does not start in this set-up: {log.read_text()[-2000:]}")
        time.sleep(0.1)
