"""A stand-in for systemctl in the commands of pages: ``python -m tests.docs.units STATE enable --now UNIT``.

``STATE/units.json`` has the command of each unit, and the units of each target. A unit is ready when its log says so.
tests/boot tests the real units under systemd.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import until


class Units:
    """The units of one host."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._ours: list[subprocess.Popen[bytes]] = []  # another process of this program may end them
        self._known: dict[str, list[str] | dict[str, list[str]]] = json.loads((state / "units.json").read_text())

    def start(self, name: str) -> None:
        """Start a unit, or the units of a target, unless they run."""
        for unit, command in self._of(name).items():
            pid = self._state / f"{unit}.pid"
            if not pid.exists():
                log = self._state / f"{unit}.log"
                with log.open("wb") as file:
                    process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
                self._ours.append(process)
                pid.write_text(str(process.pid))
                until(lambda log=log: "msg=ready" in log.read_text(), log.read_text)  # type: ignore[misc] # mypy cannot infer it

    def stop(self, name: str) -> None:
        """Stop a unit, or the units of a target, if they run."""
        for unit in self._of(name):
            pid = self._state / f"{unit}.pid"
            if pid.exists():
                number = int(pid.read_text())
                pid.unlink()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGTERM)
                until(lambda number=number: not self._lives(number))  # type: ignore[misc] # mypy cannot infer it

    def names(self, patterns: list[str]) -> list[str]:
        """Return the units that match shell patterns.

        A name without a unit is returned too, because it is the page's mistake.
        """
        return [name for each in patterns for name in fnmatch.filter(self._known, each) or [each]]

    def _lives(self, pid: int) -> bool:
        for process in self._ours:
            process.poll()  # reap it, because a zombie would look alive
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def _of(self, name: str) -> dict[str, list[str]]:
        found = self._known[name.removesuffix(".service")]
        return {name: found} if isinstance(found, list) else found


def write(state: Path, known: dict[str, list[str] | dict[str, list[str]]]) -> Units:
    """Write the units of a host."""
    state.mkdir()
    (state / "units.json").write_text(json.dumps(known))
    return Units(state)


if __name__ == "__main__":
    units = Units(Path(sys.argv[1]))
    match sys.argv[2:]:
        case ["enable", "--now", name] | ["start", name]:
            units.start(name)
        case ["restart", name]:
            units.stop(name)
            units.start(name)
        case ["stop", *patterns]:
            for name in units.names(patterns):
                units.stop(name)
        case words:
            sys.exit(f"no page has said so far: systemctl {' '.join(words)}")
