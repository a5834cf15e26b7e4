"""Another user of the host, who reads the command line and the environment of every process again and again.

``python -m tests.overhears UID WORD...`` prints which of the words it finds, and where. It ends with its stdin. It
imports what it needs before it becomes that user, who may be unable to read the interpreter's files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.engines import REPOSITORY

EAVESDROPPER = 64_201  # belongs to no account of any system, and the kernel needs none
PATIENCE = 100.0  # seconds
ROUND = "round"


@contextlib.contextmanager
def listening(*words: str, log: Path) -> Iterator[Callable[[], str]]:
    """Let the other user look for ``words`` in the block.

    Yield a function that returns what they have found until then.
    """
    command = [sys.executable, "-m", "tests.overhears", str(EAVESDROPPER), *words]
    with log.open("wb") as printed:
        listener = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=printed)

    def found() -> str:
        """Wait for one more round through all processes."""
        deadline, before = time.monotonic() + PATIENCE, log.read_text().count(ROUND)
        while log.read_text().count(ROUND) < before + 2:
            assert listener.poll() is None
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.01)
        return log.read_text().replace(f"{ROUND}\n", "")

    try:
        found()
        yield found
    finally:
        assert listener.stdin is not None
        listener.stdin.close()
        listener.wait()


def _listen(words: list[bytes]) -> None:
    rounds, own = 0, str(os.getpid())
    while not _ended():
        for process in os.listdir("/proc"):
            if process.isdigit() and process != own:
                for name in ("cmdline", "environ"):
                    _look(f"/proc/{process}/{name}", words)
        rounds += 1
        print(ROUND, flush=True)


def _look(path: str, words: list[bytes]) -> None:
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read(1 << 20)
    except OSError:
        return
    for word in words:
        if word in text:
            print(word.decode(), path, text[:2000], flush=True)


def _ended() -> bool:
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    uid, *arguments = sys.argv[1:]
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.set_blocking(0, False)
    _listen([word.encode()[::-1] for word in arguments])
