"""Jobs whose shell nix-shell itself enters: tests of jobs and limits again, and what nix-shell leaves and reads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.config import NixSettings
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.model.limits import MIB
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from tests import engines
from tests.conftest import build_shell
from tests.sandbox.conftest import RUN, Run, make_job, settings_for
from tests.sandbox.test_job import *  # noqa: F403 - its tests, which find the shells below
from tests.sandbox.test_limits import (  # noqa: F401
    test_cpu_time_of_all_processes_counts,
    test_each_phase_has_its_own_limit_of_processes,
    test_each_phase_has_its_own_memory_limit,
    test_memory,
    test_open_files,
    test_peak_memory_is_the_jobs_own,
    test_what_compile_leaves_is_not_the_runs_memory,
)

# The limits hold in both modes in test_limits.py, which is where these tests come from.
pytestmark = [pytest.mark.alike, pytest.mark.docker, pytest.mark.nix]


def shell_of(attributes: str) -> Any:
    """Return a fixture of a shell that nix-shell itself enters."""

    @pytest.fixture(scope="module")
    def shell(prepared_for_nix_shell: tuple[NixBuilder, Runtime]) -> str:
        return build_shell(prepared_for_nix_shell, attributes)

    return shell


plain_shell = shell_of("")
python_shell = shell_of("buildInputs = [ pkgs.python3 ];")
c_shell = shell_of("buildInputs = [ pkgs.gcc ];")


def test_no_variable_of_the_build_is_left(run: Run) -> None:  # type: ignore[no-redef]
    """As in nix-shell, these variables exist, and the directories that they name are empty."""
    phase = run("echo $IN_NIX_SHELL $TMPDIR $TMP $NIX_BUILD_TOP; ls -A /tmp /job").run
    assert phase.stdout == "pure /tmp /tmp /tmp\n/job:\nrun.sh\n\n/tmp:\n"


def test_what_nix_shell_changes_for_itself_is_put_back(run: Run, prepared: tuple[NixBuilder, Runtime]) -> None:
    script = "grep Sig[PBIC] /proc/self/status; umask; ulimit -Sa; ulimit -Ha; ls /proc/self/fd"
    phase, captured = run(script).run, run(script, shell=build_shell(prepared, "")).run
    assert phase.stdout == captured.stdout
    assert phase.outcome is Outcome.OK


def test_a_runtime_without_nix_is_the_operators_to_mend(runtime: Runtime, tmp_path: Path) -> None:
    nix = NixSettings(state=engines.nix_state, enter="nix-shell")
    settings = replace(settings_for("unix:///nowhere", str(tmp_path)), nix=nix)
    with pytest.raises(OperatorError, match=r"restart the builder"):
        DockerSandbox(settings, runtime).prepare()


def test_it_fits_into_small_limits(run: Run) -> None:
    phase = run("exec true", limits=replace(RUN, memory=16 * MIB, processes=4, open_files=32, file_size=MIB)).run
    assert (phase.outcome, phase.stderr) == (Outcome.OK, "")


def test_a_job_sees_its_own_closure_and_no_derivation(
    sandbox: DockerSandbox, prepared_for_nix_shell: tuple[NixBuilder, Runtime]
) -> None:
    builder, runtime = prepared_for_nix_shell
    shell = build_shell(prepared_for_nix_shell, 'A = "x";')
    closure = builder.store.closure([shell])
    job = replace(make_job("ls /nix/store; echo $A", shell=shell), closure=closure)
    printed = sandbox.run(job, lambda *_: None, threading.Event()).run.stdout
    paths = {path.rpartition("/")[2] for path in (*closure, *runtime.closure)}
    assert printed.split() == [*sorted(paths), "x"]
    assert ".drv" not in printed


@pytest.mark.parametrize("script", ["echo found | tee .nix-shell", "cat"])
def test_what_lies_about_is_nothing_to_nix_shell(run: Run, script: str) -> None:
    """The job has files in which Nix and bash look for settings. They have no effect."""
    files = {
        ".config/nix/nix.conf": b"no such = setting\n",
        ".bashrc": b"echo bashrc\n",
        "shell.nix": b"throw 1",
        "default.nix": b"throw 2",
    }
    phase = run(script, files=files, stdin=b"found\n").run
    assert (phase.stdout, phase.stderr) == ("found\n", "")
