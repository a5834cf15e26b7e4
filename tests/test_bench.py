"""contrib/development/bench and profile, with as few runs as they can: what they write has the shape others read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from spoold.config import Settings
from spoold.model.states import Role
from tests.engines import REPOSITORY, SLOWNESS

WAYS = ("spool-single-use", "spool-recycled", "docker-run", "docker-sdk", "bubblewrap", "no-isolation")
PARTLY = ("spool-only", "spool-single-use-own", "spool-nix-shell", "spool-nix-shell-python")
NAMES = {*PARTLY, *(way + suffix for way in WAYS for suffix in ("", "-python", "-compile"))}
FIGURES = ("p50_ms", "p95_ms", "p99_ms", "jobs_per_s")
ROLES = set(Role)


# It measures real engines, one after another, and each has to come to rest: a minute where nothing else runs.
PATIENCE = 900 * SLOWNESS


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}/contrib/development:{REPOSITORY}"}
    command = [sys.executable, "-P", "-m", module, *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # so that it takes down what it started, and says how far it was
        pytest.fail("".join(process.communicate()))
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_it_measures_every_row_and_writes_json_and_a_chart(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object
) -> None:
    given = {
        "work": tmp_path,
        "docker": docker_host,
        "nixpkgs": nix_settings.nixpkgs["default"],
        "state": nix_settings.nix.state,
        "json": tmp_path / "out.json",
        "seconds": 0,
    }
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    measured = run("benchmarks", "--quick", *words)
    assert measured.returncode == 0, measured.stderr + measured.stdout
    report = json.loads((tmp_path / "out.json").read_bytes())
    assert set(report["results"]) == NAMES
    for name, row in report["results"].items():
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"], name
        assert all(row[figure] > 0 for figure in FIGURES), name
        assert f"\n{name} " in measured.stdout
    assert set(report["memory_mb"]) == ROLES | {"total"}
    assert set(report["recovery_s"]) == ROLES
    assert set(report["scaling"]) == {"10", "1000"}
    assert report["environments"]["spool-single-use"]["ratio"] > 0
    assert report["machine"]["cpus"] > 0
    chart = ElementTree.fromstring((tmp_path / "out.svg").read_text())  # noqa: S314 - our own
    texts = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert set(texts) >= NAMES


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_it_tells_where_the_cpu_time_goes(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object
) -> None:
    given = {
        "work": tmp_path,
        "docker": docker_host,
        "nixpkgs": nix_settings.nixpkgs["default"],
        "state": nix_settings.nix.state,
        "json": tmp_path / "out.json",
        "jobs": 20,
        "rounds": 1,
    }
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    measured = run("benchmarks.cost", *words, "--tree", f"a={REPOSITORY}", "--tree", f"b={REPOSITORY}")
    assert measured.returncode == 0, measured.stderr + measured.stdout
    report = json.loads((tmp_path / "out.json").read_bytes())
    assert set(report) == {"a", "b"}
    for costs in report.values():
        parts = [part for part in costs if part not in ("all parts", "rest of the machine", "jobs/s")]
        assert set(parts) > ROLES
        assert costs["containers user"] > 0
        assert costs["containers system"] > 0
        assert costs["jobs/s"] > 0
        assert all(f"\n {part} " in measured.stdout for part in parts)


def test_help_tells_of_every_option() -> None:
    told = subprocess.run(
        [REPOSITORY / "contrib/development/bench", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--quick", "--seconds", "--json", "--chart", "--isolate", "--go-judge", "--piston"):
        assert option in told
    told = subprocess.run(
        [REPOSITORY / "contrib/development/profile", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--tree", "--mode", "--program", "--engine", "--jobs", "--rounds", "--memory", "--json"):
        assert option in told


@pytest.mark.parametrize("words", [["--bogus"], ["--tree", "x"], ["--tree", "x=/no/where"], ["--jobs", "0"]])
def test_wrong_options_of_profile_are_refused(words: list[str]) -> None:
    refused = run("benchmarks.cost", *words)
    assert refused.returncode == 2
    assert "contrib/development/profile: error: " in refused.stderr


def test_the_command_that_tries_memory_tells_of_its_options_and_refuses_others() -> None:
    told = subprocess.run(
        [REPOSITORY / "contrib/development/memory", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--times", "--mode", "--kind"):
        assert option in told
    refused = run("benchmarks.memory", "--kind", "bogus")
    assert refused.returncode == 2
    assert "contrib/development/memory: error: " in refused.stderr


@pytest.mark.parametrize("words", [["--bogus"], ["--seconds", "x"], ["--json", "/no/where/x.json"]])
def test_wrong_options_are_refused_before_anything_is_done(words: list[str]) -> None:
    refused = run("benchmarks.options", *words)
    assert refused.returncode == 2
    assert "contrib/development/bench: error: " in refused.stderr
