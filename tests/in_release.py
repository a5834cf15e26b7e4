"""Run one job with the engines of another release: started by tests/test_releases.py where these lie over /usr.

``python -m tests.in_release STATE NIXPKGS DIRECTORY`` builds a shell on the store in the Nix state directory STATE,
starts a dockerd with its files in DIRECTORY, runs a job in the shell, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import docker

from spoold.config import NixSettings, Settings
from spoold.nix.build import NixBuilder
from tests import engines
from tests.conftest import SYSTEM
from tests.nix import room
from tests.sandbox.conftest import made_sandbox, make_job, settings_for

ATTRIBUTES = 'ANSWER = pkgs.runCommand "answer" { } "pwd; echo $((6 * 7)) >$out";'  # the answer has to be built
MISTAKE = "nosuch"


def main() -> None:
    """Run the program."""
    state, nixpkgs, directory = sys.argv[1:]
    engines.nix_state = state
    builder = NixBuilder(Settings(nix=NixSettings(state=state, system=SYSTEM), nixpkgs={"default": nixpkgs}))
    runtime = builder.prepare()
    shell = room.shell(builder, ATTRIBUTES)
    mistake = room.build(builder, MISTAKE)
    daemon = engines.Daemon(Path(directory))
    try:
        client = docker.APIClient(base_url=daemon.host, version="auto")
        engine = client.version()["Version"]
        client.close()
        sandbox = made_sandbox(settings_for(daemon.host, f"{directory}/spool", waiting=1), runtime)
        sandbox.prepare()
        try:
            job = make_job("cat $ANSWER", shell=shell)
            run = sandbox.run(job, lambda _, __: None, threading.Event()).run
        finally:
            sandbox.close()
    finally:
        daemon.close()
    found = {
        "nix": subprocess.run(["nix", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1],
        "engine": engine,
        "outcome": run.outcome,
        "stdout": run.stdout,
        "stderr": run.stderr,
        "mistake": mistake.phase.stderr,
        # where Nix builds by default from 2.30 on
        "elsewhere": (builder.store.root / "nix/var/nix/builds").exists(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
