"""The peers: each runs the same script on the same Nix store, under the same limits where it has them.

``isolate`` gets the store too; go-judge and Piston run what their own file systems hold, since they are given running.
"""

from __future__ import annotations

import http.client
import json
import queue
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import docker

from benchmarks.programs import COMPILE, PROGRAMS, PYTHON, TRIVIAL, Program
from benchmarks.served import Served
from benchmarks.ways import WORKERS, MeasuringError, Peer, environment
from spoold.model.limits import COMPILE_DEFAULT

USER = "65534:65534"
TMPFS = "rw,exec,nosuid,nodev,uid=65534,gid=65534,size=256m"
RUN_TIMEOUT = 120  # seconds for one run


class OnStore(Peer):
    """A peer that sees the store of ``served``, as jobs do."""

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
        """Return its environment."""
        return environment(self.paths[program])

    def printed(self, command: list[str]) -> str:
        """Return what a command printed; raises when it failed."""
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
            tmpfs={"/job": TMPFS, "/tmp": TMPFS},
            working_dir="/job",
            volumes={self.store: {"bind": "/nix/store", "mode": "ro"}},
        )
        return output.decode()


class Bubblewrap(OnStore):
    """bubblewrap: all namespaces, no limits."""

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
    """A plain child process, of a Python that runs all the time and sees the store where it has to be seen."""

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
        """End the runners too."""
        super().close()
        for _ in range(WORKERS):
            self._runners.get().communicate()


class Isolate(OnStore):
    """``isolate``, the sandbox of IOI: init, run, cleanup, in a box of its own for each worker."""

    def __init__(self, name: str, served: Served, program: str) -> None:
        super().__init__(name, served)
        self._program = program
        self._boxes: queue.Queue[int] = queue.Queue()
        for number in range(WORKERS):
            self._boxes.put(number)

    def environment(self, program: Program) -> dict[str, str]:
        """Return its environment: what can be written to is the box alone."""
        return super().environment(program) | {"HOME": "/box", "TMPDIR": "/box"}

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        box = self._boxes.get()
        isolate = [self._program, f"--box-id={box}"]
        try:
            self.printed([*isolate, "--init"])
            variables = [f"--env={key}={value}" for key, value in self.environment(program).items()]
            limits = [f"--processes={COMPILE_DEFAULT.processes}", f"--wall-time={COMPILE_DEFAULT.time}"]
            store = f"--dir=/nix/store={self.store}"
            return self.printed(
                [*isolate, "--silent", store, *limits, *variables, "--run", "--", *self.command(program)]
            )
        finally:
            self.printed([*isolate, "--cleanup"])
            self._boxes.put(box)


class GoJudge(Peer):
    """A running go-judge: POST /run, with what its containers hold."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, (TRIVIAL, PYTHON, COMPILE))
        self._server = Server(url.rstrip("/"))

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        streams = [{"content": ""}, {"name": "stdout", "max": 1 << 20}, {"name": "stderr", "max": 1 << 20}]
        command = {
            "args": ["/bin/sh", "-c", program.script],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "files": streams,
            "cpuLimit": int(COMPILE_DEFAULT.time * 1e9),
            "memoryLimit": COMPILE_DEFAULT.memory,
            "procLimit": COMPILE_DEFAULT.processes,
        }
        (result,) = self._server.posted("/run", {"cmd": [command]})
        return str(result["files"]["stdout"]) if result["status"] == "Accepted" else str(result)

    def close(self) -> None:
        """End the connections too."""
        super().close()
        self._server.close()


class Piston(Peer):
    """A running Piston: POST /api/v2/execute, with its own packages; what it has no package for is left out."""

    LANGUAGES = ((TRIVIAL, "bash", "run.sh"), (PYTHON, "python", "squares.py"), (COMPILE, "c", "sum.c"))

    def __init__(self, name: str, url: str) -> None:
        self._server = Server(f"{url.rstrip('/')}/api/v2")
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v2/runtimes", timeout=RUN_TIMEOUT) as answer:  # noqa: S310 - a URL that was given
            versions = {each["language"]: each["version"] for each in json.load(answer)}
        self._known = {
            program: (language, versions[language], file)
            for program, language, file in self.LANGUAGES
            if language in versions
        }
        super().__init__(name, tuple(self._known))

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        language, version, file = self._known[program]
        stdin = {PYTHON: "1 2 3\n", COMPILE: "20 22\n"}.get(program, "")
        files = [{"name": file, "content": program.files[file]}]
        request = {"language": language, "version": version, "files": files, "stdin": stdin}
        result = self._server.posted("/execute", request)
        ran = result.get("run") or {}  # there is none where the compilation failed
        return str(ran.get("stdout") or result)

    def close(self) -> None:
        """End the connections too."""
        super().close()
        self._server.close()


class Server:
    """A server at a URL, with a connection that is kept for each thread that asks."""

    def __init__(self, url: str) -> None:
        self._parts = urllib.parse.urlsplit(url)
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def posted(self, path: str, body: object) -> Any:
        """Return the JSON that it answers to JSON."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            connection = self._own.connection = kind(self._parts.netloc, timeout=RUN_TIMEOUT)
            self._all.append(connection)
        try:
            connection.request("POST", self._parts.path + path, json.dumps(body), {"Content-Type": "application/json"})
            return json.load(connection.getresponse())
        except (http.client.HTTPException, OSError):
            self._own.connection = None
            raise

    def close(self) -> None:
        """Close the connections."""
        for connection in self._all:
            connection.close()


# The name of each way and what makes it; a new one is a line here.
ON_STORE: dict[str, Callable[[str, Served], OnStore]] = {
    "docker-run": DockerRun,
    "docker-sdk": DockerSdk,
    "bubblewrap": Bubblewrap,
    "no-isolation": NoIsolation,
}
