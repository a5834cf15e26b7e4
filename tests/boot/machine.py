"""A Debian that boots in a container of systemd-nspawn: systemd is its process 1, with units, users and a journal.

Theory of operation: the system is contrib/test's ($SPOOLD_TEST_DEBIAN). It is never written to, because an overlay lies
over it. The overlay is mounted in a mount namespace that ends with the container. The container ends with the test
process, whichever signal ends that. The directories of Docker and containerd are real ones, because overlayfs accepts
no second layer of itself. The only network is loopback. The control groups are below the test's own, so that the inner
systemd sees no other.

The page cache survives a reboot and :meth:`Machine.cut_power`. Other tests lose unsynced data (tests/crash).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from spoold.host import cgroups
from tests import engines
from tests.waiting import ending

PATIENCE = 300 * engines.SLOWNESS  # seconds for a boot, for rest, and for a program in the machine
# Here nspawn makes a directory for each machine. It starts no machine whose directory is there already.
_TRACES = Path("/run/systemd/nspawn/propagate")
# Runs outside of the container. The control groups come after the three arguments.
_ENTER = """
system=$1 directory=$2 name=$3; shift 3
for group; do echo $$ >"$group/cgroup.procs"; done
mount -t overlay overlay -o "lowerdir=$system,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
exec systemd-nspawn --quiet --directory="$directory/root" --machine="$name" --register=no --keep-unit \
    --private-network --console=pipe --system-call-filter="@keyring bpf" --kill-signal=SIGRTMIN+3 \
    --bind="$directory/docker:/var/lib/docker" --bind="$directory/containerd:/var/lib/containerd" \
    sh -c "$INIT"
"""
# Runs inside, before systemd. nspawn mounts the controllers read-only, so limits would have no effect. It also covers
# parts of /proc. The kernel lets an ordinary user's namespace mount its own /proc only if a whole one is in sight.
# bubblewrap looks at process 2 in /proc. On other machines that is a kernel thread, so one process is started for it.
_INIT = """
for group in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$group"; done
mkdir -p /run/whole-proc
mount -t proc -o nosuid,nodev,noexec proc /run/whole-proc
[ -e /proc/2 ] || echo 1 >/run/whole-proc/sys/kernel/ns_last_pid
sleep infinity >/dev/null 2>&1 &
exec setpriv --pdeathsig=KILL /sbin/init
"""
_RESTART = 133  # nspawn's exit code after a reboot of the system inside
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root")


class Machine:
    """One machine. ``directory`` must be on a file system that an overlay can write to."""

    def __init__(self, system: Path, directory: Path) -> None:
        self._system = system
        self._directory = directory
        self._groups = _groups(f"spoold-boot-{os.getpid()}")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._name = ""  # of what runs now; each boot has another, see _TRACES
        for name in ("upper/etc", "work", "root", "docker", "containerd"):
            (directory / name).mkdir(parents=True)
        (directory / "upper/etc/machine-id").touch()

    def boot(self) -> None:
        """Start the machine, and wait until systemd has started everything."""
        for group in self._groups:
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists() and (group.parent / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        self._name = f"spoold-{uuid.uuid4().hex}"
        with (self._directory / "console").open("ab") as console:
            tied = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=slave"]
            self._nspawn = subprocess.Popen(
                [*tied, "sh", "-euc", _ENTER, "sh", self._system, self._directory, self._name, *self._groups],
                env={**os.environ, "INIT": _INIT},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._wait_for_systemd()

    def _wait_for_systemd(self) -> None:
        said = ""

        def booted() -> bool:
            nonlocal said
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, self.console()
            said = self.run("systemctl", "is-system-running", check=False).strip()
            return said in ("running", "degraded")

        wait_until(booted, lambda: f"systemd says {said!r}: {self.console()}", pause=0.1)
        assert said == "running", self.run("systemctl", "list-units", "--failed", "--no-legend")

    def reboot(self) -> None:
        """Shut the machine down in an orderly way, and boot it again."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(timeout=PATIENCE) == _RESTART, self.console()
        self._end()
        self.boot()

    def cut_power(self) -> None:
        """Kill all processes of the machine at once, and boot it again."""
        self._end()
        self.boot()

    def _end(self) -> None:
        if self._nspawn is None:
            return
        leader = self.leader
        with ending(leader) if leader else contextlib.nullcontext():
            self._nspawn.kill()  # process 1 dies with its parent, and all other processes die with it
            self._nspawn.wait()
        self._nspawn = None
        with contextlib.suppress(FileNotFoundError):
            (_TRACES / self._name).rmdir()
        for group in self._groups:
            # The processes in the group end in their own time.
            wait_until(lambda group=group: _removed(group), lambda group=group: f"{group} cannot be removed")  # type: ignore[misc] # mypy cannot infer it

    def remove(self) -> None:
        """End the machine and remove its files."""
        self._end()
        shutil.rmtree(self._directory)

    @property
    def leader(self) -> int | None:
        """Return the pid of its process 1 as the host sees it, or None before there is one.

        Before that, nspawn has other children, which are in the host's namespaces.
        """
        assert self._nspawn is not None
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
            return next((int(pid) for pid in children.split() if _is_first_of_a_namespace(pid)), None)
        return None

    def console(self) -> str:
        """Return the end of its console's output."""
        return (self._directory / "console").read_text(errors="replace")[-2000:]

    def path(self, inside: str) -> Path:
        """Return the host's path to a file of the machine while the machine runs."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def run(
        self, *argv: str, user: str = "root", check: bool = True, timeout: float = PATIENCE, env: tuple[str, ...] = ()
    ) -> str:
        """Run a program in the machine, in /root or /, and return its output. With ``check`` it must succeed."""
        leader = self.leader
        if leader is None:
            return ""
        inside = ["env", "-i", *_ENVIRONMENT, *env]
        inside += ["runuser", "-u", user, "--"] if user != "root" else ["env", "--chdir=/root"]
        done = subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--wd=/", *inside, *argv],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, (
            f"{argv}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
        return done.stdout

    def sh(self, script: str, *, user: str = "root", timeout: float = PATIENCE, env: tuple[str, ...] = ()) -> str:
        """Run a shell script in the machine. Each of its commands must succeed."""
        return self.run("sh", "-euc", script, user=user, timeout=timeout, env=env)

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={key}", unit).strip()

    def journal(self, *matches: str) -> list[dict[str, str]]:
        """Return records of the machine's journal, oldest first."""
        return [json.loads(line) for line in self.run("journalctl", "-o", "json", *matches).splitlines()]


def wait_until(
    happened: Callable[[], bool], otherwise: Callable[[], str], *, patience: float = PATIENCE, pause: float = 0.05
) -> None:
    """Return when the condition holds. Fail with the text of ``otherwise`` if it doesn't in time."""
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(pause)


def _is_first_of_a_namespace(pid: str) -> bool:
    """Tell whether a process is process 1 of a namespace below ours."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(numbers) > 1 and numbers[-1] == "1"


def _groups(name: str) -> list[Path]:
    """Return a control group with this name in each hierarchy, below our own group."""
    ours = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        ours[controllers] = path
    groups = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, kind, options, *_ = line.split()
        if kind not in ("cgroup", "cgroup2") or not mounted.startswith("/sys/fs/cgroup"):
            continue
        of_line = [key for key in ours if key and set(key.split(",")) <= set(options.split(","))]
        path = ours[of_line[0] if kind == "cgroup" else ""]
        parent = Path(f"{mounted}/{path}")
        if kind == "cgroup2" and (divided := cgroups.unified(parent)):
            parent = divided["memory"]
            _share_all(parent)
        groups.append(parent / name)
    return groups


def _share_all(group: Path) -> None:
    """Pass all controllers of a group of version 2 on to the groups below it. No process may be left in the group."""
    for controller in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _removed(group: Path) -> bool:
    """Remove a control group and those below it. Return False while something still runs in one."""
    try:
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return not group.exists()
