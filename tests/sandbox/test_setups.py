"""Jobs on real engines in other set-ups: supported ones work, and the rest is refused.

See "Engines" in contrib/docs/operator.md. No test here starts a rootless engine that has control groups, because that
takes a whole systemd session for its user.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from spoold.config import DockerSettings, SandboxSettings, Settings
from spoold.engines.docker import doctor
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import MIB
from spoold.model.response import Outcome
from spoold.sandbox.facts import HOLDERS, JOB_UID
from tests import setups
from tests.sandbox.conftest import FORKS, RUN, Mode, make_job, settings_for

pytestmark = [pytest.mark.docker, pytest.mark.nix]

Make = Callable[..., DockerSandbox]
GVISOR = "runsc --platform=ptrace --network=none"


@pytest.fixture(scope="module")
def remapped() -> Iterator[str]:
    """Yield an engine whose containers have other users than the host."""
    with setups.remapping_engine() as url:
        yield url


@pytest.fixture(scope="module")
def with_runtimes() -> Iterator[str]:
    """Yield an engine with crun, gVisor where it is installed, and a runtime that starts nothing."""
    setups.need("crun")
    wrappers = {"runsc": GVISOR} if shutil.which("runsc") else {}
    crun = shutil.which("crun")
    options = ("--add-runtime", f"crun={crun}", "--add-runtime", "broken=/bin/false")
    with setups.engine(*options, wrappers=wrappers) as url:
        yield url


@pytest.fixture
def make(runtime: Runtime, tmp_path: Path) -> Iterator[Make]:
    """Yield a function that prepares a sandbox. All are closed at the end."""
    made: list[DockerSandbox] = []

    def _make(host: str, mode: Mode = "single-use", **options: object) -> DockerSandbox:
        settings = settings_for(host, str(tmp_path / str(len(made))))
        runtime_of_the_engine = {"runtime": options.pop("runtime")} if "runtime" in options else {}
        chosen = SandboxSettings(mode=mode, **{"waiting": 1, **options})  # type: ignore[arg-type]
        docker = DockerSettings(host=host, **runtime_of_the_engine)  # type: ignore[arg-type]
        made.append(DockerSandbox(replace(settings, docker=docker, sandbox=chosen), runtime))
        made[-1].prepare()
        return made[-1]

    yield _make
    for sandbox in made:
        sandbox.close()


def go(sandbox: DockerSandbox, script: str, shell: str, **changes: object) -> JobResult:
    made = make_job(script, shell=shell, stdin=b"in\n", limits=replace(RUN, memory=64 * MIB))
    return sandbox.run(replace(made, **changes), lambda *_: None, threading.Event())


def it_works(sandbox: DockerSandbox, shell: str) -> None:
    """Check that a job runs, and that the kernel enforces its limits."""
    assert sandbox.plan is not None
    phase = go(sandbox, "cat; id -u; exit 3", shell).run
    assert (phase.outcome, phase.exit_code, phase.stdout[:3]) == (Outcome.NONZERO_EXIT, 3, "in\n")
    assert int(phase.stdout[3:]) in (JOB_UID, *HOLDERS)
    assert go(sandbox, "x=x; while :; do x=$x$x; done", shell).run.outcome is Outcome.MEMORY_LIMIT
    named = go(
        sandbox, "grep -c localhost /etc/hosts; TZ=Asia/Tokyo date -d @0 +%H; df --output=size /dev/shm", shell
    ).run
    assert named.stdout.split() == ["2", "09", "1K-blocks", str(sandbox.plan.settings.limits.room // 1024)]
    assert "Resource temporarily unavailable" in go(sandbox, FORKS, shell).run.stderr


def test_users_of_containers_are_others_than_the_hosts(make: Make, remapped: str, plain_shell: str, mode: Mode) -> None:
    sandbox = make(remapped, mode)
    it_works(sandbox, plain_shell)
    assert sandbox.plan is not None
    container = start_container(sandbox._engine, sandbox.plan, threading.Event())
    try:
        inside, outside, _ = Path(f"/proc/{container.transport.pid}/uid_map").read_text().split()
        assert (inside, int(outside) >= 65536) == ("0", True)
    finally:
        container.close()


def test_a_job_sees_its_closure_only_where_users_are_others(
    make: Make, remapped: str, runtime: Runtime, plain_shell: str, mode: Mode
) -> None:
    sandbox = make(remapped, mode, view="required")
    seen = go(sandbox, "ls /nix/store", plain_shell, closure=[plain_shell]).run.stdout.split()
    assert sorted(seen) == sorted({os.path.basename(path) for path in [*runtime.closure, plain_shell]})


def test_crun_is_used_where_there_is_one(make: Make, with_runtimes: str, plain_shell: str, mode: Mode) -> None:
    sandbox = make(with_runtimes, mode)
    assert sandbox.plan is not None
    assert sandbox.plan.oci == "crun"
    assert sandbox.viewed
    it_works(sandbox, plain_shell)


def test_a_crun_that_does_not_work_is_not_used(make: Make, plain_shell: str) -> None:
    with setups.engine("--add-runtime", "crun=/bin/false") as url:
        sandbox = make(url)
        assert sandbox.plan is not None
        assert sandbox.plan.oci == ""
        assert go(sandbox, "echo hi", plain_shell).run.stdout == "hi\n"
        sandbox.close()


def test_a_runtime_that_the_settings_name_is_used_or_refused(make: Make, with_runtimes: str) -> None:
    with pytest.raises(OperatorError, match=r"no docker\.runtime 'none'; it has .*crun"):
        make(with_runtimes, runtime="none")
    with pytest.raises(TemporaryError, match=r"OCI runtime|false"):
        make(with_runtimes, runtime="broken")
    sandbox = make(with_runtimes, runtime="runc")
    assert sandbox.plan is not None
    assert sandbox.plan.oci == "runc"


def need_gvisor() -> None:
    if shutil.which("runsc") is None:
        pytest.skip("gVisor is not installed (Debian package runsc, which not every release has)")


def test_gvisor(make: Make, with_runtimes: str, plain_shell: str) -> None:
    need_gvisor()
    sandbox = make(with_runtimes, runtime="runsc")
    assert sandbox.viewed is False
    phase = go(sandbox, "cat; cat /proc/version; exit 3", plain_shell).run
    assert (phase.outcome, phase.exit_code) == (Outcome.NONZERO_EXIT, 3)
    assert phase.stdout.startswith("in\nLinux version 4.4.0")  # gVisor's own, whatever the host's version is
    named = go(sandbox, "grep -c localhost /etc/hosts; TZ=Asia/Tokyo date -d @0 +%H", plain_shell)
    assert (named.run.stdout, named.notes) == ("2\n09\n", [])
    # It writes less than a waiting container may take, and more than this job may.
    small = replace(RUN, memory=64 * MIB, file_size=256 * MIB)
    filled = go(sandbox, "head -c 200M /dev/zero >/tmp/x; echo never", plain_shell, run=small).run
    assert (filled.outcome, filled.stdout) == (Outcome.MEMORY_LIMIT, "")
    bigger = make_job("echo run", compile_sh="echo compiled", shell=plain_shell)
    result = sandbox.run(bigger, lambda *_: None, threading.Event())
    assert (result.compile.stdout, result.run.stdout) == ("compiled\n", "run\n")
    assert result.notes == []
    missing = make_job("#!/none\n", shell=plain_shell)
    assert "'/none'" in sandbox.run(missing, lambda *_: None, threading.Event()).notes[0]


def test_gvisor_has_no_cells(make: Make, with_runtimes: str) -> None:
    need_gvisor()
    with pytest.raises(OperatorError, match=r'"recycled" is not possible here.*docker\.runtime = .runsc'):
        make(with_runtimes, "recycled", runtime="runsc")


def test_a_rootless_engine_whose_limits_are_ignored_is_refused(make: Make) -> None:
    """On cgroup v1 every rootless engine ignores limits, and on v2 one without systemd does."""
    refusal = r"rootless engine on cgroup v[12] .* ignores all limits: .*unified_cgroup_h"
    with setups.rootless_engine() as url:
        with pytest.raises(OperatorError, match=refusal):
            make(url)
        found = [
            str(each)
            for each in doctor.examine(Settings(docker=DockerSettings(host=url)), None)
            if each.level == "refused"
        ]
    assert any(re.search(refusal, text) for text in found)
