"""The shared functions of contrib (contrib/development/lib.sh): a step that failed half-way does not count as done."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.engines import REPOSITORY

LOCKED = REPOSITORY / "contrib/development/requirements.txt"

# A Python whose environments have a pip that fails while there is no network. A file stands for the network.
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
make_venv $3
echo "made $python"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "python"
    program.write_text(PYTHON)
    program.chmod(0o755)
    return os.environ | {"SPOOLD_CACHE": str(tmp_path / "cache"), "NETWORK": str(tmp_path / "network")}


def make_venv(
    directory: Path, environment: dict[str, str], group: str = "", root: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", SCRIPT, "contrib", str(root), str(directory), group]
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


def test_the_development_tools_are_those_that_are_locked(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "network").touch()
    made = make_venv(tmp_path, environment, "dev")
    assert made.returncode == 0, made.stderr
    python = Path(made.stdout.split()[1])
    assert (python.parents[1] / "requirements.txt").read_text() == LOCKED.read_text()
    assert make_venv(tmp_path, environment).stdout != made.stdout, "spoold alone runs in another environment"


def test_another_lock_is_another_environment(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "network").touch()
    root = tmp_path / "checkout"
    (root / "contrib").mkdir(parents=True)
    for name in ("pyproject.toml", "contrib/development"):
        (root / name).symlink_to(REPOSITORY / name)
    before = make_venv(tmp_path, environment, "dev", root)
    (root / "contrib/development").unlink()
    (root / "contrib/development").mkdir()
    (root / "contrib/development/lib.sh").symlink_to(REPOSITORY / "contrib/development/lib.sh")
    (root / LOCKED.relative_to(REPOSITORY)).write_text(f"{LOCKED.read_text()}# another\n")
    after = make_venv(tmp_path, environment, "dev", root)
    assert before.stdout.startswith("made ")
    assert after.stdout.startswith("made ")
    assert before.stdout != after.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="what lies over /usr is mounted, and only root mounts")
def test_the_files_of_a_release_lie_over_those_here_for_one_command_alone(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    for name in ("of-another-release", "xz"):
        (tmp_path / "usr/bin" / name).write_text(f"#!/bin/sh\necho another {name}\n")
        (tmp_path / "usr/bin" / name).chmod(0o755)
    words = "/usr/bin/of-another-release; /usr/bin/xz; test -e /usr/bin/env; ! touch /usr/bin/new 2>/dev/null"
    script = 'root=$1 work=$2; source "$root/contrib/development/lib.sh"; in_release "$work" sh -ec "$3"'
    command = ["bash", "-euc", script, "contrib", str(REPOSITORY), str(tmp_path), words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "another of-another-release\nanother xz\n"), finished.stderr
    assert not Path("/usr/bin/of-another-release").exists()


def test_the_lock_has_all_that_is_wanted_with_hashes_and_no_addresses() -> None:
    text = LOCKED.read_text()
    assert "://" not in text
    assert re.search("^--require-hashes$", text, re.MULTILINE)
    locked = re.findall(
        r"^([a-z0-9][a-z0-9.-]*)==\S+.*\\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    assert len(locked) == len(re.findall("^[a-z0-9]", text, re.MULTILINE)), "each package has one version, with hashes"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.match(r"[\w-]+", each)[0].lower() for each in wanted}  # type: ignore[index]
    assert names - {name for name, _ in locked} == set(), "a package is missing: run contrib/development/lock"


MESSAGES = {
    "A subject\n\nWhy it is so.\n": "",
    "A subject\n\nWhy it is so.\n# Please enter the commit message\n": "",
    "Merge one thing and another\n": "",
    "A subject\n": "no body",
    "A subject\n\n# only a comment\n": "no body",
    "A subject\n\n# ------------------------ >8 ------------------------\ndiff\n": "no body",
    "A subject\nWhy it is so.\n": "not empty",
    f"{'A subject ' * 9}\n\nWhy it is so.\n": "72",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_says_why_and_has_a_short_subject(tmp_path: Path, message: str) -> None:
    (tmp_path / "message").write_text(message)
    command = [REPOSITORY / "contrib/development/message", tmp_path / "message"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == bool(MESSAGES[message])
    assert MESSAGES[message] in done.stderr


def test_hooks_fetch_nothing() -> None:
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}
    assert len(re.findall("- id:", text)) == len(re.findall("entry:", text)) == len(re.findall("language:", text))


def test_the_hook_of_mypy_finds_what_tests_import() -> None:
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    assert {*tools["pytest"]["ini_options"]["pythonpath"]} <= {*tools["mypy"]["mypy_path"]}
