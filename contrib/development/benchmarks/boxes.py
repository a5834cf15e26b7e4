"""The peers isolate and nsjail, programs that have to be named, with the store and the limits of the others.

Their limits of memory and processes are control groups, which need root and a hierarchy that is ours to divide. Where
there is none, the limit of memory is one of address space for each process.
"""

from __future__ import annotations

import contextlib
import os
import queue
from pathlib import Path

from benchmarks.peers import OnStore
from benchmarks.programs import Program
from benchmarks.served import Served
from benchmarks.ways import WORKERS, MeasuringError
from spoold.model.limits import COMPILE_DEFAULT, MIB

LIMITS = COMPILE_DEFAULT
ADDRESS_SPACE = "no control groups here: its limit of memory bounds each process's address space"
GROUPS = Path("/sys/fs/cgroup")
GROUP = f"spoold-bench-{os.getpid()}"  # the parent of nsjail's


class Isolate(OnStore):
    """``isolate``, the sandbox of IOI: init, run, cleanup, in a box of its own for each worker."""

    def __init__(self, name: str, served: Served, program: str) -> None:
        super().__init__(name, served)
        self._program = program
        self._boxes: queue.Queue[int] = queue.Queue()
        for number in range(WORKERS):
            self._boxes.put(number)
        self._grouped: list[str] = []
        self._memory, self.about = f"--mem={LIMITS.memory >> 10}", ADDRESS_SPACE
        with contextlib.suppress(MeasuringError):
            self.printed([program, "--cg", "--box-id=0", "--init"])
            self._grouped, self._memory, self.about = ["--cg"], f"--cg-mem={LIMITS.memory >> 10}", ""
        for number in range(WORKERS):  # since 1.10 isolate does not make a box that exists already
            self.printed([program, *self._grouped, f"--box-id={number}", "--cleanup"])

    def environment(self, program: Program) -> dict[str, str]:
        """Return the environment of ``program``, which can write to the box alone."""
        return super().environment(program) | {"HOME": "/box", "TMPDIR": "/box"}

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        box = self._boxes.get()
        isolate = [self._program, *self._grouped, f"--box-id={box}"]
        try:
            self.printed([*isolate, "--init"])
            variables = [f"--env={key}={value}" for key, value in self.environment(program).items()]
            limits = [f"--processes={LIMITS.processes}", f"--wall-time={LIMITS.time}", f"--time={LIMITS.cpu_time}"]
            store = f"--dir=/nix/store={self.store}"
            options = ["--silent", store, *limits, self._memory, *variables]
            return self.printed([*isolate, *options, "--run", "--", *self.command(program)])
        finally:
            self.printed([*isolate, "--cleanup"])
            self._boxes.put(box)


class Nsjail(OnStore):
    """``nsjail``, once for each program: all its namespaces, an empty root with the store in it.

    All else is as by default, with two exceptions. The default niceness is 19, and all other work would go before it.
    The default limit for the size of files is 1 MiB.
    """

    def __init__(self, name: str, served: Served, program: str) -> None:
        super().__init__(name, served)
        self._made: list[Path] = []
        self._jail = [program, "--mode", "o", "--really_quiet", "--nice_level", "0"]
        self._jail += ["--user", "65534", "--group", "65534"]
        self._jail += ["--bindmount_ro", f"{self.store}:/nix/store", "--cwd", "/job"]
        for where in ("/job", "/tmp"):
            self._jail += ["--mount", f"none:{where}:tmpfs:size={256 * MIB},mode=1777"]
        self._jail += ["--bindmount_ro", "/dev/null", "--time_limit", f"{LIMITS.time:.0f}"]
        self._jail += ["--rlimit_cpu", f"{LIMITS.cpu_time:.0f}", "--rlimit_nofile", str(LIMITS.open_files)]
        self._jail += ["--rlimit_fsize", str(LIMITS.file_size // MIB), *self._bounds()]

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        variables = [word for key, value in self.environment(program).items() for word in ("--env", f"{key}={value}")]
        return self.printed([*self._jail, *variables, "--", *self.command(program)])

    def close(self) -> None:
        """End the threads, and remove the control groups too."""
        super().close()
        for directory in reversed(self._made):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def _bounds(self) -> list[str]:
        """Make the control groups that nsjail needs, and return the options that limit memory and processes."""
        limits = ["--cgroup_mem_max", str(LIMITS.memory), "--cgroup_pids_max", str(LIMITS.processes)]
        try:
            if (GROUPS / "cgroup.controllers").exists():
                own = self._group(GROUPS)
                (own / "cgroup.subtree_control").write_text("+memory +pids")
                return [*limits, "--use_cgroupv2", "--cgroupv2_mount", str(own), "--rlimit_as", "inf"]
            for kind in ("memory", "pids"):
                self._group(GROUPS / kind)
        except OSError:
            self.about = ADDRESS_SPACE
            return ["--rlimit_as", str(LIMITS.memory // MIB), "--rlimit_nproc", str(LIMITS.processes)]
        return [*limits, "--cgroup_mem_parent", GROUP, "--cgroup_pids_parent", GROUP, "--rlimit_as", "inf"]

    def _group(self, hierarchy: Path) -> Path:
        own = hierarchy / GROUP
        own.mkdir()
        self._made.append(own)
        return own
