"""Reports of the machine about itself, where names are unusual."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOOK = "import sys; from spoold.host.machine import mount_of; print(*mount_of(sys.argv[1]), sep='\\0', end='')"


@pytest.mark.parametrize("name", ["Übung 1", "back\\slash", "bytes-\udcff"])
def test_a_mount_point_may_have_any_name(tmp_path: Path, name: str) -> None:
    point = tmp_path / name
    point.mkdir()
    script = 'mount -t tmpfs tmpfs "$1" || exit 77; mkdir "$1/in"; exec "$2" -c "$3" "$1/in"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(point), sys.executable, LOOK]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode in (1, 77) and b"Traceback" not in done.stderr:
        pytest.skip("only root can mount")
    assert done.stderr == b""
    assert done.stdout.split(b"\0") == [str(point).encode(errors="surrogateescape"), b"tmpfs"]
