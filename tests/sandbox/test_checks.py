"""Conclusions of the executor and the doctor from an engine's answers and from a container on trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spoold.config import DockerSettings, NixSettings, SandboxSettings, Settings
from spoold.engines.docker import checks
from spoold.host import machine
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding, Level, refuse
from spoold.sandbox.messages import VERSION, Ready

GOOD: dict[str, Any] = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "CPUShares": True,
    "CPUSet": True,
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "Runtimes": {"runc": {}, "crun": {}},
}
ROOTLESS = ["name=seccomp,profile=default", "name=rootless"]
READY = Ready(
    version=VERSION,
    no_new_privileges=1,
    seccomp=2,
    capabilities=0,
    memory=1 << 29,
    weight=100,
    kernel=machine.boot_id().encode(),
)


def ready(**changes: Any) -> Ready:
    fields: dict[str, Any] = READY.fields() | changes
    return Ready(**fields)


def refused(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.level is Level.REFUSED]


def test_an_engine_as_it_should_be() -> None:
    assert {finding.level for finding in checks.of_engine(GOOD, Settings())} <= {Level.FINE, Level.NOTE}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MemoryLimit": False}, "MemoryLimit off"),
        ({"MemoryLimit": False, "PidsLimit": False}, "MemoryLimit and PidsLimit off"),
        ({"SecurityOptions": ["name=apparmor"]}, "without its seccomp profile"),
        ({"SecurityOptions": None}, "without its seccomp profile"),
        ({"SecurityOptions": ROOTLESS, "CgroupVersion": "1", "CgroupDriver": "none"}, "rootless engine on cgroup v1"),
        # Docker 20.10 on v2 claims to have limits even without delegation.
        ({"SecurityOptions": ROOTLESS, "CgroupDriver": "none"}, "without a cgroup driver ignores all limits"),
    ],
)
def test_an_engine_that_cannot_isolate(change: dict[str, Any], words: str) -> None:
    (found,) = refused(checks.of_engine(GOOD | change, Settings()))
    assert words in found
    with pytest.raises(OperatorError, match=words):
        refuse(checks.of_engine(GOOD | change, Settings()), "Docker")


def test_an_engine_that_gives_no_shares_of_the_cpu() -> None:
    found = checks.of_engine(GOOD | {"CPUShares": False, "CPUSet": False}, Settings())
    assert [finding.what for finding in found if finding.level is Level.WARNING] == ["shares of the CPU"]
    pinned = Settings(sandbox=SandboxSettings(pin_cpus=True))
    assert "cpuset" in refused(checks.of_engine(GOOD | {"CPUSet": False}, pinned))[0]
    assert not refused(checks.of_engine(GOOD, pinned))


def test_a_rootless_engine_with_limits() -> None:
    assert not refused(checks.of_engine(GOOD | {"SecurityOptions": ROOTLESS}, Settings()))


def test_a_runtime_that_the_engine_does_not_have() -> None:
    assert "runsc" in refused(checks.of_engine(GOOD, Settings(docker=DockerSettings(runtime="runsc"))))[0]
    assert not refused(checks.of_engine(GOOD, Settings(docker=DockerSettings(runtime="crun"))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"no_new_privileges": 0}, "no-new-privileges: the engine ignores it"),
        ({"no_new_privileges": -1}, "no-new-privileges"),
        ({"seccomp": 0}, "without a seccomp profile"),
        ({"memory": 2**63}, "control group has 9223372036854775808"),
    ],
)
def test_a_container_that_did_not_get_what_was_asked(change: dict[str, int], words: str) -> None:
    for settings in (DockerSettings(), DockerSettings(runtime="crun")):
        (found,) = refused(checks.of_container(ready(**change), 1 << 29, settings))
        assert words in found


def test_a_kernel_of_its_own_is_believed_of_a_runtime_that_the_operator_chose() -> None:
    strange = ready(no_new_privileges=-1, seccomp=0, memory=-1, kernel=b"")
    assert not refused(checks.of_container(strange, 1 << 29, DockerSettings(runtime="runsc")))
    assert len(refused(checks.of_container(strange, 1 << 29, DockerSettings()))) == 2


def test_a_limit_that_cannot_be_seen_is_no_verdict() -> None:
    found = checks.of_container(ready(memory=-1), 1 << 29, DockerSettings())
    assert [finding.level for finding in found] == [Level.FINE, Level.FINE, Level.UNKNOWN]


@pytest.mark.parametrize("where", ["unix:///run/docker.sock", "http+unix://run/docker.sock"])
def test_the_store_of_an_engine_here_is_looked_at(where: str, tmp_path: Path) -> None:
    settings = NixSettings(state=str(tmp_path))
    with pytest.raises(OperatorError, match=r"cannot be looked at: No such file.*nix\.state"):
        checks.store(settings, where)
    (tmp_path / "nix/nix/store").mkdir(parents=True)
    assert checks.store(settings, where) == settings.physical_store
    (tmp_path / "nix").chmod(0o777)
    with pytest.raises(OperatorError, match="can be changed by everybody"):
        checks.store(settings, where)


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:2376", "ssh://host", "https://host:2376"])
def test_that_of_an_engine_elsewhere_cannot_be(where: str, tmp_path: Path) -> None:
    assert checks.store(NixSettings(state=str(tmp_path / "none")), where) is None
