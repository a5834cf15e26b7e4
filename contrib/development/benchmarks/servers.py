"""The peers that are servers and have to run already: go-judge and Piston.

They run programs from file systems of their own. A go-judge that has the store mounted runs what the others run. Piston
runs the same sources with its own packages.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
import urllib.request
from typing import Any

from benchmarks.programs import COMPILE, PROGRAMS, PYTHON, TRIVIAL, Program
from benchmarks.served import Served
from benchmarks.ways import Peer
from spoold.model.limits import COMPILE_DEFAULT

RUN_TIMEOUT = 120  # seconds for one run


class GoJudge(Peer):
    """A running go-judge: POST /run. Where its containers do not have the store, it runs programs that they have."""

    def __init__(self, name: str, url: str, served: Served) -> None:
        super().__init__(name, PROGRAMS)
        self.url = url
        self._server = Server(url.rstrip("/"))
        self._shell, self._paths = f"{served.runtime.bash}/bin/bash", {each: served.path(each) for each in PROGRAMS}
        if self._asked("exit 0", self._paths[TRIVIAL])["status"] != "Accepted":
            self._shell, self._paths = "/bin/sh", dict.fromkeys(PROGRAMS, "/usr/local/bin:/usr/bin:/bin")
            self.about = "programs of its own, because its containers do not have the store"

    def run(self, program: Program) -> str:
        """See :class:`Peer`."""
        result = self._asked(program.script, self._paths[program])
        return str(result["files"]["stdout"]) if result["status"] == "Accepted" else str(result)

    def _asked(self, script: str, path: str) -> dict[str, Any]:
        streams = [{"content": ""}, {"name": "stdout", "max": 1 << 20}, {"name": "stderr", "max": 1 << 20}]
        command = {
            "args": [self._shell, "-c", script],
            "env": [f"PATH={path}", "LANG=C.UTF-8"],
            "files": streams,
            "cpuLimit": int(COMPILE_DEFAULT.cpu_time * 1e9),
            "clockLimit": int(COMPILE_DEFAULT.time * 1e9),
            "memoryLimit": COMPILE_DEFAULT.memory,
            "procLimit": COMPILE_DEFAULT.processes,
        }
        result: dict[str, Any]
        (result,) = self._server.posted("/run", {"cmd": [command]})
        return result

    def close(self) -> None:
        """End the connections too."""
        super().close()
        self._server.close()


class Piston(Peer):
    """A running Piston: POST /api/v2/execute, with its own packages; programs without a package there are left out."""

    LANGUAGES = ((TRIVIAL, "bash", "run.sh"), (PYTHON, "python", "squares.py"), (COMPILE, "c", "sum.c"))

    about = "packages of its own, and its own limits of time"

    def __init__(self, name: str, url: str) -> None:
        self.url = url
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
        limits = {f"{phase}_memory_limit": COMPILE_DEFAULT.memory for phase in ("compile", "run")}
        request = {"language": language, "version": version, "files": files, "stdin": stdin, **limits}
        result = self._server.posted("/execute", request)
        ran = result.get("run") or {}  # there is none where the compilation failed
        return str(ran.get("stdout") or result)

    def close(self) -> None:
        """End the connections too."""
        super().close()
        self._server.close()


class Server:
    """A server at a URL. It keeps a connection for each thread that asks."""

    def __init__(self, url: str) -> None:
        self._parts = urllib.parse.urlsplit(url)
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def posted(self, path: str, body: object) -> Any:
        """Post ``body`` as JSON, and return the JSON of the answer."""
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
