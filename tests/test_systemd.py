"""The files in systemd/: systemd accepts them, they agree with the code, and they are as closed as possible."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spoold.config import ExecutorSettings, NixSettings
from spoold.daemon import ROLES
from spoold.host.userns import BUILD_GROUP
from spoold.model.states import Role
from spoold.nix import door
from spoold.nix.places import PLACES
from spoold.nix.users import MOST
from spoold.proxy import serving
from spoold.spool.layout import DIRECTORIES, GROUP, USERS
from tests import engines

UNITS = engines.REPOSITORY / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir() if path.is_file())
FETCH = "spoold-fetch.service"
SERVICES = {role: f"spoold-{role}{'@' if role is Role.EXECUTOR else ''}.service" for role in ROLES}
EXPOSURE = {  # the maximum by `systemd-analyze security`: 0 is closed, 10 is open
    "spoold-spool.service": 1.4,
    "spoold-intake.service": 0.6,
    "spoold-health.service": 0.4,
    "spoold-scale.service": 1.4,  # needs the network to reach Slurm
    "spoold-executor@.service": 0.4,
    "spoold-fetch.service": 1.3,  # needs the network for downloads
    # It cannot reach 2.0. bubblewrap and Nix need namespaces (0.8), mount(2) and /proc, and control groups (0.3).
    # Downloads need loopback to find the proxy. The daemon maps the users of builds before it drops them, so it needs
    # two capabilities and has no user namespace of systemd's (0.5). It needs openat2 (0.1), see below.
    "spoold-builder.service": 2.7,
}


def unit(name: str) -> configparser.RawConfigParser:
    """Return a unit's sections. A repeated key has its last value."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_there_is_a_service_for_each_role() -> None:
    others = {"spoold-spool.service", FETCH}
    assert {*others, *SERVICES.values()} == {name for name in NAMES if name.endswith(".service")}
    for role, name in SERVICES.items():
        options = " --name %i" if role is Role.EXECUTOR else ""
        assert unit(name)["Service"]["ExecStart"] == f"/usr/bin/spoold {role}{options}"


def test_the_target_wants_each_service() -> None:
    # scale needs a pool
    wanted = {name.replace("@", "@1") for role, name in SERVICES.items() if role is not Role.SCALE}
    assert set(unit("spoold.target")["Unit"]["Wants"].split()) == wanted


def test_each_start_of_the_target_looks_after_the_spool() -> None:
    """This unit stays active, so without PartOf= it would start only once per boot."""
    assert unit("spoold-spool.service")["Unit"]["PartOf"] == "spoold.target"


@pytest.mark.parametrize("role", ROLES)
def test_a_daemon_comes_back_and_is_stopped_with_the_target(role: Role) -> None:
    parsed = unit(SERVICES[role])
    assert parsed["Service"]["Type"] == "notify"
    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(parsed["Service"]["WatchdogSec"]) > 60
    assert parsed["Service"]["Slice"] == "spoold.slice"
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert parsed["Unit"]["PartOf"] == parsed["Install"]["WantedBy"] == "spoold.target"
    assert parsed["Unit"]["Requires"] == parsed["Unit"]["After"].split()[0] == "spoold-spool.service" or role in (
        "executor",
        "builder",
    )


@pytest.mark.parametrize("role", ROLES)
def test_each_daemon_is_a_user_of_its_own_with_what_it_needs(role: Role) -> None:
    service = unit(SERVICES[role])["Service"]
    assert (service["User"], service["Group"]) == (USERS[role], GROUP)
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"]
    wanted = {Role.INTAKE: "CAP_DAC_READ_SEARCH", Role.BUILDER: "CAP_SETUID CAP_SETGID"}  # the daemon drops them
    assert service["AmbientCapabilities"] == wanted.get(role, "")
    assert ("docker" in service.get("SupplementaryGroups", "")) is (role == "executor")
    assert "StateDirectory" not in service  # it would give the whole Nix state to the builder
    for limit in ("MemoryMax", "TasksMax", "LimitNOFILE"):
        assert limit in service


def test_the_proxy_is_a_stranger_to_the_spool_and_the_builder_finds_it() -> None:
    service, builder = unit(FETCH)["Service"], unit(SERVICES[Role.BUILDER])
    assert service["ExecStart"] == "/usr/bin/spoold fetch"
    assert service["User"] == service["Group"] == service["RuntimeDirectory"] == "spoold-fetch"
    assert not {"ReadWritePaths", "SupplementaryGroups"} & set(service)
    assert service["CapabilityBoundingSet"] == ""
    assert FETCH in builder["Unit"]["Wants"].split()
    assert f"{door.SOCKET}={serving.DIRECTORY}/{serving.NAME}" in builder["Service"]["Environment"]
    assert unit(FETCH)["Unit"]["PartOf"] == "spoold.target"


def test_the_users_are_those_of_the_layout() -> None:
    lines = [line.split() for line in (UNITS / "sysusers.d/spoold.conf").read_text().splitlines() if line[:1] != "#"]
    assert {line[1] for line in lines if line[0] == "g"} == {GROUP, "docker", BUILD_GROUP}
    users = {line[1]: line[2] for line in lines if line[0] == "u"}
    builds = {f"{BUILD_GROUP}{number}": f"-:{BUILD_GROUP}" for number in range(1, MOST + 1)}
    assert users == dict.fromkeys(USERS.values(), f"-:{GROUP}") | {"spoold-fetch": "-"} | builds
    assert {(line[1], line[2]) for line in lines if line[0] == "m"} == {(name, BUILD_GROUP) for name in builds}


def test_the_directories_are_those_of_the_layout() -> None:
    lines = [line for line in (UNITS / "tmpfiles.d/spoold.conf").read_text().splitlines() if line[:1] != "#"]
    assert lines == [
        f"d {os.path.normpath(f'/var/spool/spoold/{each.path}')} {each.mode:04o} {each.owner} {GROUP} -"
        for each in DIRECTORIES
    ] + [
        f"d {os.path.normpath(f'{NixSettings().state}/{each.path}')} {each.mode:04o} {each.owner} {each.group} -"
        for each in PLACES
    ]


def test_the_builder_is_left_what_nix_and_bubblewrap_need() -> None:
    """It needs namespaces, mounts and a host name. Its first start takes as long as it takes to provide the runtime."""
    service = unit(SERVICES[Role.BUILDER])["Service"]
    forbidden = {"ProtectHostname", "ProtectKernelTunables", "ProtectKernelLogs", "ProcSubset", "ProtectControlGroups"}
    assert not forbidden & set(service)
    assert service["TimeoutStartSec"] == "infinity"
    assert service["Delegate"]


def test_jobs_may_go_on_for_as_long_as_the_settings_say() -> None:
    assert float(unit(SERVICES[Role.EXECUTOR])["Service"]["TimeoutStopSec"]) > ExecutorSettings().drain


@pytest.mark.parametrize("name", NAMES)
def test_systemd_reads_it_without_complaint(name: str, tmp_path: Path) -> None:
    need_analyze()
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", fit_to_verify(tmp_path) / whole(name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.stderr, verified.returncode) == ("", 0)


@pytest.mark.parametrize("name", EXPOSURE)
def test_it_is_as_closed_as_it_was(name: str, tmp_path: Path) -> None:
    """A unit that is less closed fails this test, so each relaxation has to be entered here with its reason."""
    assert exposure(UNITS / name, tmp_path) <= EXPOSURE[name]


def test_bubblewrap_may_call_openat2() -> None:
    """It has to since 0.12. RestrictSUIDSGID= takes the call away, since systemd cannot see which modes it gives."""
    assert unit(SERVICES[Role.BUILDER])["Service"].get("RestrictSUIDSGID", "no") == "no"


def test_the_builder_has_no_network_of_its_own() -> None:
    service = unit(SERVICES[Role.BUILDER])["Service"]
    assert (service["PrivateNetwork"], service["IPAddressDeny"]) == ("yes", "any")
    assert service["IPAddressAllow"] == "localhost", "downloads find the proxy on localhost"


# These settings imply NoNewPrivileges= in an ordinary user's unit, see systemd.exec(5).
IMPLY = {
    *("SystemCallFilter", "SystemCallLog", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces"),
    *("PrivateDevices", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock"),
    *("ProtectHostname", "MemoryDenyWriteExecute", "RestrictRealtime", "RestrictSUIDSGID", "DynamicUser"),
    "LockPersonality",
}


def test_the_drop_in_for_jobs_without_docker_leaves_newuidmap_its_rights(tmp_path: Path) -> None:
    page = (engines.REPOSITORY / "contrib/docs/operator.md").read_text()
    text = page.partition("/oci.conf <<'END'\n")[2].partition("\nEND\n")[0]
    name = SERVICES[Role.EXECUTOR]
    more = configparser.RawConfigParser(delimiters=("=",))
    more.optionxform = str  # type: ignore[assignment,method-assign]
    more.read_string(text)
    merged = dict(unit(name)["Service"]) | dict(more["Service"])
    assert {key for key in IMPLY if merged.get(key, "no") not in ("no", "")} == set()
    assert merged["NoNewPrivileges"] == "no"
    assert set(merged["CapabilityBoundingSet"].split()) == {"CAP_SETUID", "CAP_SETGID"}
    assert (merged["AmbientCapabilities"], merged["SupplementaryGroups"]) == ("", "")
    need_analyze()
    made = fit_to_verify(tmp_path) / whole(name)
    made.write_text(made.read_text().replace("[Install]", f"{text}\n[Install]"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(made)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (verified.stderr, verified.returncode) == ("", 0)


def exposure(path: Path, directory: Path) -> float:
    need_analyze()
    copied = directory / whole(path.name)
    if copied != path:
        shutil.copy(path, copied)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(copied)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


def whole(name: str) -> str:
    """Return the name of an instance where ``name`` is a template, else ``name``."""
    return name.replace("@.", "@1.")


def need_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        engines.unavailable("systemd-analyze is not installed (Debian package systemd)")


def fit_to_verify(directory: Path) -> Path:
    """Copy the units with programs that exist, as the verification requires."""
    program = directory / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in NAMES:
        text = (UNITS / name).read_text()
        for ours in ("/usr/bin/spoold", "/usr/bin/spoolctl"):
            text = text.replace(f"{ours} ", f"{program} ")
        (directory / whole(name)).write_text(text)
    return directory
