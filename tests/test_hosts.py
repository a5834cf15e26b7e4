"""Several executors and hosts on one spool: no entry has two holders, and a dead holder's entry is taken over.

A host is a process with its own namespaces (name, network, processes), a clock that is hours off, and locks on files
that hold on that host only. The engines are stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.actors.health import Health
from spoold.actors.intake import Intake
from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.spool import layout
from tests.actors.bench import Bench, settings_for
from tests.engines import REPOSITORY, SLOWNESS, unavailable
from tests.names import named
from tests.standins import PlainBackend, PlainSandbox
from tests.stopped import stands_still

PATIENCE = 100.0 * SLOWNESS
# a daemon that lives keeps its lease, however busy this host is
LEASE = LeaseSettings(renewal=0.3, limit=120.0, check=0.3, pause=0.1)
SHORT = LeaseSettings(renewal=0.2, limit=1.0, check=0.2, pause=0.1)
HOURS = {"one": 3 * 3600.0, "two": -3600.0}  # how far each host's clock is off
RUNS = re.compile(r"submission=(\S+) attempt=(\d+) build=\S+ msg=running$", re.MULTILINE)


class Hosts:
    """One spool, and the daemons of several hosts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lease = LEASE
        self.spool = directory / "spool"
        layout.create(str(self.spool))
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self, host: str, roles: str, name: str = "") -> subprocess.Popen[bytes]:
        """Start daemons on a host, in one process. An executor without a name of its own is named after the host."""
        settings = Settings(
            spool=SpoolSettings(path=str(self.spool), settle=0.5, scan=0.3),
            lease=self.lease,
            executor=ExecutorSettings(name=name or host, slots=2),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        config = self.directory / f"{host}-{name}.toml"
        config.write_bytes(msgspec.toml.encode(settings))
        script = f'hostname {host}; exec "$@"'
        daemon = [sys.executable, "-m", "tests.elsewhere", str(config), roles, "info", str(HOURS[host])]
        unshare = ["unshare", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self.log(host).open("ab") as log:
            started = subprocess.Popen(
                [*unshare, "sh", "-c", script, "sh", *daemon], stdout=log, stderr=log, cwd=REPOSITORY
            )
        self.daemons.append(started)
        return started

    def log(self, host: str) -> Path:
        return self.directory / f"{host}.log"

    def said(self, host: str) -> str:
        return self.log(host).read_text()

    def drop(self, id_: str, inputs: str = "") -> None:
        private = self.spool / "incoming" / f".{id_}.tmp"
        private.write_text(json.dumps({"files": [{"name": "run.sh", "content": "true"}], "inputs": inputs}))
        private.rename(self.spool / "incoming" / f"{id_}.json")

    def is_answered(self, id_: str) -> bool:
        return (self.spool / "done" / f"{id_}.response.json").exists()

    def response(self, id_: str) -> dict[str, Any]:
        return dict(json.loads((self.spool / "done" / f"{id_}.response.json").read_bytes()))

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, {
                host: self.said(host)[-2000:] for host in HOURS if self.log(host).exists()
            }
            time.sleep(0.02)

    def signal(self, daemon: subprocess.Popen[bytes], number: int) -> None:
        """Signal the daemon itself. When it is killed, the process that keeps its namespaces ends too.

        After SIGSTOP and SIGKILL, return once the daemon does nothing any more, so its last system call is over.
        """
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), number)
        if number in (signal.SIGSTOP, signal.SIGKILL):
            self.until(lambda: all(stands_still(int(child)) for child in children))

    def stop(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    self.signal(daemon, signal.SIGKILL)
                daemon.kill()
                daemon.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    tried = subprocess.run(["unshare", "--uts", "--net", "--pid", "--fork", "--mount-proc", "true"], check=False)
    if tried.returncode != 0:
        unavailable("only root can make namespaces that stand for hosts")
    made = Hosts(tmp_path)
    yield made
    made.stop()


def test_two_hosts_share_the_work_and_have_nothing_twice(hosts: Hosts) -> None:
    hosts.start("one", "intake,builder,health,executor")
    hosts.start("two", "executor")
    hosts.until(lambda: all("ready" in hosts.said(host) for host in HOURS))
    ids: list[str] = []

    def both_have_a_part() -> bool:
        """Drop ten more jobs. Return whether both hosts have run enough of them."""
        ids.extend(f"job-{number}" for number in range(len(ids), len(ids) + 10))
        for id_ in ids[-10:]:
            hosts.drop(id_, "nap 0.05")
        hosts.until(lambda: all(hosts.is_answered(id_) for id_ in ids))
        return all(len(RUNS.findall(hosts.said(host))) > 5 for host in HOURS)

    hosts.until(lambda: both_have_a_part() and len(ids) >= 40)
    assert {hosts.response(id_)["status"] for id_ in ids} == {"COMPLETED"}
    runs = {host: RUNS.findall(hosts.said(host)) for host in HOURS}
    assert Counter(runs["one"] + runs["two"]) == Counter((id_, "1") for id_ in ids), "each job ran once, on one host"


def test_two_executors_on_one_host_do_too(hosts: Hosts) -> None:
    hosts.start("one", "intake,builder,health,executor", name="a")
    hosts.start("one", "executor", name="b")
    ids = [f"job-{number}" for number in range(40)]
    for id_ in ids:
        hosts.drop(id_, "nap 0.05")
    hosts.until(lambda: all(hosts.is_answered(id_) for id_ in ids))
    assert Counter(RUNS.findall(hosts.said("one"))) == Counter((id_, "1") for id_ in ids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "stopped"])
def test_what_a_host_had_that_is_gone_is_taken_over(hosts: Hosts, number: int) -> None:
    end = hosts.directory / "end"
    hosts.start("one", "intake,builder,health")
    lost = hosts.start("two", "executor")
    for id_ in ("a", "b"):
        hosts.drop(id_, f"await {end}")
    hosts.until(lambda: len(RUNS.findall(hosts.said("two"))) == 2)
    hosts.signal(lost, number)
    hosts.start("one", "executor")
    for id_ in ("a", "b"):  # so that the test need not wait for the end of the lease
        os.utime(hosts.spool / "running" / named(id_), (1, 1))
    hosts.until(lambda: not any((hosts.spool / "running" / named(id_)).exists() for id_ in "ab"))
    hosts.until(lambda: RUNS.findall(hosts.said("one")))  # entries with an earlier attempt run one at a time
    if number == signal.SIGSTOP:
        hosts.signal(lost, signal.SIGCONT)
        hosts.until(lambda: hosts.said("two").count("lost the lease") == 2)
    end.touch()
    hosts.until(lambda: all(hosts.is_answered(id_) for id_ in "ab"))
    runs = [run for host in HOURS for run in RUNS.findall(hosts.said(host))]
    assert sorted(runs) == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert {hosts.response(id_)["status"] for id_ in "ab"} == {"COMPLETED"}
    hosts.until(lambda: not list((hosts.spool / "tmp").glob("*.response.json")))


@pytest.mark.parametrize("role", ["intake", "builder", "health", "executor"])
def test_a_role_is_on_one_host_at_a_time(hosts: Hosts, role: str) -> None:
    """No lock says so. The second daemon finds that the first one keeps renewing its file."""
    hosts.start("one", role, name="x")
    hosts.until(lambda: "ready" in hosts.said("one"))
    second = hosts.start("two", role, name="x")
    name = "executor-x" if role == "executor" else role
    assert second.wait(PATIENCE) != 0
    assert f"{name} runs on this spool already, on the host 'one'" in hosts.said("two")
    assert ("another [executor] name" in hosts.said("two")) == (role == "executor")


def test_a_role_goes_over_to_another_host(hosts: Hosts) -> None:
    """A role moves at once after a clean end, and after a lease when its host died.

    A stalled daemon then ends itself.
    """
    hosts.lease = SHORT
    first = hosts.start("one", "intake")
    hosts.until(lambda: "ready" in hosts.said("one"))
    hosts.signal(first, signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    second = hosts.start("two", "intake")
    hosts.until(lambda: "ready" in hosts.said("two"))
    assert "another host had this role" not in hosts.said("two")
    hosts.signal(second, signal.SIGSTOP)
    third = hosts.start("one", "intake")
    hosts.until(lambda: hosts.said("one").count("ready") == 2)
    hosts.signal(second, signal.SIGCONT)
    assert second.wait(PATIENCE) == 0
    assert "another host has taken this role" in hosts.said("two")
    hosts.drop("a")
    hosts.until((hosts.spool / "new" / named("a")).exists)
    hosts.signal(third, signal.SIGKILL)
    hosts.start("two", "intake")
    hosts.drop("b")
    hosts.until((hosts.spool / "new" / named("b")).exists)


# -- two of every role on one host, without locks


def test_two_of_every_role_at_once_answer_everything_once(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    bench = Bench(root, settings_for(root, spool=SpoolSettings(path=str(root), settle=30.0), lease=LEASE))
    other = msgspec.structs.replace(bench.settings, executor=ExecutorSettings(name="other", slots=2))
    sandbox, backend = PlainSandbox(), PlainBackend()
    executors = [bench.executor, Executor(other, lambda _: sandbox)]
    builders = [bench.builder, Builder(other, backend)]
    executors[1].start()
    builders[1].start()
    actors = [*executors, *builders, bench.intake, Intake(other), bench.health, Health(other)]
    stop, failures = threading.Event(), []

    def act(actor: Any) -> None:
        while not stop.is_set():
            try:
                actor.step()
            except OSError as error:  # the daemons' loop tries again
                failures.append(error)
            time.sleep(0.002)

    threads = [threading.Thread(target=act, args=(actor,)) for actor in actors]
    good, bad = [f"good-{number}" for number in range(40)], [f"bad-{number}" for number in range(20)]
    for thread in threads:
        thread.start()
    try:
        for id_ in good + bad:
            request = {"files": [{"name": "run.sh", "content": "echo hi"}]} if id_ in good else {"nonsense": 1}
            (bench.root / "incoming" / f"{id_}.json").write_text(json.dumps(request))
        bench.until(lambda: all(bench.has("done", f"{id_}.response.json") for id_ in good + bad), lambda: None)
        bench.until(lambda: not any(bench.names(each) for each in ("incoming", "new", "running")), lambda: None)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for each in (executors[1], builders[1]):
            each.stop()
        bench.close()
    assert {bench.response(id_)["status"] for id_ in good} == {"COMPLETED"}
    assert {bench.response(id_)["status"] for id_ in bad} == {"REJECTED"}
