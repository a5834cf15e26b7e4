"""The engine oci with crun, which takes one path for a group in all trees. It is used where it can start containers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.engines.oci.sandbox import OciSandbox
from spoold.host import cgroups, groups
from spoold.model.job import Runtime
from spoold.model.limits import MIB
from tests import engines, setups
from tests.rights import in_child
from tests.sandbox.conftest import RUN, Mode, make_job, settings_for

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.engines]
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 16384, 1 << 18, 2
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def same() -> Iterator[str]:
    """Yield the name of a group that exists in all trees of version 1."""
    engines.need_oci()
    setups.need("crun")
    name = f"spoold-same-{os.getpid()}"
    places = [] if cgroups.delegable() else [cgroups.tree(each) / name for each in cgroups.trees("")]
    for place in places:
        place.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (place / file).exists():
                (place / file).write_text((place.parent / file).read_text())
    yield name
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            place.rmdir()


def enter(name: str) -> None:
    """Enter that group, and hide the tree of version 2, beside which crun does not start."""
    if cgroups.delegable():
        return
    assert libc.unshare(CLONE_NEWNS) == 0
    assert libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
    libc.umount2(os.fsencode(cgroups.tree("")), MNT_DETACH)
    for each in cgroups.trees(""):
        (cgroups.tree(each) / name / "cgroup.procs").write_text(str(os.getpid()))


@pytest.mark.parametrize("mode", ["single-use", "recycled"])
def test_crun_is_used_where_a_container_starts_with_it(
    same: str, runtime: Runtime, tmp_path: Path, plain_shell: str, mode: Mode
) -> None:
    def act() -> Any:
        enter(same)
        assert groups.settle().same
        sandbox = OciSandbox(settings_for(engines.OCI, str(tmp_path / "spool"), mode=mode), runtime)
        found = []
        try:
            sandbox.prepare()
            for script in ("echo hi", "x=x; while :; do x=$x$x; done", "echo again"):
                job = make_job(script, shell=plain_shell, limits=replace(RUN, memory=64 * MIB))
                phase = sandbox.run(job, lambda *_: None, threading.Event()).run
                found.append([str(phase.outcome), phase.stdout])
        finally:
            sandbox.close()
        return [os.path.basename(sandbox.plan.oci) if sandbox.plan else "", *found]

    found = in_child(act)
    assert found == ["crun", ["ok", "hi\n"], ["memory_limit", ""], ["ok", "again\n"]]
    assert not any(cgroups.MOUNT.glob(f"*/{same}/spoold-*"))
