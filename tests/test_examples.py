"""Every example of contrib/docs/examples, run by real daemons, in each of the ways to enter a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, SandboxSettings, Settings
from tests.engines import REPOSITORY
from tests.served import Served

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(600)]
EXAMPLES = REPOSITORY / "contrib/docs/examples"


@pytest.mark.parametrize("enter", ["captured", "nix-shell"])
def test_every_example_ends_as_expected(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object, enter: str
) -> None:
    del runtime  # so that the store is prepared by now
    nix = msgspec.structs.replace(nix_settings.nix, enter=enter)
    served = Served(
        tmp_path,
        msgspec.structs.replace(
            nix_settings, nix=nix, docker=DockerSettings(host=docker_host), sandbox=SandboxSettings(waiting=2)
        ),
    )
    try:
        for expected in EXAMPLES.glob("*/.expect"):
            submit(served, expected.parent)
        check = [sys.executable, "-P", str(EXAMPLES / "check.py"), str(served.spool)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr + served.said()
    finally:
        served.stop()
        shutil.rmtree(served.spool)


def submit(served: Served, example: Path) -> None:
    """Submit an example like contrib/demo."""
    if (example / "request.json").exists():
        shutil.copyfile(example / "request.json", served.spool / "incoming" / f"{example.name}.json")
        return
    options = ["--stdin", str(example / ".stdin")] if (example / ".stdin").exists() else []
    for option, name in (("--arg", ".args"), ("--env", ".env")):
        file = example / name
        for line in file.read_text().splitlines() if file.exists() else ():
            options += [option, line]
    served.ctl("submit", str(example), "--id", example.name, *options)
