"""spoolctl top on a terminal, into a pipe, and as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.cli import exits, pools, top
from spoold.config import MetricsSettings, Settings, SpoolSettings
from spoold.config.file import load
from spoold.host import textfile
from spoold.model import formats
from spoold.model.errors import OperatorError
from spoold.spool import layout
from spoold.upkeep import usage
from spoold.upkeep.pools import Noting, Pools, PoolState
from spoold.upkeep.rates import Rates
from spoold.upkeep.shares import Count, Holding
from tests.engines import REPOSITORY

NASTY = "x\x1b]0;pwned\x07\u202e.json"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return settings of a spool with something in each state."""
    root = tmp_path / "spool"
    layout.create(str(root))
    for path in ("incoming/" + NASTY, "new/a.json", "new/b@2.json", "new/c.json", "running/d@1.json"):
        (root / path).touch()
    now = time.time()
    os.utime(root / "new" / "b@2.json", (now - 4000, now - 4000))
    (root / "builds" / "building" / f"{'f' * 64}@1.json").touch()
    held = root / "tmp" / "executor-default.held"
    held.mkdir()
    (held / "d@1.json").touch()
    os.utime(held / "d@1.json", (now - 100, now - 100))
    used = {0: 300.0, 64_199: 100.0} | {64_100 + number: 1 + (18 - number) / 1000 for number in range(18)}
    usage.note(str(root), "executor-default", used | {64_150: 0.5, 64_151: 0.5})
    usage.note(str(root), "executor-two", {64_150: 0.001})
    (tmp_path / "metrics").mkdir()
    settings = Settings(
        spool=SpoolSettings(path=str(root)), metrics=MetricsSettings(directory=str(tmp_path / "metrics"))
    )
    (tmp_path / "spoold.toml").write_bytes(msgspec.toml.encode(settings))
    return tmp_path / "spoold.toml"


def command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "spoold.cli.ctl", "--config", str(config), "top", *words]


def count(config: Path, completed: int, at: float) -> None:
    """Write an executor's count of responses as of a time."""
    root = str(config.parent / "spool")
    path = Path(textfile.path_of(str(config.parent / "metrics"), root, "executor-default"))
    private = path.with_suffix(".tmp")
    private.write_text(
        f'spoold_responses_total{{daemon="executor-default",spool="{root}",status="COMPLETED"}} {completed}.0\n'
    )
    os.utime(private, (at, at))
    private.rename(path)


def test_a_program_gets_json(config: Path) -> None:
    count(config, 7, time.time())
    done = subprocess.run(command(config, "--json"), cwd=REPOSITORY, capture_output=True, check=True)
    sample: dict[str, Any] = json.loads(done.stdout)
    states = {state["state"]: state for state in sample["states"]}
    assert {name: state["entries"] for name, state in states.items()} == {
        "incoming": 1,
        "new": 3,
        "building": 0,
        "running": 1,
        "builds/new": 0,
        "builds/building": 1,
    }
    assert 4000 <= states["new"]["oldest"] < 4200
    assert states["building"]["oldest"] is None
    assert (sample["oldest"][0]["id"], sample["oldest"][0]["attempt"]) == ("b", 2)
    worker = next(worker for worker in sample["workers"] if worker["name"] == "executor-default")
    assert [entry["id"] for entry in worker["holds"]] == ["d"]
    assert 100 <= worker["holds"][0]["seconds"] < 200
    assert sample["totals"] == {"COMPLETED": 7}
    assert [(owner["uid"], owner["name"]) for owner in sample["owners"]] == [
        (0, "root"),
        (64_199, "64199"),
        *((64_100 + number, str(64_100 + number)) for number in range(18)),
        (None, "others"),
    ]
    assert sample["owners"][0]["slot_seconds"] == pytest.approx(300, rel=0.1)
    assert sample["owners"][0]["share"] == pytest.approx(300 / 419, rel=0.01)
    assert sum(owner["share"] for owner in sample["owners"]) == pytest.approx(1)
    assert {owner["entries"] for owner in sample["owners"]} == {None}, "nobody counted"
    assert sample["per_second"] is None


@pytest.mark.parametrize("words", [[], ["--once"]])
def test_a_pipe_gets_one_look(config: Path, words: list[str]) -> None:
    done = subprocess.run(command(config, *words), cwd=REPOSITORY, capture_output=True, check=True, timeout=100)
    text = done.stdout.decode()
    assert re.search(r"^new +3 +1 h [67] min", text, re.MULTILINE)
    assert re.search(r"^executor-default .* d +[12] min ", text, re.MULTILINE)
    assert "b (attempt 2)" in text
    assert re.search(r"^owner +slot-seconds lately +share +entries +on disk$", text, re.MULTILINE)
    assert re.search(r"^root +(300\.0|29[0-9]\.[0-9]) +72% *$", text, re.MULTILINE)
    assert re.search(r"^all others +[0-9.]+ +3% *$", text, re.MULTILINE)
    assert "no rates" in text
    assert "\x1b" not in text
    assert "\\x1b]0;pwned\\x07\\u202e" in text


def test_what_owners_have_is_told_beside_what_they_used(config: Path) -> None:
    had = {0: Holding(2, 8192.0, 0), 64_300: Holding(5, 3 << 20, 0), 1: Holding(7, 4096.0, 0)}
    had |= {70_000 + number: Holding(1, 1000.0, 0) for number in range(500)}
    count_file = config.parent / "spool" / "tmp" / "health.count"
    count_file.write_bytes(formats.encode(Count(began=0.0, owners=had)))
    done = subprocess.run(command(config, "--json"), cwd=REPOSITORY, capture_output=True, check=True)
    owners = {owner["uid"]: owner for owner in json.loads(done.stdout)["owners"]}
    assert len(owners) == 20 + 20 - 1 + 1, "20 by use, 20 by files (root is in both), all others as one"
    assert (owners[0]["entries"], owners[0]["bytes"]) == (2, 8192)
    assert (owners[64_199]["entries"], owners[64_300]["slot_seconds"]) == (0, 0.0)
    assert sum(owner["entries"] for owner in owners.values()) == 514
    text = subprocess.run(command(config), cwd=REPOSITORY, capture_output=True, check=True, timeout=100).stdout.decode()
    assert re.search(r"^root +[0-9.]+ +72% +2 +8.0 KiB$", text, re.MULTILINE)
    count_file.write_bytes(b"nonsense")
    assert subprocess.run(command(config), cwd=REPOSITORY, capture_output=True, check=True, timeout=100).stdout


def pool(name: str, *counts: int) -> PoolState:
    return PoolState(pool=name, **dict(zip(pools.COUNTS, counts, strict=True)))


def test_executors_that_slurm_starts(config: Path) -> None:
    root = str(config.parent / "spool")
    done = subprocess.run(command(config, "--json"), cwd=REPOSITORY, capture_output=True, check=True)
    assert json.loads(done.stdout)["pilots"] is None
    told = Pools(slurm=True, demand=9, pools=[pool("short", 5, 1, 2, 3, 0, 8), pool("long", 0, 0, 0, 0, 1, 2)])
    Noting(root).note(told, 0.0)
    done = subprocess.run(command(config, "--json"), cwd=REPOSITORY, capture_output=True, check=True)
    found = json.loads(done.stdout)["pilots"]
    assert (found["slurm"], found["demand"]) == (True, 9)
    assert {"pool": "short", "wanted": 5, "pending": 1, "starting": 2, "running": 3, "lost": 0, "most": 8} in found[
        "pools"
    ]
    text = subprocess.run(command(config), cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    assert re.search(r"^pool +wanted +pending +starting +running +lost +most$", text, re.MULTILINE)
    assert re.search(r"^short +5 +1 +2 +3 +0 +8$", text, re.MULTILINE)
    assert "scaler" not in text
    Noting(root).note(msgspec.structs.replace(told, slurm=False), 0.0)
    text = subprocess.run(command(config), cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    assert "Slurm does not answer" in text
    os.utime(config.parent / "spool/tmp/scale.pools", (1, 1))
    text = subprocess.run(command(config), cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    assert "the scaler reported this" in text


def test_it_says_that_it_is_closed_to_others(config: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    settings = load(str(config))
    rates = Rates(settings.metrics.directory, settings.spool.path)
    os.seteuid(65534)
    try:
        with pytest.raises(OperatorError, match="closed to this user"):
            top._look(settings, rates)
    finally:
        os.seteuid(0)


class Terminal:
    """A terminal of 100 columns and 40 lines that runs ``top``."""

    def __init__(self, config: Path) -> None:
        self.shown = b""
        self._side, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command(config, "--interval", "0.1"),
            cwd=REPOSITORY,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 100
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._side], [], [], 0.1)[0]:
                self.shown += os.read(self._side, 65536)

    def end(self) -> int:
        """End the program, and return its exit code.

        Read its output meanwhile, because a full terminal would block it.
        """
        self.process.send_signal(signal.SIGINT)
        try:
            while part := os.read(self._side, 65536):
                self.shown += part
        except OSError:
            os.close(self._side)  # the program has closed its side
        return self.process.wait()


def test_a_terminal_is_live_and_left_as_it_was(config: Path) -> None:
    began = int(time.time())
    count(config, 10, began - 60)
    terminal = Terminal(config)
    try:
        terminal.read_until(b"b (attempt 2)")
        terminal.read_until(b"COMPLETED")
        (config.parent / "spool" / "new" / "later.json").touch()
        terminal.read_until(b"later")
        count(config, 130, began)  # 120 in 60 seconds
        terminal.read_until(b"120.0")
    finally:
        code = terminal.end()
    assert code == exits.OK
    assert terminal.shown.index(b"\x1b[?1049h") < terminal.shown.index(b"\x1b[?1049l"), "a screen of its own, and back"
    assert terminal.shown.rindex(b"\x1b[?25l") < terminal.shown.rindex(b"\x1b[?25h"), "the cursor is shown again"
    assert b"pwned" in terminal.shown
    assert b"\x1b]0;" not in terminal.shown
    assert b"\x07" not in terminal.shown
    assert "\u202e".encode() not in terminal.shown
    assert b"Traceback" not in terminal.shown
