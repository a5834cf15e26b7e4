"""Cancel running jobs in real sandboxes of both kinds, by copying a file there and by spoolctl."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.config import LeaseSettings, Settings
from tests.served import PATIENCE, Served, in_mode
from tests.waiting import until

pytestmark = [
    pytest.mark.alike,
    pytest.mark.docker,
    pytest.mark.nix,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users, and see their processes"),
]
ALICE = 64_101
LIMITS = {"run": {"time": 600, "cpu_time": 600}}
TRIES = 5  # because a machine may stall for seconds just when a job is to be ended
HANGS = '{ pkgs ? import <nixpkgs> {} }: pkgs.runCommand "hangs-MARK" { } "sleep 600"'
LEASE = LeaseSettings(renewal=8.0, limit=120.0, check=1.0, pause=0.5)


@pytest.fixture(scope="module", params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    with in_mode(request.param, nix_settings, docker_host, "spoold-cancelled.", LEASE) as made:
        yield made


def runs(mark: str) -> bool:
    """Tell whether a process of this host has ``mark`` in its command line."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark.encode() in Path("/proc", pid, "cmdline").read_bytes():
                return True
        except OSError:  # the process has ended
            continue
    return False


def drop(served: Served, script: str, **more: Any) -> tuple[str, str]:
    """Let a user submit a script that has MARK in it. Return the id and the text that replaced it."""
    id_, mark = f"{ALICE}.{secrets.token_hex(8)}", f"600.{secrets.randbelow(10**9):09}"
    served.drop_as(ALICE, id_, script.replace("MARK", mark), limits=LIMITS, **more)
    return id_, mark


def copy_cancel(served: Served, id_: str) -> None:
    """Cancel like a client that has only a shell."""
    script = f"cd $(mktemp -d) && echo {id_} >cancel && cp cancel '{served.spool}/incoming/{id_}.cancel'"
    subprocess.run(["sh", "-c", script], user=ALICE, group=ALICE, extra_groups=[], cwd="/", check=True)


def ctl(served: Served, *words: str) -> str:
    command = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(served.config), *words]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_by_a_file_that_is_copied_there(served: Served) -> None:
    script = "echo some; echo more >&2; trap '' TERM INT HUP; sleep MARK & while :; do :; done"
    for _ in range(TRIES):
        id_, mark = drop(served, script, files=[{"name": "compile.sh", "content": "echo made"}])
        until(lambda: runs(mark))  # noqa: B023 - the wait ends within this round
        copy_cancel(served, id_)
        response = served.response(id_)
        until(lambda: not runs(mark))  # noqa: B023
        assert response["status"] == "CANCELLED"
        run = response["run"]
        assert [response[each]["outcome"] for each in ("dependencies", "compile", "run")] == ["ok", "ok", "cancelled"]
        assert (response["compile"]["stdout"], run["signal"], run["exit_code"]) == ("made\n", "SIGKILL", None)
        assert run["time"] > 0
        if run["stdout"]:
            break
    assert (run["stdout"], run["stderr"]) == ("some\n", "more\n")
    assert run["cpu_time"] > 0
    assert run["memory"] > 0
    served.assert_nothing_is_left()


def test_by_spoolctl_whose_pages_show_it(served: Served) -> None:
    for _ in range(TRIES):
        id_, mark = drop(served, "echo some; bash -c 'kill -STOP $PPID $$; : MARK'")
        until(lambda: runs(mark))  # noqa: B023 - the wait ends within this round
        shown = ctl(served, "cancel", id_, "--wait", "--timeout", str(PATIENCE))
        until(lambda: not runs(mark))  # noqa: B023
        if "some" in shown:
            break
    words = [line.split() for line in shown.splitlines()]
    assert words[0] == [f"{id_}:", "CANCELLED"]
    assert any(each[:3] == ["run", "cancelled", "SIGKILL"] for each in words), shown
    assert any(each[:2] == ["compile", "skipped"] for each in words), shown
    assert "some" in shown
    assert ctl(served, "status", id_) == shown
    served.assert_nothing_is_left()


def test_while_its_dependencies_are_installed(served: Served) -> None:
    id_, _ = drop(served, "true", expression=HANGS.replace("MARK", secrets.token_hex(8)))
    progress = served.spool / "progress" / f"{id_}.json"
    until(lambda: progress.exists() and json.loads(progress.read_bytes())["status"] == "INSTALLING_DEPENDENCIES")
    copy_cancel(served, id_)
    response = served.response(id_)
    assert response["status"] == "CANCELLED"
    phases = ("dependencies", "compile", "run")
    assert [response[each]["outcome"] for each in phases] == ["cancelled", "skipped", "skipped"]
    assert response["dependencies"]["time"] >= 0
