"""The peers that need nothing but what spoold needs: each runs the same script on the same Nix store.

Where a peer has limits, they are those of spoold's compilations, which are higher than those of its runs.
"""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Callable

import docker
from docker.types import Ulimit

from benchmarks.programs import PROGRAMS, PYTHON, Program
from benchmarks.served import Served
from benchmarks.ways import WORKERS, MeasuringError, Peer, environment
from spoold.model.limits import COMPILE_DEFAULT

USER = "65534:65534"
TMPFS = "rw,exec,nosuid,nodev,uid=65534,gid=65534,size=256m"
ULIMITS = [
    Ulimit(name=name, soft=most, hard=most)
    for name, most in (("nofile", COMPILE_DEFAULT.open_files), ("cpu", int(COMPILE_DEFAULT.cpu_time)))
]
RUN_TIMEOUT = 120  # seconds for one run


class OnStore(Peer):
    """A peer that sees the store of ``served`` as jobs do."""

    def __init__(self, name: str, served: Served) -> None:
        super().__init__(name, PROGRAMS)
        self.host = served.settings.docker.host
        self.store, self.image = served.settings.nix.physical_store, served.image
        self.bash = f"{served.runtime.bash}/bin/bash"
        self.paths = {program: served.path(program) for program in PROGRAMS}

    def command(self, program: Program) -> list[str]:
        """Return the command that runs ``program`` where the store is /nix/store."""
        return [self.bash, "-c", program.script]

    def environment(self, program: Program) -> dict[str, str]:
        """Return the environment of ``program``."""
        return environment(self.paths[program])

    def printed(self, command: list[str]) -> str:
        """Run a command and return what it printed; raise :class:`MeasuringError` where it failed."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False)
        if done.returncode != 0:
            raise MeasuringError(f"{self.name}: exit code {done.returncode}: {done.stderr[-1000:]}")
        return done.stdout


class DockerRun(OnStore):
    """``docker run --rm``."""

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        options = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        options += [f"--pids-limit={COMPILE_DEFAULT.processes}", f"--user={USER}", "--log-driver=none"]
        options += [f"--memory={COMPILE_DEFAULT.memory}", f"--memory-swap={COMPILE_DEFAULT.memory}"]
        options += [f"--ulimit=nofile={COMPILE_DEFAULT.open_files}", f"--ulimit=cpu={COMPILE_DEFAULT.cpu_time:.0f}"]
        options += [f"--tmpfs={where}:{TMPFS}" for where in ("/job", "/tmp")] + ["--workdir=/job"]
        options += [f"--volume={self.store}:/nix/store:ro", f"--entrypoint={self.bash}"]
        options += [f"--env={key}={value}" for key, value in self.environment(program).items()]
        return self.printed(
            ["docker", "--host", self.host, "run", "--rm", *options, self.image, *self.command(program)[1:]]
        )


class DockerSdk(OnStore):
    """The Docker SDK: create, start, wait, logs, remove."""

    def __init__(self, name: str, served: Served) -> None:
        super().__init__(name, served)
        self._client = docker.DockerClient(base_url=self.host, version="auto", timeout=RUN_TIMEOUT)

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        output: bytes = self._client.containers.run(
            self.image,
            self.command(program)[1:],
            entrypoint=self.bash,
            remove=True,
            environment=self.environment(program),
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=COMPILE_DEFAULT.processes,
            user=USER,
            mem_limit=COMPILE_DEFAULT.memory,
            memswap_limit=COMPILE_DEFAULT.memory,
            ulimits=ULIMITS,
            tmpfs={"/job": TMPFS, "/tmp": TMPFS},
            working_dir="/job",
            volumes={self.store: {"bind": "/nix/store", "mode": "ro"}},
        )
        return output.decode()


class Bubblewrap(OnStore):
    """bubblewrap: all namespaces, no limits."""

    about = "no limits, because bubblewrap has none"

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        return self.printed([*self.wrapped("--unshare-all"), *self.variables(program), *self.command(program)])

    def wrapped(self, *options: str) -> list[str]:
        """Return the command that makes an empty root with the store in it."""
        command = ["bwrap", *options, "--die-with-parent", "--ro-bind", self.store, "/nix/store"]
        return [*command, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/job", "--chdir", "/job"]

    def variables(self, program: Program) -> list[str]:
        """Return the options that set the environment."""
        set_ = [word for pair in self.environment(program).items() for word in ("--setenv", *pair)]
        return ["--clearenv", *set_]


RUNNER = """
import json, subprocess, sys, tempfile
for line in sys.stdin:
    command, environment = json.loads(line)
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
"""


class NoIsolation(Bubblewrap):
    """A plain child process of a Python that runs all the time and sees the store at /nix/store."""

    about = "no limits, no isolation"

    def __init__(self, name: str, served: Served) -> None:
        super().__init__(name, served)
        self._runners: queue.Queue[subprocess.Popen[str]] = queue.Queue()
        python = f"{self.paths[PYTHON].partition(':')[0]}/python3"
        command = [*self.wrapped(), python, "-I", "-c", RUNNER]
        for _ in range(WORKERS):
            self._runners.put(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        runner = self._runners.get()
        assert runner.stdin is not None  # noqa: S101 - for mypy: it was started with pipes
        assert runner.stdout is not None  # noqa: S101 - as above
        print(json.dumps([self.command(program), self.environment(program)]), file=runner.stdin, flush=True)
        code, printed, error = json.loads(runner.stdout.readline())
        self._runners.put(runner)
        if code != 0:
            raise MeasuringError(f"{self.name}: exit code {code}: {error}")
        return str(printed)

    def close(self) -> None:
        """End the threads, and the runners too."""
        super().close()
        for _ in range(WORKERS):
            self._runners.get().communicate()


# The name of each peer and the class that makes it. A new peer is a line here.
ON_STORE: dict[str, Callable[[str, Served], OnStore]] = {
    "docker-run": DockerRun,
    "docker-sdk": DockerSdk,
    "bubblewrap": Bubblewrap,
    "no-isolation": NoIsolation,
}
