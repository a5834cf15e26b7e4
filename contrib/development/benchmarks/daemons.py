"""The daemons of one spool, each a process as under systemd. They end with the process that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks.ways import MeasuringError, megabytes
from spoold.config import Settings
from spoold.sandbox import program

# As installed, without typing_extensions, which only development tools need: msgspec would import it, and each daemon
# would be 1.3 MB larger.
PROGRAM = "import sys; sys.modules['typing_extensions'] = None; {}from spoold.cli.daemon import main; main()"
ROLES = ("builder", "intake", "executor", "health")
# As installed too: a package brings the program that starts in containers. A checkout compiles it at each start of an
# executor, which takes longer than all else that a start does.
PACKAGED = "from pathlib import Path; from spoold.sandbox import program; program.PACKAGED = Path({!r}); "
RESPONSE_TIMEOUT = 300.0  # seconds for the daemons to start or to end


class Daemons:
    """The daemons that go by ``settings``. Their files are in ``work``, and their names begin with ``name``.

    They run the copy of spoold in ``tree``, or else the one that this process runs.
    """

    def __init__(self, name: str, work: Path, settings: Settings, tree: Path | None = None) -> None:
        self._name = name
        self._own = {} if tree is None else {"PYTHONPATH": f"{tree / 'contrib' / 'development'}:{tree}"}
        self._config, self._log, self._address = (work / f"{name}.{kind}" for kind in ("toml", "log", "ready"))
        self._config.write_bytes(msgspec.toml.encode(settings))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._supervisor = work / "supervisor"
        if tree is None and not self._supervisor.exists():
            program.compile_to(self._supervisor)

    def begin(self, roles: Iterable[str] = ROLES) -> None:
        """Start daemons; :meth:`ready` waits for them."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(self._address))
        self._listener.settimeout(RESPONSE_TIMEOUT)
        for role in roles:
            self.launch(role, {"NOTIFY_SOCKET": str(self._address)})

    def ready(self) -> None:
        """Wait until all daemons that :meth:`begin` started have said that they are ready."""
        try:
            for _ in self._processes:
                self._listener.recv(100)
        except TimeoutError:
            raise MeasuringError(f"{self._name}: the daemons do not start{self.said()}") from None
        finally:
            self._listener.close()
            self._address.unlink()

    def launch(self, role: str, environment: dict[str, str] | None = None) -> None:
        """Start one daemon and do not wait for it. It ends with this process, however that ends."""
        packaged = role == "executor" and not self._own  # another tree may have another program
        code = PROGRAM.format(PACKAGED.format(str(self._supervisor)) if packaged else "")
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-P", "-c", code]
        with self._log.open("ab") as log:
            self._processes[role] = subprocess.Popen(
                [*command, "--config", str(self._config), role],
                env=os.environ | self._own | (environment or {}),
                stdout=log,
                stderr=log,
            )

    def end(self, roles: Iterable[str] = ROLES, how: int = signal.SIGTERM) -> None:
        """End daemons by the signal ``how``; SIGTERM ends them in good order."""
        ending = [self._processes.pop(role) for role in roles if role in self._processes]
        for process in ending:
            process.send_signal(how)
        for process in ending:
            process.wait(RESPONSE_TIMEOUT)

    def pids(self) -> dict[str, int]:
        """Return the pid of each daemon, by role."""
        return {role: process.pid for role, process in self._processes.items()}

    def memory(self) -> dict[str, float]:
        """Return the MB of each daemon, by role."""
        return {role: megabytes(pid) for role, pid in self.pids().items()}

    def said(self) -> str:
        """Return the end of the daemons' log, as text that follows an error."""
        with contextlib.suppress(OSError):
            return ". Their log ends with:\n" + self._log.read_text()[-3000:]
        return ""
