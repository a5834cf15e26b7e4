"""A Debian that boots in a container of systemd-nspawn: systemd is its process 1, with units, users and a journal.

Theory of operation: the system is contrib/test's ($SPOOLD_TEST_DEBIAN) and is never written to: an overlay lies over
it. It is mounted in a mount namespace that ends with the container, and the container ends with the test process, by
whatever signal. Docker's and containerd's directories are real ones, since overlayfs takes no second layer of itself.
There is no network but loopback. The control groups are below the test's own, so that the inner systemd sees no other.

What is cached stays in memory over a reboot and over :meth:`Machine.cut_power`: a loss of power is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from spoold.host import cgroups
from tests import engines
from tests.waiting import ending

PATIENCE = 300 * engines.SLOWNESS  # seconds to boot, to come to rest, and for what is run in it
# Outside. The groups come after the two arguments.
_ENTER = """
system=$1 directory=$2; shift 2
for group; do echo $$ >"$group/cgroup.procs"; done
mount -t overlay overlay -o "lowerdir=$system,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
exec systemd-nspawn --quiet --directory="$directory/root" --machine=spoold-$$ --register=no --keep-unit \
    --private-network --console=pipe --system-call-filter="@keyring bpf" --kill-signal=SIGRTMIN+3 \
    --bind="$directory/docker:/var/lib/docker" --bind="$directory/containerd:/var/lib/containerd" \
    sh -c "$INIT"
"""
# Inside, before systemd. nspawn mounts the controllers read-only, and limits would count for nothing. It also covers
# parts of /proc: only where a whole one is in sight does the kernel let an ordinary user's namespace mount its own. And
# bubblewrap looks at process 2 of whichever /proc it sees, which on other machines is a thread of the kernel's.
_INIT = """
for group in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$group"; done
mkdir -p /run/whole-proc
mount -t proc -o nosuid,nodev,noexec proc /run/whole-proc
[ -e /proc/2 ] || echo 1 >/run/whole-proc/sys/kernel/ns_last_pid
sleep infinity >/dev/null 2>&1 &
exec setpriv --pdeathsig=KILL /sbin/init
"""
_RESTART = 133  # nspawn's exit code where the system inside rebooted
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root")


class Machine:
    """One machine. ``directory`` must be on a file system that an overlay can write to."""

    def __init__(self, system: Path, directory: Path) -> None:
        self._system = system
        self._directory = directory
        self._groups = _groups(f"spoold-boot-{os.getpid()}")
        self._nspawn: subprocess.Popen[bytes] | None = None
        for name in ("upper/etc", "work", "root", "docker", "containerd"):
            (directory / name).mkdir(parents=True)
        (directory / "upper/etc/machine-id").touch()

    def boot(self) -> None:
        """Start it, and wait until systemd has started all that it is to start."""
        for group in self._groups:
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists() and (group.parent / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        with (self._directory / "console").open("ab") as console:
            tied = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=slave"]
            self._nspawn = subprocess.Popen(
                [*tied, "sh", "-euc", _ENTER, "sh", self._system, self._directory, *self._groups],
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
        """Shut it down in an orderly way, and boot it again."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(timeout=PATIENCE) == _RESTART, self.console()
        self._end()
        self.boot()

    def cut_power(self) -> None:
        """End all its processes at once, and boot it again."""
        self._end()
        self.boot()

    def _end(self) -> None:
        if self._nspawn is None:
            return
        leader = self.leader
        with ending(leader) if leader else contextlib.nullcontext():
            self._nspawn.kill()  # process 1 asked to go with its parent, and takes all others along
            self._nspawn.wait()
        self._nspawn = None
        for group in self._groups:
            # What runs in there ends, in its own time.
            wait_until(lambda group=group: _removed(group), lambda group=group: f"{group} cannot be removed")  # type: ignore[misc]

    def remove(self) -> None:
        """End it and remove all that it wrote."""
        self._end()
        shutil.rmtree(self._directory)

    @property
    def leader(self) -> int | None:
        """Return the pid of its process 1, as the host sees it; None before there is one.

        What prepares it has other children before that, which are in the host's namespaces.
        """
        assert self._nspawn is not None
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
            return next((int(pid) for pid in children.split() if _is_first_of_a_namespace(pid)), None)
        return None

    def console(self) -> str:
        """Return the end of what was written to its console."""
        return (self._directory / "console").read_text(errors="replace")[-2000:]

    def path(self, inside: str) -> Path:
        """Return the path by which the host reaches a file of the machine while that runs."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def run(
        self, *argv: str, user: str = "root", check: bool = True, timeout: float = PATIENCE, env: tuple[str, ...] = ()
    ) -> str:
        """Run a program in it, in /root or /, and return its output; ``check``: it must end well."""
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
        """Run a shell script in it, each of whose commands must end well."""
        return self.run("sh", "-euc", script, user=user, timeout=timeout, env=env)

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={key}", unit).strip()

    def journal(self, *matches: str) -> list[dict[str, str]]:
        """Return records of its journal, oldest first."""
        return [json.loads(line) for line in self.run("journalctl", "-o", "json", *matches).splitlines()]


def wait_until(
    happened: Callable[[], bool], otherwise: Callable[[], str], *, patience: float = PATIENCE, pause: float = 0.05
) -> None:
    """Return when it has happened; fail with what ``otherwise`` says when it does not in time."""
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
    """Return a control group of that name in each hierarchy, below our own."""
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
    """Have all controllers of a group of version 2 divide among those below it, in which no process is left."""
    for controller in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _removed(group: Path) -> bool:
    """Remove a control group and those below it; False while something still runs in one."""
    try:
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return not group.exists()
