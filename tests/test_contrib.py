"""What contrib's programs have in common (contrib/development/lib.sh): what failed half-way is not taken for done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.engines import REPOSITORY

# A Python that makes environments whose pip fails as long as there is no network, which is a file here.
PYTHON = """#!/bin/sh
case $* in
*" venv "*)
    mkdir -p "$3/bin"
    printf '#!/bin/sh\\necho "pip: no network" >&2\\ntest -e "%s"\\n' "$NETWORK" >"$3/bin/python"
    chmod +x "$3/bin/python"
    ;;
*) exec python3 "$@" ;;
esac
"""
SCRIPT = """set -euo pipefail
root=$1 work=$2
source "$root/contrib/development/lib.sh"
base_python=$work/python
make_venv
echo "made $python"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "python"
    program.write_text(PYTHON)
    program.chmod(0o755)
    return os.environ | {"SPOOLD_CACHE": str(tmp_path / "cache"), "NETWORK": str(tmp_path / "network")}


def make_venv(directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", SCRIPT, "contrib", str(REPOSITORY), str(directory)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_environment_whose_installation_failed_is_made_again(tmp_path: Path, environment: dict[str, str]) -> None:
    failed = make_venv(tmp_path, environment)
    assert failed.returncode == 1
    assert "pip: no network" in failed.stderr
    assert "cannot make" in failed.stderr
    (tmp_path / "network").touch()
    made = make_venv(tmp_path, environment)
    assert (made.returncode, made.stdout[:5]) == (0, "made "), made.stderr
    again = make_venv(tmp_path, environment)
    assert (again.returncode, again.stderr) == (0, "")
