"""An ordinary user with subordinate ids, and their sandbox of the engine oci."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.oci.sandbox import OciSandbox
from spoold.model.errors import SpooldError
from spoold.model.job import Runtime
from spoold.sandbox import root
from tests import engines, setups
from tests.rights import in_child
from tests.sandbox.conftest import RUN, Mode, make_job, settings_for

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def user() -> Iterator[pwd.struct_passwd]:
    """Yield an ordinary user with subordinate ids."""
    engines.need_oci()
    setups.need("newuidmap")
    with setups.ordinary_user() as name:
        yield pwd.getpwnam(name)


def mount(source: Path, target: Path) -> None:
    """Mount the store where the user can reach it, for this process alone."""
    for step in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None),
        libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None),
    ):
        assert step == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def as_user(
    user: pwd.struct_passwd, runtime: Runtime, nix_settings: Settings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function that runs code with a sandbox as the user, and returns the result or the refusal."""
    content = root.archive(runtime)  # made here, because only root may be able to read the source
    monkeypatch.setattr(root, "archive", lambda *_: content)
    (place / "store").mkdir()
    (place / "state").mkdir()
    shutil.chown(place / "state", user.pw_uid, user.pw_gid)

    def _as_user(act: Callable[[OciSandbox], Any], mode: Mode = "single-use", enter: Callable[[], object] = int) -> Any:
        settings = settings_for(engines.OCI, str(place / "spool"), mode=mode)
        oci = replace(settings.oci, state=str(place / "state"))
        settings = replace(settings, oci=oci, nix=replace(settings.nix, state=str(place / "store")))

        def child() -> Any:
            sandbox = OciSandbox(settings, runtime)
            try:
                sandbox.prepare()
                return act(sandbox)
            except SpooldError as error:
                return str(error)
            finally:
                sandbox.close()

        def begin() -> Any:
            mount(Path(nix_settings.nix.state), place / "store")
            os.chmod(place / "store", 0o711)  # noqa: S103 - like a user's own store
            enter()
            return in_child(child, user.pw_uid, user.pw_gid)

        return in_child(begin)

    return _as_user


def lines(sandbox: OciSandbox, script: str, shell: str, **limits: Any) -> list[str]:
    job = make_job(script, shell=shell, limits=replace(RUN, **limits))
    phase = sandbox.run(job, lambda *_: None, threading.Event()).run
    return [str(phase.outcome), *phase.stdout.split(), *phase.stderr.splitlines()]
