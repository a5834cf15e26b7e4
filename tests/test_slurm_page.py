"""Follow the operator's page about Slurm word for word, from a working cluster and spool to a spool that uses both.

All parts are real except systemd: a program stands for it that starts the daemons. Only the names that the page sets at
its beginning are different here. The pilots belong to an ordinary user, in control groups that contrib's Prolog makes.
They run programs by the engine oci.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import Settings
from spoold.host.accounts import Accounts
from spoold.spool import layout
from tests import engines, users
from tests.clusters import DEPLOYED, Real
from tests.engines import REPOSITORY, unavailable
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.engines, pytest.mark.timeout(900)]
HEADING = "## Executors that Slurm starts\n"
NEEDED = ("spoold", "msgspec", "filelock", "click", "rich", "pygments", "markdown_it", "mdurl", "watchdog")
USER = "spoold-page-test"
SYSTEMCTL = """\
#!{python}
import json, os, signal, subprocess, sys, time

units = json.load(open({here!r} + "/units.json"))
verb, unit = sys.argv[1], sys.argv[-1]
started = {here!r} + "/started"

def running(pid):
    try:
        return open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

def stop(name):
    path = os.path.join(started, name)
    if os.path.exists(path):
        pid = int(open(path).read())
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        while running(pid):
            time.sleep(0.05)

for name, (command, user) in units[unit.removesuffix(".target")].items():
    if verb in ("restart", "stop"):
        stop(name)
    if verb != "stop":
        who = {{"user": user, "group": user, "extra_groups": []}} if user else {{}}
        log = open({here!r} + f"/{{name}}.log", "ab")
        streams = {{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}}
        made = subprocess.Popen(command, start_new_session=True, **streams, **who)
        with open(os.path.join(started, name), "w") as file:
            file.write(str(made.pid))
"""


def page() -> list[str]:
    """Return the page's blocks of commands in order."""
    text = (REPOSITORY / "contrib/docs/operator.md").read_text()
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_the_page_takes_a_dozen_commands() -> None:
    names, *blocks = page()
    assert all(re.fullmatch(r"(\w+=\S+ ?)+", line) for line in names.splitlines())
    text = "".join(blocks)
    without_input = re.sub(r"<<END\n.*?^END$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", "")
    assert len(without_input.strip().splitlines()) <= 12


# -- what the page assumes


@contextlib.contextmanager
def user() -> Iterator[pwd.struct_passwd]:
    """Make the user that the page names, and remove it after the block."""
    users.change("useradd", "--system", "--user-group", "--home-dir", "/nonexistent", USER)
    try:
        yield pwd.getpwnam(USER)
    finally:
        users.change("userdel", USER)


def python_for(who: pwd.struct_passwd) -> str:
    """Return a Python of this version that other users may run."""
    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}"
    theirs: dict[str, Any] = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": [], "cwd": "/"}
    for each in (sys.executable, f"/usr/bin/python{wanted}"):
        command = [each, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        with contextlib.suppress(OSError):
            if subprocess.run(command, capture_output=True, check=False, **theirs).stdout.decode().strip() == wanted:
                return each
    return unavailable(f"no Python {wanted} that other users may run")


def library(place: Path) -> Path:
    """Return a directory with spoold and its dependencies that everybody may read."""
    made = place / "library"
    made.mkdir()
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            there = Path(spec.origin).parent
            shutil.copytree(there, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    for each in (made, *made.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return made


def with_values(text: str, values: dict[str, dict[str, Any]]) -> str:
    """Return the package's settings file with some settings changed."""
    for table, changes in values.items():
        before, heading, rest = text.partition(f"\n[{table}]\n")
        assert heading, table
        for key, value in changes.items():
            line = msgspec.toml.encode({key: value}).decode().strip()
            rest, count = re.subn(rf"^#{key} = .*$", lambda _, line=line: line, rest, count=1, flags=re.MULTILINE)  # type: ignore[misc] # mypy cannot infer it
            assert count, key
        text = before + heading + rest
    return text


class Host:
    """One host that stands for the head and both nodes, with a working spool and programs under their usual names."""

    def __init__(self, place: Path, like: Settings, cluster: Real, who: pwd.struct_passwd) -> None:
        self.place, self.cluster = place, cluster
        self.bin = place / "bin"
        self.bin.mkdir()
        self.settings = place / "spoold.toml"
        layout.create(str(place / "spool"), Accounts(who.pw_gid, dict.fromkeys(layout.USERS.values(), 0)))
        self._settings(like)
        python, made = python_for(who), library(place)
        self._program("spoold", f'PYTHONPATH={made} exec {python} -m spoold.cli.daemon "$@"')
        self._program("spoolctl", f'exec {sys.executable} -m spoold.cli.ctl "$@"')
        self._units(who, like)
        scripts = place / "scripts"
        scripts.mkdir()
        for name in ("slurm-prolog", "slurm-epilog"):
            (scripts / name).write_text(f"#!/bin/sh\nexec {DEPLOYED}/{name} {USER} 2>>{place}/{name}.said\n")
            (scripts / name).chmod(0o755)
        self.names = {
            "user": USER,
            "group": USER,
            "settings": str(self.settings),
            "pilots": str(place / "pilots.toml"),
            "slurm": cluster.variables["SLURM_CONF"],
            "scripts": str(scripts),
            "program": str(self.bin / "spoold"),
            "own": str(place / "own"),
        }

    def _settings(self, like: Settings) -> None:
        command = [sys.executable, "-m", "spoold.cli.ctl", "config", "--defaults"]
        defaults = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout.decode()
        pin = f'[nixpkgs]\ndefault = "{like.nixpkgs["default"]}"'
        text = re.sub(r"^#\[nixpkgs\]\n#default = .*$", pin, defaults, count=1, flags=re.MULTILINE)
        values: dict[str, dict[str, Any]] = {
            "spool": {"path": str(self.place / "spool"), "scan": 1.0},
            "builder.limits": {"evaluation_time": like.builder.limits.evaluation_time},
            "nix": {"state": str(self.place / "state"), "system": like.nix.system},
        }
        self.settings.write_text(with_values(text, values))
        self.settings.chmod(0o644)

    def _program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def _units(self, who: pwd.struct_passwd, like: Settings) -> None:
        (self.place / "started").mkdir()
        here = [sys.executable, "-m", "spoold.cli.daemon", "--config"]
        # This builder runs as root and not as its own user, so it closes its state to all others.
        own = self.place / "builder.toml"
        change = f"s|{self.place}/state|{like.nix.state}|"
        builder = f"sed '{change}' {self.settings} >{own} && exec {' '.join(here)} {own} builder"
        scale = [str(self.bin / "spoold"), "--config", str(self.settings), "scale"]
        units = {
            "spoold": {
                "builder": (["sh", "-c", builder], None),
                **{role: ([*here, str(self.settings), role], None) for role in ("intake", "executor", "health")},
            },
            "spoold-scale": {"scale": (scale, who.pw_uid)},
        }
        (self.place / "units.json").write_bytes(msgspec.json.encode(units))
        (self.bin / "systemctl").write_text(SYSTEMCTL.format(python=sys.executable, here=str(self.place)))
        (self.bin / "systemctl").chmod(0o755)

    @property
    def variables(self) -> dict[str, str]:
        path = f"{self.bin}:{self.cluster.variables['PATH']}"
        libraries = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        more = {"PATH": path, "PYTHONPATH": libraries, "SPOOLD_CONFIG": str(self.settings), "COLUMNS": "200"}
        return os.environ | self.cluster.variables | more

    def follow(self, blocks: list[str]) -> str:
        """Run all commands in one shell that stops at the first failure. Return what they print."""
        names, *commands = blocks
        for name, value in self.names.items():
            names, count = re.subn(rf"\b{name}=\S+", f"{name}={value}", names)
            assert count == 1, name
        script = f"set -eux\n{names}{''.join(commands)}"
        log = self.place / "shell.log"
        with log.open("w") as stderr:
            shell = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.place,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        try:
            said = shell.communicate(timeout=5 * PATIENCE)[0]
        except subprocess.TimeoutExpired:
            shell.kill()
            shell.communicate()
            pytest.fail(self.said())
        assert shell.returncode == 0, self.said()
        return said

    def said(self) -> str:
        logs = [*self.place.glob("*.log"), *self.place.glob("own/*.log"), *self.place.glob("*.said")]
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in logs) + self.cluster.run("squeue")

    def pilots(self) -> list[str]:
        return [path.name for path in (self.place / "spool/tmp").glob("executor-cluster-*.host")]

    def stop(self) -> None:
        """End all daemons and the pilots."""
        for unit in ("spoold-scale", "spoold.target"):
            subprocess.run(["systemctl", "stop", unit], env=self.variables, check=True)
        for job in self.cluster.run("squeue", "-h", "-o", "%A").split():
            self.cluster.run("scancel", job)
        until(lambda: not self.cluster.run("squeue", "-h"), self.said)


@pytest.fixture
def host(place: Path, nix_settings: Settings, runtime: object) -> Iterator[Host]:
    engines.need_oci()
    seen = place / "state" / "nix"
    seen.mkdir(parents=True)
    (place / "state").chmod(0o711)
    subprocess.run(["mount", "--bind", f"{nix_settings.nix.state}/nix", str(seen)], check=True)
    try:
        with user() as who, contextlib.closing(Closable(Real(cpus=2, memory=4000, groups_for=""))) as cluster:
            made = Host(place, nix_settings, cluster.cluster, who)
            try:
                yield made
            finally:
                made.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(seen)], check=True)


class Closable:
    def __init__(self, cluster: Real) -> None:
        self.cluster, self.close = cluster, cluster.stop


def test_the_page_is_followed_word_for_word(host: Host) -> None:
    said = host.follow(page())
    assert "hello from a node" in said.splitlines()
    assert re.search(r"^pool +wanted +pending +starting +running +lost +most$", said, re.MULTILINE)
    assert re.search(r"^cluster +\d+ +\d+ +\d+ +1 +0 +8$", said, re.MULTILINE), said
    (response,) = (host.place / "spool/done").glob("*.response.json")
    assert response.stat().st_uid == 0, "health published it"
    (pilot,) = host.pilots()
    lock = host.place / "spool/tmp" / pilot.replace(".host", ".lock")
    assert lock.stat().st_uid == pwd.getpwnam(USER).pw_uid, "the pilot is the user's"
