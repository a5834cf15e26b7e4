"""A machine with the package installed, set up and started as the operator's page says, once for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engines
from tests.boot.machine import Machine
from tests.docs import shell

PAGE = engines.REPOSITORY / "contrib/docs/operator.md"
USERS = ("alice", "bob")
# On a busy machine the evaluation of an expression takes longer than a minute. Each start of an executor would make a
# reserve of up to 48 containers for bursts, and the tests start it again and again.
PATIENT = (
    "sed -i -e 's/^.builder.limits.$/&\\nevaluation_time = 600/' -e 's/^#waiting = .*/waiting = 2/' "
    "/etc/spoold/spoold.toml; grep -q '^waiting = 2' /etc/spoold/spoold.toml"
)


def commands(heading: str) -> list[str]:
    """Return the shell blocks under a heading of the operator's page."""
    return [block.text for block, _ in shell.blocks(PAGE, heading)]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Debian package of this checkout, or the one in $SPOOLD_TEST_PACKAGE where none can be built.

    It is for the release that $SPOOLD_TEST_RELEASE names, or for that of this host.
    """
    if given := os.environ.get("SPOOLD_TEST_PACKAGE"):
        return Path(given)
    release = os.environ.get("SPOOLD_TEST_RELEASE")
    options = ["--release", release] if release else []
    made = subprocess.run(
        [engines.REPOSITORY / "contrib/packaging/deb", *options, tmp_path_factory.mktemp("deb")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def bare(nixpkgs_debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Yield a booted Debian with Docker, Nix, a nixpkgs and two users, without spoold."""
    system = os.environ.get("SPOOLD_TEST_DEBIAN")
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")
    if not system or shutil.which("systemd-nspawn") is None:
        engines.unavailable("there is no Debian to boot, or no systemd-nspawn")
    machine = Machine(Path(system), tmp_path_factory.mktemp("machine"))
    try:
        machine.boot()
        # The same program made this nixpkgs, so it is up to date and the page's command downloads nothing.
        shutil.copytree(nixpkgs_debian, machine.path("/var/lib/spoold-nixpkgs"), symlinks=True)
        for user in USERS:
            machine.run("useradd", "--create-home", user)
        yield machine
    finally:
        machine.remove()


@pytest.fixture(scope="session")
def host(bare: Machine, package: Path) -> Machine:
    """Return a machine with a running spoold."""
    shutil.copy(package, bare.path("/root"))
    install, nixpkgs, enable, first = commands("Install")
    said = bare.sh(f"exec 2>&1\n{install}")
    started = "systemctl list-units --plain --no-legend 'spoold*'; ls /etc/systemd/system/*.wants | grep spoold || :"
    assert bare.sh(started) == "", "nothing is started or enabled before the operator does"
    said += "".join(bare.sh(f"exec 2>&1\n{block}") for block in (nixpkgs, PATIENT, enable))
    assert "Failed" not in said, said
    try:
        answer = bare.sh(first, user=USERS[0])
    except (AssertionError, subprocess.TimeoutExpired) as error:
        last = [f"{line['_SYSTEMD_UNIT']}: {line['MESSAGE']}" for line in bare.journal("-n60", "--unit=spoold-*")]
        raise AssertionError("no answer to the first submission:\n" + "\n".join(last)) from error
    assert '"stdout":"hello\\n"' in answer
    return bare
