"""Where the tests find the real engines: Docker, Nix, and a nixpkgs that needs no network.

A missing engine skips a test at a contributor's desk and fails it in CI. contrib/test provides all of them and says
where they are in $SPOOLD_TEST_DOCKER and $SPOOLD_TEST_NIXPKGS. $SPOOLD_TEST_STATE may name a Nix state directory that
is kept from one session to the next, for whoever runs a few tests again and again. $SPOOLD_TEST_SLOWNESS says how many
times slower than a common machine this one is, where it is emulated (contrib/development/vm): limits of time grow
with it.
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
OCI = "oci"  # in place of the URL of a Docker Engine: none is needed
DEFAULT_DOCKER = "unix:///var/run/docker.sock"
nix_state = NixSettings().state  # of the store that this session's jobs get; the fixture nix_settings names its own
NIX_PROGRAMS = ("nix-store", "nix-instantiate", "bwrap")


def quickest(act: Callable[[], object], times: int = 3) -> float:
    """Return how many seconds the quickest of some calls took: what else the machine did meanwhile is in the others."""
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
    """Skip or fail where no container can be made without a daemon."""
    if os.geteuid() != 0:
        unavailable("the engine oci is tested as root")
    if not shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin"):
        unavailable("not installed: runc")
    if cgroups.delegable() and not cgroups.unified(cgroups.own_group()):
        _enter_a_group_of_our_own()


def _enter_a_group_of_our_own() -> None:
    """Move to a group that is ours to divide, as under a unit with Delegate=yes; at the end of the tests out of it."""
    before, made = cgroups.own_group(), cgroups.MOUNT / f"spoold-tests-{os.getpid()}"
    made.mkdir(exist_ok=True)  # one of that number may have left it
    os.setxattr(made, cgroups.DELEGATED[1], b"1")
    (made / "cgroup.procs").write_text(str(os.getpid()))

    def leave() -> None:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        for each in (made / cgroups.LEAF, made):
            with contextlib.suppress(OSError):  # what a test started may be in it
                each.rmdir()

    atexit.register(leave)


def docker_url() -> str:
    """Return the URL of an engine that answers."""
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
    """Make a nixpkgs out of Debian packages; quick when it is there already."""
    if shutil.which("apt-get") is None:
        unavailable("a nixpkgs can only be made from Debian packages on Debian; name one in $SPOOLD_TEST_NIXPKGS")
    made = subprocess.run(
        [REPOSITORY / "contrib/nixpkgs-debian/make", out], stderr=subprocess.PIPE, text=True, check=False
    )
    if made.returncode != 0:
        unavailable(f"no nixpkgs could be made: {made.stderr.strip()}")


def remove_store(state: Path) -> None:
    """Remove a Nix state directory: the directories in a store are read-only, also for their owner."""
    while state.exists():
        with contextlib.suppress(FileNotFoundError):  # what an ended test had begun may end, and tidy up, only now
            for directory, _, _ in os.walk(state):
                Path(directory).chmod(0o700)
            shutil.rmtree(state)


class Daemon:
    """A dockerd of the test's own, and its containerd: two services, as distributions have them.

    A dockerd that starts its containerd itself cannot be started again at once after a kill: it takes the one that is
    still dying, or whoever has its number by then, for a living one, and waits for that in vain.
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
        # Left by one that was killed; its number is soon another's here, and dockerd would not start.
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
        """End both, and with them all containers."""
        if self.process.poll() is not None:
            self.start()  # only a dockerd that ends in good order ends the containers
        self.stop()
        self.containerd.terminate()
        self.containerd.wait(timeout=PATIENCE)
        self._end_shims()
        subprocess.run(["umount", "-q", self.directory / "root"], check=False)

    def _end_shims(self) -> None:
        """End what nobody knows of any more: both were killed in the middle of a container's start."""
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
        """Return the end of what both wrote into their log."""
        return (self.directory / "log").read_text()[-2000:]
