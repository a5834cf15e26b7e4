"""spoolctl doctor on the host of the tests, and on hosts with something wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from filelock import FileLock
from msgspec.structs import replace

from spoold.cli import doctor as cli
from spoold.cli import exits
from spoold.config import DockerSettings, ExecutorSettings, NixSettings, SandboxSettings, Settings, SpoolSettings
from spoold.doctor import budget, installation, kernel, nix, protection, sandbox, spool, stores, trial_of_builds
from spoold.engines.docker import doctor as docker_doctor
from spoold.engines.docker import walls
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.host import accounts, cgroups, machine, packages, units, userns
from spoold.host.accounts import Accounts
from spoold.model import holes
from spoold.model.findings import Finding, Level, Subject
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import Limits
from spoold.model.response import SKIPPED_PHASE
from spoold.nix import cage, command, confine, seat
from spoold.sandbox import trial_of_jobs
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from tests.engines import REPOSITORY
from tests.rights import in_child

SOCKETS, SHORT = "memory in a job's sockets", "a job on a host that is short of memory"
MANY = "a job that makes too many files"


def said(found: Iterable[Finding], level: Level) -> str:
    return "\n".join(str(finding) for finding in found if finding.level is level)


def doctor(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    config = Path(settings.spool.path).parent / "spoold.toml"
    config.write_bytes(msgspec.toml.encode(msgspec.to_builtins(settings)))
    argv = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(config), "doctor", *options]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


def test_files_of_private_caches(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine cache.example.org login me password secret")
    netrc.chmod(0o644)
    found = list(nix._private_caches(NixSettings(netrc=str(netrc), certificates="/no/such/file")))
    assert "can be read by all users" in said(found, Level.WARNING)
    assert "/no/such/file: No such file or directory; the builder fetches nothing" in said(found, Level.REFUSED)
    netrc.chmod(0o400)
    assert {each.level for each in nix._private_caches(NixSettings(netrc=str(netrc)))} == {Level.FINE}
    closed = NixSettings(certificates=str(netrc), fetch=["mirror.example"])
    assert "and their users cannot read it" in said(list(nix._private_caches(closed)), Level.WARNING)
    netrc.chmod(0o644)
    assert {each.level for each in nix._private_caches(closed)} == {Level.FINE}
    assert not list(nix._private_caches(NixSettings()))


@pytest.mark.docker
@pytest.mark.nix
def test_a_host_that_is_fit(settings: Settings, docker_host: str, runtime: Runtime) -> None:
    BuildStore(settings).runtime.provide(runtime)
    done = doctor(settings, "--json")
    assert done.returncode == exits.OK, done.stdout + done.stderr
    found = {each["what"]: each for each in json.loads(done.stdout)["findings"]}
    assert "refused" not in {each["level"] for each in found.values()}
    for what in (
        "locks and watches in the Nix store",
        "a job on trial",
        "a job that takes too much memory",
        "jail of evaluations",
        "seccomp",
        "nixpkgs",
        SOCKETS,
        SHORT,
        MANY,
    ):
        assert found[what]["level"] == "fine", found[what]
    if os.geteuid() == 0:
        assert found["Nix's build sandbox"]["level"] == "fine", found["Nix's build sandbox"]
    assert found["leases"]["level"] == "fine"


@pytest.mark.docker
@pytest.mark.nix
def test_before_anything_runs_it_says_what_it_could_not_look_at(settings: Settings, docker_host: str) -> None:
    nowhere = replace(settings.nix, state="/nonexistent/state")
    bare = replace(settings, nix=nowhere, nixpkgs={"default": "https://example.org/nixpkgs.tar.gz"})
    done = doctor(bare)
    assert done.returncode == exits.OK, done.stdout + done.stderr
    assert re.search(r"not looked at +a job on trial", done.stdout)
    assert re.search(r"not looked at +Nix's build sandbox", done.stdout)
    assert "0 refused" in done.stdout
    assert doctor(bare, "--strict").returncode == exits.FAILED
    assert not os.path.exists("/nonexistent")


def test_without_a_spool_and_an_engine(tmp_path: Path) -> None:
    nowhere = Settings(
        spool=SpoolSettings(path=str(tmp_path / "none")), docker=DockerSettings(host=f"unix://{tmp_path}/none.sock")
    )
    done = doctor(nowhere)
    assert done.returncode == exits.FAILED
    assert "→ spoolctl init" in done.stdout
    assert "none.sock" in done.stdout


def test_another_engine_is_asked_and_nothing_is_said_of_docker(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}/contrib/development", prepend=":")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    done = doctor(replace(own, sandbox=SandboxSettings(engine="benchmarks.nothing")), "--json")
    found = {each["what"]: each for each in json.loads(done.stdout)["findings"]}
    assert found["an engine that does nothing"]["level"] == "note"
    assert "core dumps of jobs" in found  # holds for each engine
    assert "docker" not in (done.stdout + done.stderr).lower()
    assert "docker" in doctor(own, "--json").stdout.lower()


def test_an_engine_that_there_is_not(own: Settings) -> None:
    found = list(sandbox.examine(replace(own, sandbox=SandboxSettings(engine="dokcer")), None))
    assert "sandbox engine: sandbox.engine: there is no 'dokcer'" in said(found, Level.REFUSED)


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Return settings with a spool, without an engine."""
    layout.create(str(tmp_path / "spool"))
    (tmp_path / "state").mkdir(mode=0o700)
    return Settings(spool=SpoolSettings(path=str(tmp_path / "spool")), nix=NixSettings(state=str(tmp_path / "state")))


def test_a_spool_as_it_should_be(own: Settings) -> None:
    found = list(spool.examine(own))
    assert not said(found, Level.REFUSED)
    assert "directories and modes are as they should be" in said(found, Level.FINE)
    assert "rename, link and symlink in the spool: work" in said(found, Level.FINE)
    assert os.listdir(f"{own.spool.path}/tmp") == []
    assert os.listdir(f"{own.spool.path}/quarantine") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_a_spool_that_is_shared_by_users_as_it_should_be(own: Settings) -> None:
    layout.create(own.spool.path, Accounts(64_000, dict.fromkeys(layout.USERS.values(), 64001)))
    assert "directories and modes are as they should be" in said(spool.examine(own), Level.FINE)
    Path(own.spool.path, "new").chmod(0o2775)
    assert "modes are not as they should be: new: spoolctl init" in said(spool.examine(own), Level.WARNING)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("option", "level"), [("off", Level.NOTE), ("invisible", Level.FINE), ("2", Level.FINE)])
def test_whether_processes_are_hidden_from_other_users(option: str, level: Level) -> None:
    look = "from spoold.doctor import sandbox; print(sandbox._processes())"
    mount = f'mount -t proc -o hidepid={option} proc /proc && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", look]
    finding = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert ("are hidden" in finding) is (level is Level.FINE)
    assert ("mount -o remount,hidepid=invisible /proc" in finding) is (level is Level.NOTE)


def test_a_drop_box_that_can_be_listed(own: Settings) -> None:
    Path(own.spool.path, "incoming").chmod(0o1777)
    assert "modes are not as they should be: incoming: spoolctl init" in said(spool.examine(own), Level.WARNING)


def test_an_entry_that_nobody_holds_any_more(own: Settings) -> None:
    entry = Path(own.spool.path, "running/a@1.json")
    entry.touch()
    assert "every held entry has a worker" in said(spool.examine(own), Level.FINE)
    os.utime(entry, (0, 0))
    assert "'running/a@1.json': start `spoold health`" in said(spool.examine(own), Level.WARNING)


def test_a_submission_that_waits_for_its_build_is_held_by_nobody_and_that_is_fine(own: Settings) -> None:
    entry = Path(own.spool.path, "building/a@1.json")
    entry.touch()
    os.utime(entry, (0, 0))
    assert "every held entry has a worker" in said(spool.examine(own), Level.FINE)


def test_daemons_that_run_here_and_those_that_do_not(own: Settings) -> None:
    with FileLock(f"{own.spool.path}/tmp/executor-two.lock"):
        found = list(spool.examine(own))
    assert f"daemon executor-two: runs (pid {os.getpid()})" in said(found, Level.FINE)
    assert "daemon health: does not run on this host: systemctl start spoold-health" in said(found, Level.NOTE)
    notes = said(spool.examine(own), Level.NOTE)
    assert "systemctl start spoold-executor@two, or `spoold executor --name two`" in notes


def test_a_file_system_of_another_host(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def nfs(_: str) -> machine.Mount:
        return machine.Mount("/mnt", "nfs4")

    monkeypatch.setattr(machine, "mount_of", nfs)
    found = list(spool.examine(own))
    assert "set spool.remote = true" in said(found, Level.WARNING)
    assert "put nix.state on a local disk" in said(stores.examine(own, None), Level.REFUSED)
    polled = replace(own, spool=replace(own.spool, remote=True))
    assert "remote, and polled" in said(spool.examine(polled), Level.FINE)


def test_a_disk_that_is_full(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (machine.Room(1 << 20, 0.5, None), machine.Room(1 << 40, 0.01, None), machine.Room(1 << 40, 0.5, 10)):
        monkeypatch.setattr(machine, "room", lambda _, room=room: room)
        assert "make room" in said(spool.examine(own), Level.WARNING)


def test_where_paths_are_mounted(tmp_path: Path) -> None:
    assert machine.mount_of("/proc").kind == "proc"
    assert not machine.mount_of(str(tmp_path)).remote
    assert machine.Mount("/x", "fuse.sshfs").remote


@pytest.mark.parametrize(("mode", "level"), [(0o666, Level.REFUSED), (0o662, Level.REFUSED), (0o660, Level.FINE)])
def test_a_socket_that_everybody_may_use(tmp_path: Path, mode: int, level: Level) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(mode)
        found = list(docker_doctor.examine(Settings(docker=DockerSettings(host=f"unix://{path}")), None))
    assert found[0].level is level
    assert f"mode {mode:04o}" in found[0].detail
    assert "does not answer" in said(found, Level.REFUSED)


def test_an_engine_of_long_ago() -> None:
    old = {"Version": "18.06", "BuildTime": "2018-07-18T19:09:54.000000000+00:00", "Components": []}
    assert "18.06: built on 2018-07-18" in said(docker_doctor._versions(old), Level.WARNING)


def test_a_runc_with_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"Version": "27.3.1", "BuildTime": "", "Components": [{"Name": "runc", "Version": "1.1.11"}]}
    monkeypatch.setattr(packages, "of", lambda _: packages.NONE)
    told = said(docker_doctor._versions(words), Level.REFUSED)
    assert f"runc 1.1.11: known holes, as of {holes.TAKEN}: CVE-2024-21626" in told
    monkeypatch.setattr(packages, "of", lambda _: packages.Package("1.1.11+ds1-1+deb12u1", ""))
    assert "a distribution may have mended them" in said(docker_doctor._versions(words), Level.WARNING)
    # installed, but not what the engine uses
    monkeypatch.setattr(packages, "of", lambda _: packages.Package("1.3.3+ds1-2", ""))
    assert "runc 1.1.11: known holes" in said(docker_doctor._versions(words), Level.REFUSED)


@pytest.mark.parametrize(
    ("said", "name"),
    [("nix (Nix) 2.8.0", "Nix 2.8.0: known holes"), ("nix (Lix, like Nix) 2.94.0", "Lix 2.94.0: known holes")],
)
def test_the_version_of_nix_and_of_its_kin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, name: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "nix").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "nix").chmod(0o755)
    monkeypatch.setattr(packages, "of", lambda _: packages.NONE)
    assert name in str(nix._version())


KNOWN = {"dockerd": "Engine", "containerd": "containerd", "runc": "runc"}  # the name of a program among components


def test_all_parts_of_an_engine_are_looked_up_as_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"Engine": "20.10.24+dfsg1", "containerd": "1.6.20~ds1", "runc": "1.1.5+ds1", "docker-init": "0.19.0"}
    words = {"BuildTime": "", "Components": [{"Name": name, "Version": text} for name, text in names.items()]}
    monkeypatch.setattr(packages, "of", lambda name: packages.Package(f"1:{names[KNOWN[name]]}-1", ""))
    said = " ".join(map(str, docker_doctor._versions(words)))
    assert "Docker Engine 1:20.10.24+dfsg1-1: its version number says that it has CVE-2026-41567" in said
    assert "containerd 1:1.6.20~ds1-1: its version number says that it has CVE-2024-25621" in said
    assert "runc 1:1.1.5+ds1-1: its version number says that it has CVE-2024-21626" in said


def test_a_kernel_that_forbids_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the kernel allows them" in said(sandbox._namespaces(), Level.FINE)
    monkeypatch.setattr(machine, "sysctl", lambda name: "0" if "max" in name else "1")
    assert "sysctl user.max_user_namespaces=15000" in said(sandbox._namespaces(), Level.REFUSED)


@pytest.mark.parametrize(
    ("release", "modprobe", "disabled", "level"),
    [
        ("6.1.0-28-amd64", "/sbin/modprobe", "0", Level.WARNING),
        ("6.1.0-28-amd64", "/sbin/modprobe", "1", Level.FINE),
        ("6.1.0-28-amd64", "", "0", Level.FINE),
        ("6.14.0", "/sbin/modprobe", "0", Level.FINE),
        ("a kernel of one's own", "/sbin/modprobe", "0", Level.WARNING),
    ],
)
def test_a_kernel_that_looks_for_a_module_for_each_unknown_file(
    monkeypatch: pytest.MonkeyPatch, release: str, modprobe: str, disabled: str, level: Level
) -> None:
    values = {"kernel.modprobe": modprobe, "kernel.modules_disabled": disabled}
    monkeypatch.setattr(machine, "sysctl", values.get)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "#1", "x86_64")))
    found = kernel._modules()
    assert found.level is level
    assert ("sysctl kernel.modules_disabled=1" in str(found)) is (level is Level.WARNING)


@pytest.mark.parametrize(
    ("most", "level"), [("16384", Level.FINE), ("16385", Level.NOTE), ("5491511", Level.NOTE), ("", Level.NOTE)]
)
def test_a_kernel_on_which_many_may_wait_for_one_timer(
    monkeypatch: pytest.MonkeyPatch, most: str, level: Level
) -> None:
    monkeypatch.setattr(machine, "sysctl", {"fs.epoll.max_user_watches": most}.get)
    found = kernel._watches()
    assert found.level is level
    assert ("sysctl fs.epoll.max_user_watches=16384" in str(found)) is (level is Level.NOTE)


def test_the_version_of_crun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "crun").write_text("#!/bin/sh\necho crun version 1.4.3\necho commit: x\n")
    (tmp_path / "crun").chmod(0o755)
    monkeypatch.setattr(packages, "of", lambda _: packages.NONE)
    assert f"crun 1.4.3: known holes, as of {holes.TAKEN}: CVE-2022-27650" in str(docker_doctor._crun())


@pytest.mark.docker
@pytest.mark.nix
def test_a_host_without_user_namespaces(
    settings: Settings, docker_host: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = walls.seccomp(recycled=False)  # allows no namespaces
    monkeypatch.setattr(walls, "seccomp", lambda **_: narrow)
    recycled = replace(settings, sandbox=replace(settings.sandbox, mode="recycled"))
    assert "user.max_user_namespaces" in said(sandbox.examine(recycled, runtime), Level.REFUSED)


@pytest.mark.docker
@pytest.mark.nix
def test_a_job_that_may_ask_to_be_spared(
    settings: Settings, docker_host: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_of_jobs, "PLEA", b"#!/bin/sh\n! echo as if it were done\n")
    assert f"{SHORT}: can make the kernel end the host's" in said(sandbox.examine(settings, runtime), Level.WARNING)


@pytest.mark.docker
@pytest.mark.nix
def test_files_that_the_kernel_does_not_count(
    settings: Settings, docker_host: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(sandbox.examine(settings, runtime))
    assert f"{MANY}: is ended at its memory limit" in said(found, Level.FINE)
    monkeypatch.setattr(trial_of_jobs, "FILES", b"#!/bin/sh\n: as if they took nothing\n")
    assert f"{MANY}: is not ended at its memory limit" in said(sandbox.examine(settings, runtime), Level.WARNING)
    few = replace(settings, limits=Limits(work_inodes=trial_of_jobs.FEW))
    assert f"{MANY}: finds no room for more than 16384" in said(sandbox.examine(few, runtime), Level.FINE)


def test_a_job_on_trial_may_wait_for_a_cpu(own: Settings) -> None:
    """Otherwise, on a busy host, the job would meet its limit of time before that of memory, and be reported."""
    given: list[Job] = []

    class Sandbox:
        def run(self, job: Job, *_: object) -> JobResult:
            given.append(job)
            return JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE)

    trial_of_jobs._run(Sandbox(), own, trial_of_jobs.BOMB, [])  # type: ignore[arg-type]  # it uses nothing else
    assert given[0].run.time >= 10 * given[0].run.cpu_time


@pytest.fixture
def reached() -> Iterator[Settings]:
    """Yield settings with a spool that others can reach, unlike the spools of other tests."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        layout.create(f"{directory}/spool")
        yield Settings(spool=SpoolSettings(path=f"{directory}/spool"), nix=NixSettings(state="/nonexistent"))


def test_a_kernel_that_does_not_keep_users_apart(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    values = dict.fromkeys(("regular", "fifos", "symlinks", "hardlinks"), "1")
    monkeypatch.setattr(machine, "sysctl", lambda name: values[name.removeprefix("fs.protected_")])
    assert f"{protection.WHAT}: are on" in said(spool.examine(reached), Level.FINE)
    for name in values:
        values[name] = "0"
        found = said(spool.examine(reached), Level.REFUSED)
        assert f"off: fs.protected_{name}. " in found
        assert f"printf 'fs.protected_{name} = 1\\n' >/etc/sysctl.d/60-spoold.conf; sysctl --system" in found
        values[name] = "2"
    assert f"{protection.WHAT}: are on" in said(spool.examine(reached), Level.FINE)
    values["fifos"] = ""
    assert "use Linux 4.19 or later" in said(spool.examine(reached), Level.REFUSED)


def test_a_spool_that_nobody_else_can_reach(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sysctl", lambda _: "0")
    assert protection.WHAT.name in said(spool.examine(reached), Level.REFUSED)
    Path(reached.spool.path).parent.chmod(0o700)
    assert f"{protection.WHAT}: only its own user" in said(spool.examine(reached), Level.FINE)


def test_quotas_of_the_spools_file_system(reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, level, words in (
        (True, Level.FINE, "is bounded by quotas"),
        (False, Level.NOTE, "tune2fs -O quota"),
        (None, Level.UNKNOWN, "this kernel cannot tell whether"),
    ):
        monkeypatch.setattr(machine, "user_quotas", lambda _, answer=answer: answer)
        assert words in said(spool.examine(reached), level)


def test_whether_there_are_quotas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.user_quotas("/proc") is False
    monkeypatch.setattr(machine, "QUOTACTL_FD", 100_000)
    assert machine.user_quotas("/proc") is None
    monkeypatch.undo()
    monkeypatch.setattr(machine, "mount_of", lambda _: machine.Mount("/mnt", "nfs4"))
    assert machine.user_quotas("/proc") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
@pytest.mark.parametrize(
    ("text", "level"),
    [(None, Level.FINE), ("#user_allow_other\n", Level.FINE), ("mount_max = 10\n user_allow_other\n", Level.WARNING)],
)
def test_mounts_of_users_that_let_others_in(
    reached: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, level: Level
) -> None:
    monkeypatch.setattr(protection, "FUSE", str(tmp_path / "fuse.conf"))
    if text is not None:
        (tmp_path / "fuse.conf").write_text(text)
    assert protection.MOUNTS.name in said(spool.examine(reached), level)


@pytest.mark.parametrize("in_force", [True, False])
def test_quotas_that_a_kernel_has(tmp_path: Path, *, in_force: bool) -> None:
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    mounted.mkdir()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "quota", image], check=True)
    options = f"loop,{'usrquota' if in_force else 'noquota'}"
    done = subprocess.run(["mount", "-o", options, image, mounted], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this kernel has no quotas")
    try:
        assert machine.user_quotas(str(mounted)) is in_force
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_more_slots_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpus", lambda: [0, 2, 3, 5])
    for slots, level in ((0, Level.FINE), (4, Level.FINE), (5, Level.WARNING)):
        settings = Settings(executor=ExecutorSettings(slots=slots))
        assert f"CPUs for jobs: {slots or 4} slots on 4 CPUs" in said(budget.examine(settings), level)


def test_memory_that_settings_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 4 << 30)
    small = Settings(executor=ExecutorSettings(slots=2))
    found = list(budget.examine(small))
    assert "memory for jobs: 3584 MiB, 1072 MiB a job with the default limits, 2 slots" in said(found, Level.FINE)
    assert "limits.run.maximum.memory: 8192 MiB is more than a job can get on this host" in said(found, Level.NOTE)
    assert "this host has too little memory for both at once" in said(found, Level.NOTE)
    many = Settings(executor=ExecutorSettings(slots=8))
    assert "8 slots: memory is enough for 3 at once, and the other slots wait" in said(budget.examine(many), Level.NOTE)
    wrong = said(budget.examine(Settings(executor=ExecutorSettings(memory=8 << 30))), Level.WARNING)
    assert "executor.memory, 8192 MiB, is more than the 4096 MiB of this host" in wrong
    little = said(budget.examine(Settings(executor=ExecutorSettings(memory=1 << 30))), Level.WARNING)
    assert "limits.compile.default.memory: 1024 MiB is more than a job can get on this host: it gets 912 MiB" in little
    monkeypatch.setattr(machine, "memory", lambda: 256 << 30)
    assert "24576 MiB at most, beside all jobs" in said(budget.examine(Settings()), Level.FINE)


def test_sockets_that_hold_more_than_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(sandbox._sockets(), Level.FINE) == f"{SOCKETS}: is counted as the job's memory"
    monkeypatch.setattr(machine, "tells_of_sockets", lambda: False)
    assert "each socket counts as 512 KiB" in said(sandbox._sockets(), Level.NOTE)
    monkeypatch.setattr(machine, "sysctl", lambda _: "8388608")
    assert "sysctl net.core.rmem_default=212992" in said(sandbox._sockets(), Level.WARNING)


@pytest.mark.docker
@pytest.mark.nix
def test_jobs_that_see_the_whole_store(settings: Settings, docker_host: str, runtime: Runtime) -> None:
    whole = replace(runtime, closure=[])  # like a builder that doesn't report the closure
    assert "a job sees the whole store" in said(sandbox.examine(settings, whole), Level.WARNING)
    wrong = replace(runtime, closure=[runtime.bash])  # less than the runtime needs, so the view is wrong
    assert "by a fault of spoold or of its runtime" in said(sandbox.examine(settings, wrong), Level.REFUSED)


@pytest.mark.nix
def test_walls_of_nix_that_do_not_stand(
    nix_settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(argv: list[str], *, readable: object, writable: tuple[str, str], directory: str, uid: int) -> list[str]:
        return [word.replace("/s/store", writable[0]) for word in argv]

    kept = command.options
    with monkeypatch.context() as patch:
        patch.setattr(confine, "jail", open_)
        assert "jail of evaluations: does not work" in said(trial_of_builds._walls(nix_settings.nix), Level.REFUSED)
    with monkeypatch.context() as patch:
        lax = ["--option", "sandbox", "relaxed", "--option", "sandbox-fallback", "true"]
        patch.setattr(command, "options", lambda *words, **more: [*kept(*words, **more), *lax])
        found = said(trial_of_builds._walls(nix_settings.nix), Level.REFUSED)
        assert "sandbox is relaxed, sandbox-fallback is true" in found


def test_a_nixpkgs_that_is_not_there(tmp_path: Path) -> None:
    assert "no nixpkgs.default is set" in str(nix._pins(Settings()))
    assert "/none" in str(nix._pins(Settings(nixpkgs={"default": f"{tmp_path}/none"})))
    pins = {"default": str(tmp_path), "far": "https://example.org/x.tar.gz", "own": f"/nix/store/{'0' * 32}-nixpkgs"}
    fine = Settings(nixpkgs=pins)
    assert nix._pins(fine).level is Level.FINE


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has other users for builds")
def test_builds_without_users_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = list(nix._users(NixSettings(build_users="")))
    assert found.level is Level.REFUSED
    assert "can rewrite the packages that all others run" in found.detail
    (found,) = nix._users(NixSettings(build_users="no-such-group"))
    assert found.level is Level.REFUSED
    assert "groupadd --system no-such-group" in found.detail
    monkeypatch.setattr(seat, "owner", lambda _: 12345)  # the uid of the unit's user
    monkeypatch.setattr(userns, "group_members", lambda _: None)
    *_, found = nix._users(NixSettings())
    assert found.level is Level.REFUSED
    assert "systemd-sysusers" in found.remedy


def test_a_build_that_writes_to_its_input(
    nix_settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial_of_builds._inputs(nix_settings.nix, runtime).level is Level.FINE
    if os.geteuid() == 0:
        # Without users for builds, root's Nix runs them as root, in a namespace in which root also owns the store.
        alone = msgspec.structs.replace(nix_settings.nix, build_users="")
        found = trial_of_builds._inputs(alone, runtime)
        assert found.level is Level.REFUSED
        assert "can write to its input" in found.detail


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what another root has loaded")
def test_what_starts_as_root_in_a_container(settings: Settings, docker_host: str, runtime: Runtime) -> None:
    tried = DockerSandbox(settings, runtime)
    try:
        tried.prepare()
        found = trial_of_jobs._of_root(tried)
    finally:
        tried.close()
    assert found.level is Level.FINE, found


def test_a_program_of_the_store_that_starts_as_root() -> None:
    """Earlier versions did this: their supervisor ran the store's own Python."""
    inside = "7f0a00000000-7f0a00001000 r-xp 00000000 00:2f 1234   {}\n"
    theirs = f"/nix/store/{'0' * 32}-python3-3.11.2/bin/python3.11"
    ours = "/spoold/sbin/supervisor"
    for paths, level in (([ours, theirs], Level.REFUSED), ([ours], Level.FINE), ([], Level.UNKNOWN)):
        found = trial_of_jobs._of_what_is_loaded(Subject("x"), "".join(inside.format(path) for path in paths))
        assert found.level is level


def test_a_state_directory_that_is_open(tmp_path: Path) -> None:
    store = tmp_path / "state/nix/nix/store"
    store.mkdir(parents=True)
    tmp_path.joinpath("state").chmod(0o755)
    found = said(nix._state(tmp_path / "state"), Level.WARNING)
    assert "chmod o= " in found
    assert "can be listed" in found
    tmp_path.joinpath("state").chmod(0o700)
    store.chmod(0o711)
    assert not said(nix._state(tmp_path / "state"), Level.WARNING)


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user_is_told_what_was_not_looked_at(
    settings: Settings, docker_host: str, nix_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "closed/nixpkgs").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    settings = replace(settings, nixpkgs={"default": f"{tmp_path}/closed/nixpkgs"})
    rooms: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: spool.examine(settings),
        lambda: sandbox.examine(settings, None),
        lambda: nix.examine(settings, None),
    )
    for room in rooms:
        list(room())  # imports all modules, because the other user may be unable to read the interpreter's files
    seen = in_child(lambda: msgspec.to_builtins([finding for room in rooms for finding in room()]), 65533)
    found = msgspec.convert(seen, list[Finding])
    assert not said(found, Level.REFUSED)
    unknown = said(found, Level.UNKNOWN)
    for words in ("nixpkgs: closed to this user", "no permission to use Docker", "Nix's build sandbox"):
        assert words in unknown


def test_what_ended_early_for_want_of_rights_says_who_has_them(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> Iterable[Finding]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "builds/new")

    for room in (spool, installation, sandbox, budget, nix):
        monkeypatch.setattr(room, "examine", closed)
    for _, finding in cli._examine(own, quiet=True):
        assert (finding.level, finding.remedy) == (Level.UNKNOWN, "run the doctor as root")


@pytest.mark.parametrize(("place", "level"), [("", Level.WARNING), ("builds", Level.FINE)])
def test_what_bounds_the_builds_of_the_unit_on_cgroup_v1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, level: Level
) -> None:
    (tmp_path / "memory/unit" / place).mkdir(parents=True)
    said_by_systemd = {"ControlGroup": "/unit", "Delegate": "yes", "DelegateControllers": "memory pids"}
    monkeypatch.setattr(seat, "owner", lambda _: 64001)
    monkeypatch.setattr(units, "properties", lambda *_: said_by_systemd)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "delegable", lambda: False)
    assert nix._bounds(NixSettings()).level is level


@pytest.mark.parametrize(
    ("group", "controllers", "level"),
    [
        ("/unit", "", Level.FINE),
        ("/bare", "memory", Level.WARNING),
        ("", "memory pids", Level.FINE),
        ("", "", Level.WARNING),
    ],
)
def test_what_bounds_the_builds_of_the_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, controllers: str, level: Level
) -> None:
    """The finding is about the unit's control group, whichever group the doctor itself runs in."""
    for name, enabled in {"unit": "memory pids", "bare": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.subtree_control").write_text(f"{enabled}\n")
    said_by_systemd = {"ControlGroup": group, "Delegate": "yes", "DelegateControllers": controllers}
    monkeypatch.setattr(seat, "owner", lambda _: 64001)
    monkeypatch.setattr(units, "properties", lambda *_: said_by_systemd)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "delegable", lambda: True)
    monkeypatch.setattr(cage, "available", lambda: level is not Level.FINE)
    assert nix._bounds(NixSettings()).level is level


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the user of a unit")
@pytest.mark.parametrize("answers", ["acl", "owner"])
@pytest.mark.parametrize(("rights", "level"), [(spool.RIGHTS, Level.FINE), ("-all", Level.WARNING)])
def test_files_of_others_are_tried_as_the_unit_s_user(
    own: Settings, monkeypatch: pytest.MonkeyPatch, rights: str, level: Level, answers: Literal["acl", "owner"]
) -> None:
    """A file server ignores capabilities. The test simulates this by taking them away."""
    own = replace(own, spool=replace(own.spool, answers=answers))
    layout.create(own.spool.path, Accounts(64_000, dict.fromkeys(layout.USERS.values(), 64001)))
    for directory in Path(own.spool.path).parents:
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(0o711)
    monkeypatch.setattr(units, "properties", lambda *_: {"User": "64001"})
    monkeypatch.setattr(spool, "RIGHTS", rights)
    found = [each for each in spool.examine(own) if each.what == "files of other users in the spool"]
    assert [each.level for each in found] == [level], found
    assert level is Level.FINE or "64001: cannot be read" in found[0].detail
    assert os.listdir(f"{own.spool.path}/tmp") == []


def test_a_spool_that_a_file_server_closes_to_root(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> bool:
        raise PermissionError

    monkeypatch.setattr(spool, "_is_directory", closed)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "closed to root" in said(spool.examine(own), Level.UNKNOWN)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "closed to this user: run the doctor as root" in said(spool.examine(own), Level.UNKNOWN)


def test_accounts_of_a_desk(own: Settings) -> None:
    assert "one user runs all daemons" in said(installation.examine(own), Level.NOTE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_accounts_of_an_installation(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = {user: 64_001 + number for number, user in enumerate(layout.USERS.values())}
    layout.create(own.spool.path, accounts.Accounts(64_000, uids))
    monkeypatch.setattr(accounts, "missing", lambda *_: ["spoold-health"])
    assert "spoold-health: systemd-sysusers spoold.conf" in said(installation.examine(own), Level.REFUSED)
    monkeypatch.setattr(accounts, "missing", lambda *_: [])
    monkeypatch.setattr(accounts, "gid_of", lambda _: 64_000)
    monkeypatch.setattr(accounts, "groups_of", lambda user: {64_000} if user != "spoold-intake" else {1})
    monkeypatch.setattr(accounts, "members", lambda _: {*uids, "mallory"})
    monkeypatch.setattr(accounts, "find", lambda *_: accounts.Accounts(64_000, uids))
    found = list(installation.examine(own))
    assert "usermod --append --groups spoold spoold-intake" in said(found, Level.REFUSED)
    assert "mallory can read every submission: gpasswd --delete mallory spoold" in said(found, Level.WARNING)
    assert "owners of the spool's directories: are as they should be" in said(found, Level.FINE)
    os.chown(f"{own.spool.path}/done", 1, 1)
    assert "not as they should be: done: spoolctl init" in said(installation.examine(own), Level.REFUSED)


def test_a_socket_that_the_executors_user_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.sock"
    monkeypatch.setattr(accounts, "uid_of", lambda _: 64_002)
    monkeypatch.setattr(accounts, "groups_of", lambda _: {64_000})
    for group, level in ((os.getegid(), Level.FINE), (os.getegid() + 1, Level.WARNING)):
        monkeypatch.setattr(accounts, "gid_of", lambda _, group=group: group)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o660)
            assert "for spoold-executor" in said(docker_doctor._socket(f"unix://{path}"), level)
        path.unlink()


@pytest.mark.parametrize(
    ("pattern", "level"),
    [("core", Level.FINE), ("|/usr/share/apport/apport %p", Level.FINE), ("@/run/cores", Level.REFUSED)],
)
def test_core_dumps_that_no_limit_stops(monkeypatch: pytest.MonkeyPatch, pattern: str, level: Level) -> None:
    """From Linux 6.16 on, a server that listens on a socket gets a core dump whatever its limit is."""
    monkeypatch.setattr(machine, "sysctl", lambda _: pattern)
    assert sandbox._cores().level is level
