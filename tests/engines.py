"""Where the tests find the real engines: Docker, Nix, and a nixpkgs that needs no network.

A missing engine skips a test at a contributor's desk and fails it in CI. contrib/test provides all of them and names
them in $SPOOLD_TEST_DOCKER and $SPOOLD_TEST_NIXPKGS. $SPOOLD_TEST_STATE may name a Nix state directory that is kept
from one session to the next. It saves time for people who run a few tests again and again. $SPOOLD_TEST_SLOWNESS says
how many times slower than a common machine an emulated one is (contrib/development/vm). Limits of time grow with it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import docker
import pytest
import requests

from spoold.config import NixSettings
from spoold.host import cgroups

REPOSITORY = Path(__file__).resolve().parents[1]
SLOWNESS = float(os.environ.get("SPOOLD_TEST_SLOWNESS", "1"))
PATIENCE = 200 * SLOWNESS  # seconds for a dockerd to start, and to end with its containers
OCI = "oci"  # stands in place of the URL of a Docker Engine, because this engine has no daemon
DEFAULT_DOCKER = "unix:///var/run/docker.sock"
nix_state = NixSettings().state  # of the store for this session's jobs; the fixture nix_settings sets another
NIX_PROGRAMS = ("nix-store", "nix-instantiate", "bwrap")


def quickest(act: Callable[[], object], times: int = 3) -> float:
    """Return the seconds of the quickest of some calls. The slower ones include what else the machine did meanwhile."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        act()
        took.append(time.monotonic() - began)
    return min(took)


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    text = f"{reason}; contrib/test provides all that the tests need"
    if os.environ.get("CI"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def need_oci() -> None:
    """Skip or fail where the engine oci can't make containers."""
    if os.geteuid() != 0:
        unavailable("the engine oci is tested as root")
    if not shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin"):
        unavailable("not installed: runc")
    if cgroups.delegable() and not cgroups.unified(cgroups.own_group()):
        _enter_a_group_of_our_own()


def _enter_a_group_of_our_own() -> None:
    """Move to a control group that we may divide, like a unit with Delegate=yes. At the end of the tests, leave it."""
    before, made = cgroups.own_group(), cgroups.MOUNT / f"spoold-tests-{os.getpid()}"
    made.mkdir(exist_ok=True)  # an ended process with our number may have left one
    os.setxattr(made, cgroups.DELEGATED[1], b"1")
    (made / "cgroup.procs").write_text(str(os.getpid()))

    def leave() -> None:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        for each in (made / cgroups.LEAF, made):
            with contextlib.suppress(OSError):  # a process that a test started may still be in it
                each.rmdir()

    atexit.register(leave)


def docker_url() -> str:
    """Return the URL of a Docker Engine that answers."""
    chosen = os.environ.get("SPOOLD_TEST_DOCKER") or os.environ.get("DOCKER_HOST") or DEFAULT_DOCKER
    if chosen.startswith("unix://") and not Path(chosen.removeprefix("unix://")).exists():
        unavailable(f"there is no Docker Engine at {chosen}")
    try:
        client = docker.APIClient(base_url=chosen, version="auto", timeout=100)
        try:
            client.ping()
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException) as error:
        unavailable(f"no Docker Engine answers at {chosen}: {error}")
    return chosen


def need_nix() -> None:
    """Skip or fail where Nix or its sandbox is missing."""
    missing = [program for program in NIX_PROGRAMS if shutil.which(program) is None]
    if missing:
        unavailable(f"not installed: {', '.join(missing)} (Debian packages nix-bin and bubblewrap)")


def make_nixpkgs(out: Path) -> None:
    """Make a nixpkgs out of Debian packages. This is quick when it exists already."""
    if shutil.which("apt-get") is None:
        unavailable("a nixpkgs can only be made from Debian packages on Debian; name one in $SPOOLD_TEST_NIXPKGS")
    made = subprocess.run(
        [REPOSITORY / "contrib/nixpkgs-debian/make", out], stderr=subprocess.PIPE, text=True, check=False
    )
    if made.returncode != 0:
        unavailable(f"no nixpkgs could be made: {made.stderr.strip()}")


def remove_store(state: Path) -> None:
    """Remove a Nix state directory. Directories in a store are read-only, so they are made writable first."""
    while state.exists():
        with contextlib.suppress(FileNotFoundError):  # processes of an ended test may still end and remove files
            for directory, _, _ in os.walk(state):
                Path(directory).chmod(0o700)
            shutil.rmtree(state)


class Daemon:
    """A dockerd and a containerd for one test, as two services, as distributions have them.

    After a kill, a dockerd that starts its containerd itself can't be started again at once. It takes the containerd
    that is still dying, or another process that got its number, for a living one, and waits for it in vain.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/s"
        self.containerd = self._start_containerd()
        self.start()

    def start(self) -> None:
        """Start dockerd and wait for its answer."""
        self.launch()
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)

    def launch(self) -> None:
        """Start dockerd."""
        d = self.directory
        # A killed dockerd leaves this file. Its number soon belongs to another process here, and dockerd would not
        # start.
        (d / "pid").unlink(missing_ok=True)
        options = f"--data-root={d}/root --exec-root={d}/exec --pidfile={d}/pid --containerd={d}/c"
        command = ["dockerd", "-H", self.host, *options.split(), "--bridge=none", "--iptables=false"]
        with (d / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def answers(self) -> bool:
        """Tell whether dockerd answers now."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(f"{self.directory}/s")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(100)
            except OSError:
                return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End dockerd."""
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)

    def close(self) -> None:
        """End both, and all their containers with them."""
        if self.process.poll() is not None:
            self.start()  # only a dockerd that ends in good order ends its containers
        self.stop()
        self.containerd.terminate()
        self.containerd.wait(timeout=PATIENCE)
        self._end_shims()
        subprocess.run(["umount", "-q", self.directory / "root"], check=False)

    def _end_shims(self) -> None:
        """End shims that no daemon knows any more, because both daemons were killed while a container started."""
        parents: dict[int, list[int]] = {}
        shims = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command, status = (process / "cmdline").read_bytes(), (process / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(process.name))
            if b"containerd-shim" in command and os.fsencode(self.directory / "c") in command.split(b"\0"):
                shims.append(int(process.name))
        for shim in shims:
            for number in (*parents.get(shim, ()), shim):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def restart_containerd(self) -> None:
        """Kill containerd and start it again."""
        self.containerd.kill()
        self.containerd.wait()
        self.containerd = self._start_containerd()

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        d = self.directory
        settings = [
            "version = 2",
            f'root = "{d}/containerd"',
            f'state = "{d}/containerd-state"',
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
            f'[grpc]\naddress = "{d}/c"',
        ]
        (d / "containerd.toml").write_text("\n".join(settings) + "\n")
        with (d / "log").open("ab") as log:
            command = ["containerd", "--config", str(d / "containerd.toml")]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def said(self) -> str:
        """Return the end of both logs."""
        return (self.directory / "log").read_text()[-2000:]
