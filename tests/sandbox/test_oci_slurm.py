"""The engine oci in a job of Slurm, for an ordinary user, in control groups that contrib's Prolog hands over.

A process of the tests joins the groups of an idle job, because that user could not run the tests themselves there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.engines.oci.sandbox import OciSandbox
from spoold.host import cgroups, groups
from spoold.model.errors import OperatorError
from spoold.model.limits import MIB
from tests import engines
from tests.clusters import DEPLOYED, Real
from tests.owngroups import own_groups
from tests.rights import in_child
from tests.sandbox.conftest import Mode
from tests.sandbox.ordinary import as_user, lines, user
from tests.waiting import until

__all__ = ["as_user", "user"]  # fixtures
pytestmark = [pytest.mark.docker, pytest.mark.engines]
MEMORY = 600  # MiB of the job
DEEP = "a/a/a/a/a"


class Held:
    """An idle job, and its first process."""

    def __init__(self, cluster: Real, user: str, place: Path) -> None:
        told = place / "pid"
        told.touch()
        os.chown(told, pwd.getpwnam(user).pw_uid, -1)
        command = f"echo $$ >{told}; exec sleep infinity"
        options = ("--parsable", f"--mem={MEMORY}", "--output=/dev/null", f"--wrap={command}")
        self.id = cluster.run("sbatch", *options, user=user).strip()
        until(lambda: told.read_text().endswith("\n"), lambda: cluster.run("squeue"))
        self.pid = int(told.read_text())
        lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        self.places = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}

    def enter(self) -> None:
        """Put the calling process into the job's groups."""
        for controllers, path in self.places.items():
            group = tree(controllers.split(",")[0]) / path.lstrip("/")
            if (group / "cgroup.procs").exists():
                (group / "cgroup.procs").write_text(str(os.getpid()))
        os.environ[groups.OF_A_BATCH_JOB] = self.id

    def below(self, controller: str) -> Path:
        """Return the group of the whole job."""
        found = {each: path for controllers, path in self.places.items() for each in controllers.split(",")}
        path = found[""] if cgroups.delegable() else found[controller]
        return tree(controller) / path.lstrip("/").split("/step_")[0]

    def memory(self, file: str) -> int:
        """Return a number that the kernel has of the whole job's memory, in bytes: its ``limit`` or its ``peak``."""
        names = {"limit": "memory.max", "peak": "memory.peak"}
        if not cgroups.delegable():
            names = {"limit": "memory.limit_in_bytes", "peak": "memory.max_usage_in_bytes"}
        return int((self.below("memory") / names[file]).read_text())


def tree(controller: str) -> Path:
    """Return where a controller's groups are, on either version."""
    return cgroups.MOUNT if cgroups.delegable() else cgroups.tree(controller)


@pytest.fixture
def held(user: pwd.struct_passwd, place: Path) -> Iterator[Callable[[str], tuple[Real, Held]]]:
    """Yield a function that starts a cluster whose Prolog makes groups for a user, and a job of the tests' user."""
    with contextlib.ExitStack() as stack:

        def _held(groups_for: str) -> tuple[Real, Held]:
            cluster = Real(nodes=1, groups_for=groups_for)
            stack.callback(cluster.stop)
            return cluster, Held(cluster, user.pw_name, place)

        yield _held


def left(cluster: Real, user: pwd.struct_passwd) -> list[Path]:
    """Return the groups that are there of a user's jobs, and those that the Prolog gave the user elsewhere."""
    if cgroups.delegable():
        return [*cgroups.MOUNT.glob("system.slice/*slurmstepd.scope/job_*")]
    found = [*cgroups.MOUNT.glob(f"*/slurm_*/uid_{user.pw_uid}")]
    elsewhere = [place / cgroups.OF_JOBS for place in cluster.groups.places]
    return found + [place for place in elsewhere if _belongs_to(user, place)]


def _belongs_to(user: pwd.struct_passwd, place: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return place.stat().st_uid == user.pw_uid
    return False


def test_a_job_gets_groups_that_are_gone_after_it(
    user: pwd.struct_passwd, held: Callable[[str], tuple[Real, Held]]
) -> None:
    cluster, job = held(user.pw_name)

    def act() -> list[str]:
        found = groups.settle()
        group = found.group("spoold-x")
        group.make(64 * MIB, 7)
        process = subprocess.Popen(["/bin/sleep", "infinity"])
        for each in groups.NEEDED:
            (group.places[each] / "cgroup.procs").write_text(str(process.pid))
        assert group.holds(process.pid)
        return [str(group.places["memory"]), str(process.pid)]

    def begin() -> Any:
        job.enter()
        return in_child(act, user.pw_uid, user.pw_gid)

    path, pid = in_child(begin)
    assert Path(path).is_relative_to(job.below("memory"))
    assert job.memory("limit") == MEMORY * MIB
    os.kill(int(pid), 0)
    cluster.run("scancel", job.id)
    until(lambda: not left(cluster, user), lambda: f"{left(cluster, user)}; {cluster.said('epilog')}")
    until(lambda: "idle" in cluster.run("sinfo", "-h", "-o", "%T"), lambda: cluster.run("sinfo"))
    until(lambda: has_ended(pid))
    assert (cluster.said("prolog"), cluster.said("epilog")) == ("", "")


# Each process is gone before anybody has read its number.
FORKS = """
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    if (fork()) return 0;
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(words[i], "w");
        if (file) { fprintf(file, "%d", getpid()); fclose(file); }
    }
    for (;;) if (fork()) _exit(0);
}
"""


def test_a_program_that_forks_and_hides_is_ended_with_the_job(
    user: pwd.struct_passwd, held: Callable[[str], tuple[Real, Held]], place: Path
) -> None:
    """It has the rights of the pilot itself, which is more than any program in a sandbox has."""
    cluster, job = held(user.pw_name)
    program, source = place / "forks", place / "forks.c"
    source.write_text(FORKS)
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)

    def act() -> list[str]:
        group = groups.settle().group("spoold-x")
        group.make(64 * MIB, 7)
        given = [place for place in dict.fromkeys(group.places.values()) if os.access(place.parent, os.W_OK)]
        hidden = [str(place.with_name("hidden")) for place in given]
        for each in hidden:  # out of the groups that the epilog knows by name, and deep down
            (Path(each) / DEEP).mkdir(parents=True)
        files = [f"{each}/{DEEP}/cgroup.procs" for each in hidden]
        subprocess.run([program, *files], check=True, start_new_session=True)
        return hidden

    def begin() -> Any:
        job.enter()
        return in_child(act, user.pw_uid, user.pw_gid)

    hidden = in_child(begin)
    until(lambda: any(Path(each, DEEP, "cgroup.procs").read_text() for each in hidden))
    cluster.run("scancel", job.id)
    until(lambda: not left(cluster, user), lambda: f"{left(cluster, user)}; {cluster.said('epilog')}")
    until(lambda: not processes_of(user))
    until(lambda: "idle" in cluster.run("sinfo", "-h", "-o", "%T"), lambda: cluster.run("sinfo"))
    assert cluster.said("epilog") == ""


def processes_of(user: pwd.struct_passwd) -> list[str]:
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if each.name.isdecimal() and each.stat().st_uid == user.pw_uid and not has_ended(each.name):
                found.append(each.name)
    return found


@pytest.mark.skipif(cgroups.delegable(), reason="groups as cgroup v1 has them")
def test_what_jobs_left_whose_epilog_never_ran_goes_with_the_next_one(tmp_path: Path) -> None:
    """A slurmd that is killed with its jobs runs none for them."""
    uid, name = 2001, f"p{os.getpid()}n9"
    node = f"slurm_{name}"
    jobs = {job: f"{node}/uid_{uid}/job_{job}" for job in ("7", "8")}
    trees = [cgroups.tree(each) for each in ("freezer", "memory")]
    for tree in trees:
        for place in jobs.values():
            (tree / place / "step_batch" / "jobs").mkdir(parents=True)
    told = {"SLURM_JOB_ID": "9", "SLURM_JOB_USER": "ann", "SLURM_JOB_UID": str(uid), "SLURM_JOB_GID": str(uid)}
    variables = os.environ | told | {"SPOOLD_LOCK": str(tmp_path / "lock"), "SLURMD_NODENAME": name}
    command = [str(DEPLOYED / "slurm-epilog"), "ann"]
    with subprocess.Popen(["sleep", "infinity"]) as sleeps:
        try:
            (trees[0] / jobs["8"] / "step_batch" / "cgroup.procs").write_text(str(sleeps.pid))
            subprocess.run(command, env=variables, check=True)
            assert all((tree / place).exists() for tree in trees for place in jobs.values()), "they are young"
            subprocess.run(command, env=variables | {"SPOOLD_ABANDONED": "0"}, check=True)
            assert [(tree / jobs["7"]).exists() for tree in trees] == [False, False]
            assert [(tree / jobs["8"] / "step_batch/jobs").exists() for tree in trees] == [True, True], "it runs"
        finally:
            sleeps.kill()
    until(lambda: not (trees[0] / jobs["8"] / "step_batch" / "cgroup.procs").read_text())
    subprocess.run(command, env=variables | {"SPOOLD_ABANDONED": "0"}, check=True)
    assert [(tree / node / f"uid_{uid}").exists() for tree in trees] == [False, False]
    for tree in trees:
        (tree / node).rmdir()


@pytest.mark.skipif(
    cgroups.delegable() or not cgroups.tree("").is_dir(), reason="both versions are mounted, one beside the other"
)
def test_groups_in_the_tree_of_version_2_go_with_the_job_whose_sandboxes_had_them(tmp_path: Path) -> None:
    """A runtime that root starts makes them there as well. When the pilot is killed nobody removes them."""
    uid = 200_000 + os.getpid()
    node = f"p{os.getpid()}n8"
    above = cgroups.tree("memory") / f"slurm_{node}"
    told = {"SLURM_JOB_USER": "ann", "SLURM_JOB_UID": str(uid), "SLURM_JOB_GID": str(uid), "SLURMD_NODENAME": node}
    variables = os.environ | told | {"SPOOLD_LOCK": str(tmp_path / "lock")}
    command = [str(DEPLOYED / "slurm-epilog"), "ann"]
    with own_groups() as slurmds:
        (jobs,) = (place / "jobs" for place in slurmds.places if place.is_relative_to(cgroups.tree("")))
        for id_ in ("7", "8"):
            (above / f"uid_{uid}" / f"job_{id_}" / "step_batch/jobs" / f"spoold-{id_}").mkdir(parents=True)
            (jobs / f"spoold-{id_}").mkdir(parents=True)
        os.chown(jobs, uid, uid)
        for id_, left in (("7", ["spoold-8"]), ("8", [])):
            subprocess.run(command, env=variables | {"SLURM_JOB_ID": id_}, check=True, preexec_fn=slurmds.enter)
            assert [each.name for each in jobs.glob("spoold-*")] == left
        assert not jobs.exists()
    above.rmdir()


KEEPS_MANY = """
import os, sys, time
made, n = [], 0
while True:
    made = [each for each in made if os.path.isdir(f"{sys.argv[2]}/{each}")]
    while len(made) < 30:
        n += 1
        made.append(f"spoold-{n}")
        for place in sys.argv[1:]:
            os.mkdir(f"{place}/{made[-1]}")
    time.sleep(0.001)  # between two looks
"""


@pytest.mark.skipif(cgroups.delegable(), reason="on version 2 no group of a user lies in those of slurmd")
def test_a_pilot_that_still_lives_makes_no_sandbox_while_the_epilog_works(tmp_path: Path) -> None:
    """The pilot of a slurmstepd that was killed lives on. Another job keeps the Epilog from removing all sandboxes."""
    uid = 200_000 + os.getpid()
    node = f"p{os.getpid()}n7"
    above = cgroups.tree("freezer") / f"slurm_{node}", cgroups.tree("memory") / f"slurm_{node}"
    steps = [each / f"uid_{uid}/job_7/step_batch" for each in above]
    told = {"SLURM_JOB_USER": "ann", "SLURM_JOB_UID": str(uid), "SLURM_JOB_GID": str(uid), "SLURMD_NODENAME": node}
    variables = os.environ | told | {"SPOOLD_LOCK": str(tmp_path / "lock")}
    command = [str(DEPLOYED / "slurm-epilog"), "ann"]
    with own_groups() as slurmds:
        (jobs,) = (place / "jobs" for place in slurmds.places if place.is_relative_to(cgroups.tree("pids")))
        for place in (jobs, *(each / "jobs" for each in steps), above[1] / f"uid_{uid}/job_8"):
            place.mkdir(parents=True)
        os.chown(jobs, uid, uid)
        words = [sys.executable, "-c", KEEPS_MANY, str(steps[1] / "jobs"), str(jobs)]
        with subprocess.Popen(words) as pilot:
            try:
                (steps[0] / "cgroup.procs").write_text(str(pilot.pid))
                until((jobs / "spoold-30").is_dir)
                subprocess.run(command, env=variables | {"SLURM_JOB_ID": "7"}, check=True, preexec_fn=slurmds.enter)
            finally:
                pilot.kill()
        assert not list(jobs.glob("spoold-*"))
        assert not steps[1].exists()
        subprocess.run(command, env=variables | {"SLURM_JOB_ID": "8"}, check=True, preexec_fn=slurmds.enter)
    for each in above:
        each.rmdir()


@pytest.mark.skipif(cgroups.delegable(), reason="on version 2 no group of a user lies in those of slurmd")
def test_the_groups_of_one_service_user_are_never_given_to_another(tmp_path: Path) -> None:
    """The owner of a group can remove the groups in it, and the epilog ends the processes in its user's groups."""
    mount = tmp_path / "cgroup"
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    controllers, path = next((controllers, path) for _, controllers, path in lines if controllers == "pids")
    jobs = mount / controllers / path.lstrip("/") / "jobs"
    jobs.mkdir(parents=True)
    os.chown(jobs, 2001, 2001)
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "ann", "SLURM_JOB_UID": "2002", "SLURM_JOB_GID": "2002"}
    variables = os.environ | told | {"SPOOLD_CGROUPS": str(mount), "SPOOLD_LOCK": str(tmp_path / "lock")}
    done = subprocess.run([DEPLOYED / "slurm-prolog", "ann"], env=variables, check=True, capture_output=True, text=True)
    assert jobs.stat().st_uid == 2001
    assert "let only one service user run on a node" in done.stderr
    subprocess.run([DEPLOYED / "slurm-epilog", "ann"], env=variables, check=True)
    assert jobs.exists()


def has_ended(pid: str) -> bool:
    """Tell whether a process has ended. It may still be a zombie."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("others", ["", "root"])
def test_without_them_a_pilot_says_what_is_missing(
    user: pwd.struct_passwd, held: Callable[[str], tuple[Real, Held]], others: str
) -> None:
    _, job = held(others)

    def act() -> str:
        try:
            return str(groups.settle())
        except OperatorError as error:
            return str(error)

    def begin() -> Any:
        job.enter()
        return in_child(act, user.pw_uid, user.pw_gid)

    said = in_child(begin)
    assert "no control group can be made that limits" in said
    assert "slurm-prolog" in said


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.parametrize("mode", ["single-use", "recycled"])
def test_jobs_are_bounded_by_the_job_that_they_are_in(
    as_user: Callable[..., Any],
    user: pwd.struct_passwd,
    held: Callable[[str], tuple[Real, Held]],
    plain_shell: str,
    mode: Mode,
) -> None:
    """They also have limits of their own. When the job is cancelled, nothing of them is left."""
    engines.need_oci()
    cluster, job = held(user.pw_name)

    def act(sandbox: OciSandbox) -> Any:
        container = sandbox.on_trial()
        try:
            group = container.transport.group
            places = sorted({str(group.places[each]) for each in groups.NEEDED})
            holds = group.holds(container.transport.pid)
        finally:
            container.close()
        return {
            "places": places,
            "holds": holds,
            "works": lines(sandbox, "id -u", plain_shell),
            "memory": lines(sandbox, "x=x; while :; do x=$x$x; done", plain_shell, memory=64 * MIB),
            "cores": lines(sandbox, "nproc", plain_shell),
            "most": lines(sandbox, "x=x; while :; do x=$x$x; done", plain_shell, memory=4096 * MIB),
        }

    found = as_user(act, mode, job.enter)
    assert isinstance(found, dict), found
    assert found["holds"] is True
    assert any(Path(each).is_relative_to(job.below("memory")) for each in found["places"])
    assert found["works"][0] == "ok"
    assert found["memory"][0] == "memory_limit"
    assert found["cores"][1] == "1"
    assert found["most"][0] != "ok"
    assert job.memory("peak") <= MEMORY * MIB
    cluster.run("scancel", job.id)
    until(lambda: not left(cluster, user), lambda: f"{left(cluster, user)}; {cluster.said('epilog')}")


# -- on version 2, with files in place of the kernel's


def test_on_version_2_they_lie_beside_the_steps_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "cgroup"
    scope = mount / "system.slice" / "n1_slurmstepd.scope"
    job = scope / "job_7"
    for place in (mount, scope, job, job / "step_batch/user/task_0", job / "jobs"):
        place.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            (place / name).write_text("")
    (mount / "cgroup.controllers").write_text("memory pids\n")
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "spoold-scale", "SLURMD_NODENAME": "n1"}
    told |= {"SLURM_JOB_UID": str(os.getuid()), "SLURM_JOB_GID": str(os.getgid())}
    variables = os.environ | told | {"SPOOLD_CGROUPS": str(mount), "SPOOLD_LOCK": str(tmp_path / "lock")}
    subprocess.run([DEPLOYED / "slurm-prolog"], env=variables, check=True)
    for place in (scope, job):
        assert (place / "cgroup.subtree_control").read_text() == "+cpuset\n", "the last controller that was passed on"
    monkeypatch.setattr(cgroups, "MOUNT", mount)
    monkeypatch.setattr(cgroups, "SYSTEMD", tmp_path / "none")
    assert cgroups.beside(job / "step_batch/user/task_0", cgroups.OF_JOBS) == job / "jobs"
    assert cgroups.beside(scope, cgroups.OF_JOBS) is None
    for file in job.rglob("*.*"):  # the kernel would remove them with their directories
        file.unlink()
    subprocess.run([DEPLOYED / "slurm-epilog"], env=variables, check=True)
    assert not job.exists()
    assert scope.exists()


def test_on_version_2_root_divides_the_group_of_a_job_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd manages all groups there that it did not delegate. The Prolog's are below one that it delegated."""
    mount = tmp_path / "cgroup"
    job = mount / "system.slice/n1_slurmstepd.scope/job_7"
    own = job / "step_batch/user/task_0"
    for place in (own, job / "jobs"):
        place.mkdir(parents=True)
        (place / "cgroup.procs").write_text("")
    (mount / "cgroup.controllers").write_text("memory pids\n")
    (own / "cgroup.subtree_control").write_text("memory pids\n")
    (job / "jobs/cgroup.subtree_control").write_text("memory pids cpu cpuset\n")
    monkeypatch.setattr(cgroups, "MOUNT", mount)
    monkeypatch.setattr(cgroups, "SYSTEMD", mount)
    monkeypatch.setattr(cgroups, "own_group", lambda: own)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert groups.settle() == groups.Groups(True, dict.fromkeys(("memory", "pids", "cpu", "cpuset"), job / "jobs"))


@pytest.mark.parametrize("unified", [False, True])
def test_a_job_of_the_same_number_on_another_node_is_left_alone(tmp_path: Path, *, unified: bool) -> None:
    """A host may stand for several nodes, and slurmctld gives numbers again where it comes back with an old state."""
    if unified:
        (tmp_path / "cgroup.controllers").touch()
    place = "system.slice/{}_slurmstepd.scope/job_7" if unified else "memory/slurm_{}/uid_2002/job_7"
    jobs = [tmp_path / place.format(node) for node in ("n1", "n2")]
    for each in jobs:
        (each / "step_batch").mkdir(parents=True)
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "ann", "SLURM_JOB_UID": "2002", "SLURMD_NODENAME": "n1"}
    variables = os.environ | told | {"SPOOLD_CGROUPS": str(tmp_path), "SPOOLD_LOCK": str(tmp_path / "lock")}
    subprocess.run([DEPLOYED / "slurm-epilog", "ann"], env=variables, check=True)
    assert [each.exists() for each in jobs] == [False, True]


def test_jobs_of_others_are_left_alone(tmp_path: Path) -> None:
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "ann", "SLURM_JOB_UID": "1", "SLURM_JOB_GID": "1"}
    variables = os.environ | told | {"SPOOLD_CGROUPS": str(tmp_path), "SPOOLD_LOCK": str(tmp_path / "lock")}
    for name in ("slurm-prolog", "slurm-epilog"):
        done = subprocess.run([DEPLOYED / name], env=variables, check=True, capture_output=True)
        assert done.stderr == b""
    assert not list(tmp_path.iterdir())
