"""The engine oci for an ordinary user who was given subordinate ids and control groups."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.engines.oci.sandbox import OciSandbox
from spoold.host import cgroups
from spoold.model.limits import MIB
from tests.owngroups import make, own_groups
from tests.sandbox.conftest import FORKS, Mode
from tests.sandbox.ordinary import as_user, lines, user

__all__ = ["as_user", "user"]  # fixtures
pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.engines]


@pytest.fixture
def given(user: pwd.struct_passwd) -> Iterator[Callable[[], None]]:
    """Yield a function that moves the calling process to a place where the user may make groups."""
    with own_groups() as groups:
        theirs = groups.places if cgroups.delegable() else [place / cgroups.OF_JOBS for place in groups.places]
        for place in theirs:
            if place not in groups.places:
                make(place)
            for path in (place, *place.iterdir()):
                with contextlib.suppress(OSError):
                    os.chown(path, user.pw_uid, user.pw_gid)
        yield groups.enter


@pytest.mark.parametrize("mode", ["single-use", "recycled"])
def test_jobs_have_users_of_their_own_and_limits_that_hold(
    as_user: Callable[..., Any],
    given: Callable[[], None],
    user: pwd.struct_passwd,
    plain_shell: str,
    mode: Mode,
) -> None:
    def act(sandbox: OciSandbox) -> Any:
        container = sandbox.on_trial()
        try:
            maps = Path(f"/proc/{container.transport.pid}/uid_map").read_text().split()
            holds = container.transport.group.holds(container.transport.pid)
        finally:
            container.close()
        return {
            "maps": maps,
            "holds": holds,
            "works": lines(sandbox, "id -u; df --output=size /dev/shm | tail -n 1", plain_shell),
            "memory": lines(sandbox, "x=x; while :; do x=$x$x; done", plain_shell, memory=64 * MIB),
            "forks": lines(sandbox, FORKS, plain_shell),
            "root": lines(sandbox, "/spoold/sbin/supervisor 1; touch /x /nix/store/x; ls /proc/1/fd", plain_shell),
            "left": len(list(Path(sandbox._place.path).glob("spoold-*"))),
        }

    found = as_user(act, mode, given)
    assert isinstance(found, dict), found
    assert found["maps"][:3] == ["0", str(user.pw_uid), "1"]
    assert int(found["maps"][4]) not in (0, user.pw_uid)
    assert found["holds"] is True
    assert found["works"][0] == "ok"
    assert found["memory"][0] == "memory_limit"
    assert "Resource temporarily unavailable" in " ".join(found["forks"])
    assert found["root"][0] == "nonzero_exit"
    assert " ".join(found["root"]).count("denied") + " ".join(found["root"]).count("Read-only") == 4


def test_without_groups_of_their_own_they_get_no_work(as_user: Callable[..., Any], user: pwd.struct_passwd) -> None:
    said = as_user(lambda _: "prepared")
    assert "no control group can be made that limits memory and pids" in said
    assert "Delegate=yes" in said
