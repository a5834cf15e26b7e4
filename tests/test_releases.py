"""The Nix and the Docker Engine of other releases: each builds a shell and runs a job in it.

contrib/test unpacks the packages of these releases and says where in $SPOOLD_TEST_RELEASES, as NAME=DIRECTORY and
separated by blanks. Each directory is laid over /usr, see in_release in contrib/development/lib.sh. There
contrib/development/releases runs all tests of Nix and of the sandboxes, which takes too long for every run.

The store is a copy of the one that this system's Nix made. So this also is what happens to a host that is upgraded.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spoold.nix.build import NixBuilder
from tests import engines
from tests.nix.conftest import copy_store

RELEASES = dict(word.split("=", 1) for word in os.environ.get("SPOOLD_TEST_RELEASES", "").split())
LIBRARY = engines.REPOSITORY / "contrib/development/lib.sh"


@pytest.mark.parametrize("name", RELEASES or ["none"])
def test_a_shell_is_built_and_a_job_runs_in_it(name: str, nix_builder: NixBuilder, place: Path) -> None:
    if name not in RELEASES:
        pytest.skip("no packages of another release are here; contrib/test fetches them, as root on Debian")
    versions = dict(line.split() for line in (Path(RELEASES[name]) / "versions").read_text().splitlines())
    state = place / "state"
    copy_store(nix_builder, state)
    (place / "d").mkdir()
    program = [sys.executable, "-m", "tests.in_release", state, nix_builder.settings.nixpkgs["default"], place / "d"]
    words = shlex.join(map(str, (RELEASES[name], *program)))
    script = f"root={engines.REPOSITORY} work={place}; source {LIBRARY}; export PYTHONPATH=$root; in_release {words}"
    try:
        finished = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False)
    finally:
        engines.remove_store(state)
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert (found["outcome"], found["stdout"]) == ("ok", "42\n"), found
    assert versions["nix-bin"].startswith(f"{found['nix']}+")
    assert versions["docker.io"].startswith(found["engine"])
    # Builds are where their bytes are counted, and the client's mistake comes first.
    assert not found["elsewhere"]
    assert found["mistake"].startswith("error: undefined variable 'nosuch'\n")
    assert "at cutor.nix:1:1" in found["mistake"]
