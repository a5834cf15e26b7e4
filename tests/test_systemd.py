"""The units in systemd/: systemd reads them without complaint, and there is one for each daemon."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from spoold.daemon import ROLES
from spoold.model.limits import COMPILE_MAXIMUM, RUN_MAXIMUM
from tests import engines

UNITS = engines.REPOSITORY / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir())
SERVICES = [name for name in NAMES if name.endswith(".service")]


def unit(name: str) -> configparser.RawConfigParser:
    """Return a unit's sections; of a key that is repeated, the last value."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_there_is_a_service_for_each_role() -> None:
    assert sorted(f"spoold-{role}.service" for role in ROLES) == SERVICES
    for role in ROLES:
        assert unit(f"spoold-{role}.service")["Service"]["ExecStart"] == f"/usr/bin/spoold {role}"


def test_the_target_wants_each_service() -> None:
    assert sorted(unit("spoold.target")["Unit"]["Wants"].split()) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_a_daemon_comes_back_and_is_stopped_with_the_target(name: str) -> None:
    parsed = unit(name)
    assert parsed["Service"]["Type"] == "notify"
    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert parsed["Unit"]["PartOf"] == parsed["Install"]["WantedBy"] == "spoold.target"


@pytest.mark.parametrize("name", SERVICES)
def test_the_first_start_makes_the_spool(name: str) -> None:
    """systemd 252 starts not even a ``+`` command while a path of ReadWritePaths is missing, unless that has a "-"."""
    assert unit(name)["Service"]["ExecStartPre"] == "+/usr/bin/spoolctl init"
    lines = (UNITS / name).read_text().splitlines()
    paths = [line.removeprefix("ReadWritePaths=") for line in lines if line.startswith("ReadWritePaths=")]
    assert "-/var/spool/spoold" in paths
    assert all(path.startswith("-") for path in paths)


def test_the_builder_is_left_what_nix_and_bubblewrap_need() -> None:
    """Nix's sandbox sets a host name and mounts; the first start takes as long as it takes to provide the runtime."""
    service = unit("spoold-builder.service")["Service"]
    forbidden = {"ProtectHostname", "RestrictNamespaces", "PrivateDevices", "ProtectKernelTunables", "ProtectProc"}
    assert not forbidden & set(service)
    assert service["TimeoutStartSec"] == "infinity"
    assert service["Delegate"] == "yes"


def test_the_longest_job_can_be_finished() -> None:
    patience = float(unit("spoold-executor.service")["Service"]["TimeoutStopSec"])
    assert patience > COMPILE_MAXIMUM.time + RUN_MAXIMUM.time


@pytest.mark.parametrize("name", NAMES)
def test_systemd_reads_it_without_complaint(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        engines.unavailable("systemd-analyze is not installed (Debian package systemd)")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", fit_to_verify(tmp_path) / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.stderr, verified.returncode) == ("", 0)


def fit_to_verify(directory: Path) -> Path:
    """Copy the units, with programs that exist, as verification wants it."""
    program = directory / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in NAMES:
        text = (UNITS / name).read_text()
        for ours in ("/usr/bin/spoold", "/usr/bin/spoolctl"):
            text = text.replace(f"{ours} ", f"{program} ")
        (directory / name).write_text(text)
    return directory
