"""The commands of the pages about other hosts: through ssh, NFS and Slurm, and in a file that is carried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, NixSettings, SandboxSettings, Settings, SpoolSettings
from spoold.nix import places as stores
from spoold.spool import layout
from tests.clusters import Cluster, Real, StandIn
from tests.docs import units
from tests.docs.shell import Reader
from tests.docs.test_guides import LEASE, plainly, programs, variables, write_settings
from tests.engines import REPOSITORY, unavailable
from tests.remote import nfs
from tests.remote.room import GATEWAY, Room, User, need, user

HOW_TO = REPOSITORY / "contrib/docs/how-to"
SPOOL = "/var/spool/spoold"
SETTINGS = "/etc/spoold/spoold.toml"
HOSTS = ("packages", "exam")


def program(path: Path, text: str) -> None:
    """Write a shell program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# -- SSH


class PlainRoom(Room):
    """A room whose jobs are plain processes."""

    def _start_daemons(self) -> subprocess.Popen[bytes]:
        roles = "intake,builder,executor,health"
        with (self.directory / "log").open("wb") as log:
            command = [sys.executable, "-m", "tests.docs.plain", str(self.config), roles]
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)


@pytest.fixture
def judge() -> Iterator[tuple[PlainRoom, User]]:
    """Yield a host with a spool, an sshd and a user."""
    need()
    with user(0) as ann:
        directory = Path(tempfile.mkdtemp(prefix="spoold-judge."))
        directory.chmod(0o711)
        made = PlainRoom(directory, [ann])
        try:
            yield made, ann
        finally:
            made.stop()
            shutil.rmtree(directory)


def client_of(room: Room, account: User, key: str, place: Path) -> dict[str, str]:
    """Return the variables of a shell whose ssh and scp know the host ``judge`` by a configuration of their own."""
    programs(place)
    config = place / "config"
    config.write_text(
        f"Host judge\nHostName 127.0.0.1\nPort {room.port}\nUser {account.name}\nIdentityFile {room.key(key)}\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nBatchMode yes\nLogLevel ERROR\n"
    )
    for name in ("ssh", "scp"):
        program(place / name, f'exec {shutil.which(name)} -F {config} "$@"')
    return variables(place)


def test_the_page_about_ssh(judge: tuple[PlainRoom, User], tmp_path: Path) -> None:
    room, ann = judge
    gateway = room.directory / "gateway"
    shutil.copy(GATEWAY, gateway)
    gateway.chmod(0o755)
    room.authorize(ann, "forced", f'command="{gateway} --spool {room.spool}",restrict')
    hosts = {
        "here": client_of(room, ann, ann.name, tmp_path / "shell"),
        "gateway": client_of(room, ann, "forced", tmp_path / "forced"),
    }
    with Reader(tmp_path / "hosts", hosts, {SPOOL: str(room.spool)}) as reader:
        reader.follow(HOW_TO / "ssh.md")


# -- NFS

MOUNT = """
[ "$1 $2 $3 $4" = "-t nfs -o vers=4.2,hard,lookupcache=positive" ] || exit 32
cd {checkout}
{python} -m tests.remote.mount {port} "$6" >{log} 2>&1 </dev/null &
until mountpoint -q "$6"; do kill -0 $! || exit 1; sleep 0.1; done
"""


def test_the_page_about_nfs(tmp_path: Path) -> None:
    """The server is real. A client in FUSE stands for the kernel's."""
    if shutil.which("fusermount3") is None:
        unavailable("not installed: fuse3")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("only root can mount, and this kernel or this container may have no FUSE")
    exported, at = tmp_path / "exported", tmp_path / "mounted"
    exported.mkdir()
    bin_ = programs(tmp_path / "bin")
    with plainly(exported, answers="owner"), nfs.serving(exported, tmp_path / "nfs") as server:
        words = {"checkout": REPOSITORY, "python": sys.executable, "port": server.port, "log": tmp_path / "mount.log"}
        program(bin_ / "mount", MOUNT.format(**words))
        try:
            with Reader(
                tmp_path / "hosts",
                {"here": variables(bin_)},
                {
                    "spool=/mnt/spool": f"spool={at}/spool",
                    "--spool /mnt/spool": f"--spool {at}/spool",
                    "/mnt/spool": str(at),
                },
            ) as reader:
                reader.follow(HOW_TO / "nfs.md")
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(at)], check=False)


# -- Slurm


@pytest.mark.parametrize("kind", ["stand-in", "slurm"])
def test_the_page_about_slurm(tmp_path: Path, kind: str) -> None:
    cluster: Cluster = StandIn(tmp_path / "slurm") if kind == "stand-in" else Real()
    bin_ = programs(tmp_path / "bin")
    pilot = tmp_path / "pilot"
    program(pilot, f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.pilot "$@"')
    config = write_settings(tmp_path)
    program(
        bin_ / "systemctl", f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.docs.units {tmp_path}/units "$@"'
    )
    router = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(config), "executor", "--route-only"]
    plain = [sys.executable, "-m", "tests.docs.plain", str(config), "intake,builder,health"]
    scale = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(config), "scale"]
    made = units.write(
        tmp_path / "units",
        {"spoold.target": {"spoold-head": plain, "spoold-router": [*router, "--name", "head"]}, "spoold-scale": scale},
    )
    pool = f'[scale.pools.grading]\nprogram = "{pilot}"\nconfig = "{config}"'
    environment = variables(bin_, SPOOLD_SPOOL=str(tmp_path / "spool"), PYTHONPATH=str(REPOSITORY))
    environment |= {**cluster.variables, "PATH": f"{bin_}:{cluster.variables['PATH']}"}
    try:
        made.start("spoold.target")
        with Reader(
            tmp_path / "hosts", {"here": environment}, {SETTINGS: str(config), "[scale.pools.grading]": pool}
        ) as reader:
            reader.follow(HOW_TO / "slurm.md")
    finally:
        made.stop("spoold-scale")
        made.stop("spoold.target")
        cluster.stop()


# -- a host without network


@contextmanager
def host(directory: Path, like: Settings, docker: str) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the variables of a shell on a host with its own daemons and store, and the host's settings file."""
    directory.mkdir()
    bin_ = programs(directory / "bin")
    state = directory / "units"
    settings = msgspec.structs.replace(
        like,
        spool=SpoolSettings(path=str(directory / "spool"), settle=60.0, scan=0.5),
        lease=LEASE,
        docker=DockerSettings(host=docker),
        sandbox=SandboxSettings(waiting=1),
        nix=NixSettings(state=str(directory / "state"), system=like.nix.system),
    )
    layout.create(settings.spool.path)
    stores.create(settings.nix.state)
    config = directory / "spoold.toml"
    lines = msgspec.toml.encode(settings).decode().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(("signing_key", "trusted_public_keys"))))
    program(bin_ / "systemctl", f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.docs.units {state} "$@"')
    command = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(config), "all"]
    made = units.write(state, {"spoold.target": {"spoold-all": command}})
    made.start("spoold.target")
    try:
        yield variables(bin_, SPOOLD_CONFIG=str(config), PYTHONPATH=str(REPOSITORY)), config
    finally:
        made.stop("spoold.target")


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(900)
def test_the_page_about_a_host_without_network(tmp_path: Path, nix_settings: Settings, docker_host: str) -> None:
    (tmp_path / "media").mkdir()
    with ExitStack() as held:
        made = {name: held.enter_context(host(tmp_path / name, nix_settings, docker_host)) for name in HOSTS}
        places: dict[str, str | dict[str, str]] = {
            "/etc/spoold": {name: str(config.parent) for name, (_, config) in made.items()},
            "/media/exam": str(tmp_path / "media"),
        }
        hosts = {name: shell for name, (shell, _) in made.items()}
        held.enter_context(Reader(tmp_path / "hosts", hosts, places)).follow(HOW_TO / "air-gapped.md")
