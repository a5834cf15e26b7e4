"""Root's tools act as the builder's user without anything of root's that this user could take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spoold.doctor import spool as doctor
from tests.engines import REPOSITORY
from tests.nix.setups import SYSTEMS_PYTHON

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

UID = 64333
ASKS = """
import fcntl, os, sys, termios
sys.path[:0] = [{repository!r}]
leader, terminal = os.openpty()
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
os.close(os.open("/dev/tty", os.O_RDWR))

from spoold.config import NixSettings
from spoold.nix import seat
seat.accounts.uid_of = seat.accounts.gid_of = lambda name: {uid}
seat.accounts.user_name = lambda uid: str(uid)
seat.sys = type("sys", (), {{"executable": {python!r}, "path": [{directory!r}, *{path!r}]}})
print(seat.run(NixSettings(state={directory!r} + "/state"), "looks", b"question", 60).decode())
"""
LOOKS = """
import os, sys
try:
    os.open("/dev/tty", os.O_RDWR)
    print("a terminal")
except OSError:
    print("no terminal")
print(os.getuid(), sys.stdin.read(), [os.isatty(number) for number in range(3)])
"""


def test_it_has_no_terminal_to_type_into(tmp_path: Path) -> None:
    """Another process of the same account may trace it once it has no capability."""
    store = tmp_path / "state/nix/nix/store"
    store.mkdir(parents=True)
    os.chown(store, UID, UID)
    (tmp_path / "looks.py").write_text(LOOKS)
    for directory in [tmp_path, *tmp_path.parents][:-1]:
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(0o755)
    paths = subprocess.run(
        [SYSTEMS_PYTHON, "-I", "-S", "-c", "import sys; print(*sys.path)"], capture_output=True, text=True, check=True
    ).stdout.split()
    values = {"repository": str(REPOSITORY), "uid": UID, "python": SYSTEMS_PYTHON, "path": paths}
    code = ASKS.format(directory=str(tmp_path), **values)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True, check=False
    )
    assert done.stdout == f"no terminal\n{UID} question [False, False, False]\n\n", done.stderr


def test_the_doctor_gives_away_no_file_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may write to that directory, and put a link there in the meantime."""
    monkeypatch.setattr(sys, "executable", SYSTEMS_PYTHON)
    shared = tmp_path / "shared"
    shared.mkdir()
    for directory in [shared, *shared.parents][:-1]:
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(0o755)
    shared.chmod(0o777)
    target = tmp_path / "target"
    target.write_text("root's")
    target.chmod(0o666)  # in the real race the name is swapped after the open, so an open must succeed here
    (shared / "link").symlink_to(target)
    assert doctor._works_for("nobody", str(shared / "own"), gives=True)
    assert (shared / "own").stat().st_uid == doctor.NOBODY
    assert not doctor._works_for("nobody", str(shared / "link"), gives=True)
    assert target.stat().st_uid == 0
