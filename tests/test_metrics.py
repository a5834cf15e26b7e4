"""The metrics of the daemons, as real processes over stand-in engines. The dashboard, alerts and docs match them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from spoold.config import MetricsSettings, NixSettings
from spoold.config.file import load
from spoold.host import metrics, textfile
from spoold.model.collection import Order
from spoold.model.errors import LeaseLostError
from spoold.model.states import Role, State
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.lease import Lease
from spoold.upkeep.depth import depths, holders
from tests import engines
from tests.actors.bench import Bench
from tests.names import mine
from tests.test_overload import Flooded
from tests.waiting import until

CONTRIB = engines.REPOSITORY / "contrib"
DEPLOY = CONTRIB / "deploy"
OF_DOCKER = {"spoold_sandboxes"}  # stand-ins have no pool; see tests/sandbox/test_pool.py
ROLES = ("intake", "executor", "builder", "health")


class Measured:
    """Metrics of four daemons after a few submissions: series by name and labels, and the files themselves.

    All of it happened after ``began``, a time on the clock.
    """

    def __init__(self, directory: Path, began: float) -> None:
        self.began, self.took = began, time.time() - began
        self.files = {path.name: path for path in directory.iterdir()}
        self.texts = {name: path.read_text() for name, path in self.files.items()}
        self.modes = {path.stat().st_mode & 0o777 for path in self.files.values()}
        self.names: set[str] = set()  # names of series, as a query uses them
        self.families: set[str] = set()
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for text in self.texts.values():
            for family in text_string_to_metric_families(text):
                self.families.add(family.name + ("_total" if family.type == "counter" else ""))
                for sample in family.samples:
                    key = (sample.name, frozenset(sample.labels.items()))
                    assert key not in self.values, f"two daemons export {key}: node_exporter would reject both"
                    self.values[key] = sample.value
                    self.names.add(sample.name)

    def sum(self, name: str, **labels: str) -> float:
        found = [
            value for (each, own), value in self.values.items() if each == name and set(labels.items()) <= set(own)
        ]
        assert found, (name, labels)
        return sum(found)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Yield the metrics after some submissions. Then stop all daemons."""
    directory = tmp_path_factory.mktemp("metrics")
    files = directory / "collected"
    files.mkdir()
    flooded = Flooded(directory)
    settings = load(str(flooded.config))
    settings = msgspec.structs.replace(
        settings,
        spool=msgspec.structs.replace(settings.spool, settle=1.0),
        metrics=MetricsSettings(directory=str(files), interval=1.0),
        nix=NixSettings(state=str(directory)),
    )
    flooded.config.write_bytes(msgspec.toml.encode(settings))
    umask = os.umask(0o077)  # like the units
    began = time.time()
    try:
        flooded.start(*ROLES)
    finally:
        os.umask(umask)
    try:
        for number in range(3):
            flooded.drop(f"a{number}")
        (flooded.spool / "incoming" / "bad.json").write_text('{"fles": []}')
        (flooded.spool / "incoming" / "notes").write_text("")
        flooded.until(lambda: all(map(flooded.has, ("a0", "a1", "a2", "bad"))))
        flooded.until(lambda: not (flooded.spool / "incoming" / "notes").exists())
        builds = BuildStore(settings)
        builds.orders.file("test", Order(dry_run=True))
        flooded.until(lambda: builds.orders.report("test"))

        written: dict[str, set[int]] = {}

        def settled() -> bool:
            """Tell whether each file was written twice since the last event.

            The second write began after all events.
            """
            for path in files.glob("*.prom"):
                written.setdefault(path.name, {path.stat().st_mtime_ns}).add(path.stat().st_mtime_ns)
            return len(written) == len(ROLES) and all(len(times) > 2 for times in written.values())

        flooded.until(settled)
        yield Measured(files, began)
    finally:
        flooded.stop()
    assert os.listdir(files) == [], "a daemon that has ended leaves no metrics"


def test_each_daemon_has_a_file_that_others_may_read(measured: Measured) -> None:
    names = sorted(re.sub(r"-[0-9a-f]{8}\.prom$", "", name) for name in measured.texts)
    assert names == ["spoold-builder", "spoold-executor-default", "spoold-health", "spoold-intake"]
    assert measured.modes == {0o644}


def test_what_happened_is_measured(measured: Measured) -> None:
    assert measured.sum("spoold_responses_total", status="COMPLETED", daemon="executor-default") == 3
    assert measured.sum("spoold_responses_total", status="REJECTED") == 2
    assert measured.sum("spoold_dropped_total", outcome="accepted") == 3
    assert measured.sum("spoold_dropped_total", outcome="refused") == 2
    assert measured.sum("spoold_phase_seconds_count", phase="run", outcome="ok") == 3
    assert measured.sum("spoold_wait_seconds_count") == measured.sum("spoold_turnaround_seconds_count") == 3
    of_three = 3 * measured.took
    assert 0 < measured.sum("spoold_wait_seconds_sum") <= measured.sum("spoold_turnaround_seconds_sum") < of_three
    assert measured.sum("spoold_build_seconds_count", outcome="ok") == 1
    assert measured.sum("spoold_log_messages_total", level="warning", daemon="intake") == 0
    assert measured.sum("spoold_slots") == 2
    assert measured.sum("spoold_engine_ready") == 1
    assert measured.sum("spoold_spool_free_bytes") > 0
    assert measured.sum("spoold_quarantine_files") == 2
    assert measured.sum("spoold_entries", state="incoming", daemon="intake") == 0
    assert measured.sum("spoold_entries", state="running", daemon="health") == 0
    for role in ("intake", "executor-default", "builder", "health"):
        assert abs(measured.sum("spoold_start_time_seconds", daemon=role) - measured.began) < measured.took + 1
        assert 1e7 < measured.sum("spoold_resident_memory_bytes", daemon=role) < 2e8
        assert 0 < measured.sum("spoold_cpu_seconds_total", daemon=role) < 4 * measured.took
        assert 3 < measured.sum("spoold_open_files", daemon=role) < 100


def test_what_did_not_happen_yet_is_there_at_zero(measured: Measured) -> None:
    """Prometheus misses the first increment of a series that did not exist before."""
    for status in ("INTERNAL_ERROR", "RUN_FAILED"):
        assert measured.sum("spoold_responses_total", status=status, daemon="executor-default") == 0
    assert measured.sum("spoold_put_back_total", state="running", daemon="health") == 0
    assert measured.sum("spoold_sandbox_events_total", event="failed") == 0


def test_the_table_is_what_is_exported(measured: Measured) -> None:
    assert measured.families == {metric.name for metric in metrics.TABLE if metric.roles != (Role.SCALE,)} - OF_DOCKER


@pytest.mark.parametrize("metric", metrics.TABLE, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: metrics.Metric) -> None:
    assert re.fullmatch(r"spoold_[a-z_]+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")


def test_the_operators_page_has_the_table() -> None:
    page = (CONTRIB / "docs/operator.md").read_text()
    for metric in metrics.TABLE:
        labels = "".join(f", `{label}`" for label in metric.labels)
        row = f"| `{metric.name}`{labels} | {', '.join(metric.roles)} | {metric.about} |"
        assert row in page, row
    assert set(re.findall(r"^\| `(spoold_\w+)`", page, re.MULTILINE)) == {metric.name for metric in metrics.TABLE}


def test_the_dashboard_asks_for_what_there_is(measured: Measured) -> None:
    text = (DEPLOY / "grafana-dashboard.json").read_text()
    dashboard = json.loads(text)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 10
    assert unknown(text, measured) == set()


def test_the_alerts_ask_for_what_there_is(measured: Measured) -> None:
    text = (DEPLOY / "alerts.yml").read_text()
    assert text.count("- alert:") == text.count("summary:") == text.count("description:") > 5
    assert unknown(text, measured) == set()


def unknown(text: str, measured: Measured) -> set[str]:
    """Return the series, and values of labels, that ``text`` uses and no daemon exports."""
    asked = set(re.findall(r"\bspoold_[a-z_]+", text))
    of_scale = [metric for metric in metrics.TABLE if metric.roles == (Role.SCALE,)]  # scale does not run here
    wrong = asked - measured.names - OF_DOCKER - {metric.name for metric in of_scale}
    labels = {pair for _, own in measured.values for pair in own}
    labels |= {(label, each) for metric in of_scale for label, values in metric.labels.items() for each in values}
    for label, value in re.findall(r'\b(state|status|outcome|event|found|phase|level)=\\?"([^"\\]+)\\?"', text):
        if (label, value) not in labels:
            wrong.add(f"{label}={value}")
    return wrong


def test_promtool_takes_the_alerts() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    subprocess.run(["promtool", "check", "rules", DEPLOY / "alerts.yml"], check=True, capture_output=True)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    rules = engines.REPOSITORY / "tests" / "alerts_test.yml"
    done = subprocess.run(["promtool", "test", "rules", rules], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_promtool_takes_what_is_exported(measured: Measured) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    for text in measured.texts.values():
        done = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def off() -> Iterator[None]:
    yield
    metrics.turn_off()


def test_a_directory_that_is_missing_stops_nothing(tmp_path: Path, off: None) -> None:
    missing = tmp_path / "missing"
    calls: list[int] = []
    with textfile.kept(
        str(missing), 0.01, spool="/s", daemon="health", roles=["health"], measures=[lambda: calls.append(1)]
    ):
        until(lambda: len(calls) > 2)
        missing.mkdir()
        until(lambda: any(name.endswith(".prom") for name in os.listdir(missing)))
    assert os.listdir(missing) == []


def test_a_daemon_that_measures_nothing_loads_no_library() -> None:
    program = "import sys, spoold.cli.daemon, spoold.actors.health; print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def test_trouble_is_counted(tmp_path: Path, off: None) -> None:
    """A worker claims an entry and does nothing, again and again, until the submission is given up."""
    exposition = metrics.Exposition(["health"], {"daemon": "health"})
    bench = Bench(tmp_path / "spool")
    try:
        bench.drop("a")
        for attempt in (1, 2, 3):
            bench.until(lambda: bench.names("new"), bench.health.step)
            bench.spool.queue.claim(mine("a", attempt), State.NEW, State.RUNNING)
            bench.let_leases_run_out("running")
        bench.until(lambda: bench.has("done", "a.response.json"), bench.health.step)
    finally:
        bench.close()
    text = exposition.text().decode()
    assert 'spoold_put_back_total{daemon="health",state="running"} 2.0' in text
    for name in ("given_up", "quarantined"):
        assert f'spoold_{name}_total{{daemon="health"}} 1.0' in text
    assert 'spoold_responses_total{daemon="health",status="INTERNAL_ERROR"} 1.0' in text


def test_a_lost_lease_is_counted_once(tmp_path: Path, off: None) -> None:
    exposition = metrics.Exposition(["executor"], {})
    (tmp_path / "entry").touch()
    lease = Lease(str(tmp_path / "entry"))
    (tmp_path / "entry").unlink()
    lease.renew()
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.close()
    assert "spoold_lost_leases_total 1.0" in exposition.text().decode()


def test_the_oldest_is_found_among_many(tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    for number in range(50):
        name = tmp_path / "new" / f"a{number}.json"
        name.touch()
        os.utime(name, (1000 + number * 7 % 50,) * 2)
    (tmp_path / "new" / ".x.tmp").touch()
    held = tmp_path / "tmp" / "executor-x.held"
    held.mkdir()
    for path in (held / "b@1.json", tmp_path / "running" / "b@1.json"):
        path.touch()
    os.utime(held / "b@1.json", (500, 500))
    (tmp_path / "incoming" / "c.json").touch()
    os.utime(tmp_path / "incoming" / "c.json", (1, 1))  # a client can set any time
    found = {depth.state: depth for depth in depths(str(tmp_path), 3)}
    assert found["new"].number == 50
    assert [each.since for each in found["new"].oldest] == [1000, 1001, 1002]
    assert found["running"].oldest[0] == (500, "b@1.json")
    assert found["incoming"].oldest[0].since > 1e9
    assert [(worker.name, len(worker.held)) for worker in holders(str(tmp_path))] == [("executor-x", 1)]
