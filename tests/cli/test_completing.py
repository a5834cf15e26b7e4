"""Completion in real shells on a terminal: ids that were submitted from here, files, languages."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.cli.record import Record
from tests.engines import REPOSITORY

PATIENCE = 100.0  # seconds
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78])")
START = {
    "bash": (["--norc", "--noprofile", "-i"], "source {place}/bash-completion/completions/spoolctl"),
    "zsh": (["-f", "-i"], "autoload -Uz compinit; compinit -u -D; source {place}/zsh/vendor-completions/_spoolctl"),
    "fish": (["--no-config", "-i"], "source {place}/fish/vendor_completions.d/spoolctl.fish"),
}


class Terminal:
    """A shell on a terminal, at which the test types."""

    def __init__(self, shell: str, environment: dict[str, str], directory: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._process = subprocess.Popen(
            ["setsid", "--ctty", shell, *START[shell][0]],
            env=environment,
            cwd=directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._said = ""

    def type(self, text: str, until: str) -> None:
        """Type a text once the shell reads keys. Then wait until the terminal shows ``until``."""
        self._read_until(lambda: not termios.tcgetattr(self._ours)[3] & termios.ICANON)
        self._said = ""
        os.write(self._ours, text.encode())
        self._read_until(lambda: until in ESCAPES.sub("", self._said), until)

    def _read_until(self, condition: Callable[[], bool], wanted: str = "") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{wanted!r} is not in {self._said!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                part = os.read(self._ours, 65536)
                self._said += part.decode(errors="replace")
                if b"\x1b[c" in part or b"\x1b[0c" in part:
                    os.write(self._ours, b"\x1b[?1;2c")  # a shell asks for the kind of terminal

    def close(self) -> None:
        os.close(self._ours)  # hangs up
        self._process.wait()


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an installation's files for shells."""
    made = tmp_path_factory.mktemp("share")
    script = REPOSITORY / "contrib/packaging/man"
    subprocess.run([sys.executable, script, made], check=True, capture_output=True)
    return made / "usr" / "share"


@pytest.fixture(params=START)
def terminal(request: pytest.FixtureRequest, share: Path, tmp_path: Path) -> Iterator[Terminal]:
    shell = str(request.param)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "spoolctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m spoold.cli.ctl "$@"\n')
    program.chmod(0o755)
    here = tmp_path / "here"
    (here / "folder").mkdir(parents=True)
    (here / "program.py").touch()
    for name in ("odd name.py", "odd$(touch ran).py", "oddly\nnamed.py"):
        (here / name).touch()
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "SPOOLD_CONFIG": os.devnull,
        "SPOOLD_SPOOL": str(tmp_path / "spool"),
        "PS1": "$ ",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", environment["XDG_STATE_HOME"])
        Record(str(tmp_path / "spool")).add("alice-ex3-0123456789ab", "alice.py")
        Record(str(tmp_path / "other")).add("bob-fedcba987654", "bob.py")
        hostile = Record("ssh://host:22/var/spool")
        hostile.add("1000.cho-$(touch ran)", "x.py")
        hostile.add("1000.cho-0.1_x", "a:b %F{red} $(touch ran) `touch ran` 'x\"\x1b]0;x\x07,y.py")
        with open(hostile.path, "ab") as file:
            file.write(b'{"id": "1000.cho-$(touch ran)", "name": "x"}\n{"id": "1000.cho-*", "name": "x"}\n')
    made = Terminal(shell, environment, here)
    made.type(START[shell][1].format(place=share) + "\r", "spoolctl")
    made.type("echo read''y\r", "ready")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("spoolctl status al", "status alice-ex3-0123456789ab"),
        ("spoolctl logs -f al", "-f alice-ex3-0123456789ab"),
        ("spoolctl wait x al", "x alice-ex3-0123456789ab"),
        ("spoolctl --spool ../other outputs bo", "outputs bob-fedcba987654"),
        ("spoolctl cancel --spool ../other bo", "bob-fedcba987654"),
        ("spoolctl run prog", "run program.py"),
        ("spoolctl submit fol", "submit folder"),
        ("spoolctl outputs x -C fol", "-C folder"),
        ("spoolctl run --language pasc", "--language pascal"),
        ("spoolctl run --language=pasc", "--language=pascal"),
        ("spoolctl outputs x --directory=fol", "--directory=folder"),
        ("spoolctl batch x --html=prog", "--html=program.py"),
        ("spoolctl --spool=../other outputs bo", "outputs bob-fedcba987654"),
        ("spoolctl --spool ~/other outputs bo", "outputs bob-fedcba987654"),
        ("spoolctl outputs --spool $HOME/other bo", "bob-fedcba987654"),
        ("spoolctl --spool ssh://host:22/var/spool status 1000", "status 1000.cho-0.1_x"),
        ("spoolctl list --spool=ssh://host:22/var/spool --state=compl", "--state=completed"),
        ("spoolctl list --state compl", "--state completed"),
    ],
)
def test_a_shell_completes(terminal: Terminal, typed: str, shown: str) -> None:
    terminal.type(f"{typed}\t", shown)


def test_names_of_files_are_quoted_and_nothing_in_a_name_runs(terminal: Terminal, tmp_path: Path) -> None:
    """A completed name is one word for the program, whatever is in it."""
    for at, (typed, name) in enumerate((("odd\\ ", "odd name.py"), ("odd\\$", "odd$(touch ran).py"))):
        terminal.type(f"spoolctl run {typed}\t", ".py")
        # The line is turned into the arguments of a program that shows them.
        terminal.type(f"\x01printf '<%s>' {at} \x05\r", f"<{name}>")
    assert not list(tmp_path.rglob("ran"))
