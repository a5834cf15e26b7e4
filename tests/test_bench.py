"""contrib/development/bench and profile, with as few runs as possible: their output has the shape that others read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import executors, growth, spools
from benchmarks.options import parsed
from benchmarks.programs import COMPILE, TRIVIAL
from benchmarks.report import file_system
from benchmarks.served import Served
from benchmarks.servers import GoJudge, Piston
from benchmarks.spools import NOTHING, Spool
from spoold.config import Settings
from spoold.model.states import ALWAYS
from tests.engines import REPOSITORY, SLOWNESS

PEERS = ("docker-run", "docker-sdk", "bubblewrap", "no-isolation")
WAYS = ("spool-single-use", "spool-recycled", "spool-recycled-memory", *PEERS)
JOURNAL = "spool-recycled-journal"
OCI = ("spool-oci-recycled", "spool-oci-single-use")
PARTLY = ("spool-only", "spool-single-use-own", "spool-nix-shell", "spool-nix-shell-python")
NAMES = {*PARTLY, *(way + suffix for way in WAYS for suffix in ("", "-python", "-compile"))}
FIGURES = ("p50_ms", "p95_ms", "p99_ms", "jobs_per_s")
ROLES = set(ALWAYS)


MORE = ("--nsjail", "--growth", "--rate", "--pid")
SOME = cast(  # the part of a spool that a peer uses
    "Served", SimpleNamespace(runtime=SimpleNamespace(bash="/nix/store/bash"), path=lambda _: "/nix/store/x/bin")
)
# The benchmark measures real engines one after another, and waits until each has come to rest. That takes a minute on
# an idle machine.
PATIENCE = 900 * SLOWNESS


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}/contrib/development:{REPOSITORY}"}
    command = [sys.executable, "-P", "-m", module, *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # so that it removes what it started and says how far it came
        pytest.fail("".join(process.communicate()))
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def options(work: Path, settings: Settings, docker_host: str, **more: object) -> list[str]:
    given = {
        "work": work,
        "docker": docker_host,
        "nixpkgs": settings.nixpkgs["default"],
        "state": settings.nix.state,
        "json": work / "out.json",
        **more,
    }
    return [word for key, value in given.items() for word in (f"--{key}", str(value))]


@pytest.mark.long  # the plain run has the command from end to end, and real rows of executors, below
@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_it_measures_every_row_and_writes_json_and_a_chart(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object
) -> None:
    words = options(tmp_path, nix_settings, docker_host, seconds=0, spent=-PATIENCE)  # with time for everything
    measured = run("benchmarks", "--quick", *words)
    assert measured.returncode == 0, measured.stderr + measured.stdout
    report = json.loads((tmp_path / "out.json").read_bytes())
    named = NAMES if "rows with -journal" in report["left_out"] else NAMES | {JOURNAL}
    named = named if "rows with oci" in report["left_out"] else named | set(OCI)
    assert set(report["results"]) == named
    assert report["late"] == ""
    for name, row in report["results"].items():
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"], name
        assert all(row[figure] > 0 for figure in FIGURES), name
        assert f"\n{name} " in measured.stdout
        assert row["turns"] >= 1, name
    assert set(report["memory_mb"]) == ROLES | {"total"}
    assert set(report["recovery_s"]) == ROLES
    assert set(report["scaling"]) == {"10", "1000"}
    assert report["environments"]["spool-single-use"]["ratio"] > 0
    assert report["machine"]["cpus"] > 0
    assert set(report["engine_mb"]) == {"daemons", "shims"}
    assert all(size > 1 for size in report["engine_mb"].values())
    assert report["machine"]["file_system"] == file_system(tmp_path)
    assert "fewer than 5 turns" in measured.stdout
    chart = ElementTree.fromstring((tmp_path / "out.svg").read_text())  # noqa: S314 - our own
    texts = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert set(texts) >= named


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_what_there_is_no_time_for_is_told(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object
) -> None:
    """All time is over before anything is measured. The program ends well, and says what it left out."""
    measured = run("benchmarks", "--quick", *options(tmp_path, nix_settings, docker_host, spent=1000))
    assert measured.returncode == 0, measured.stderr + measured.stdout
    report = json.loads((tmp_path / "out.json").read_bytes())
    assert report["results"] == {}
    assert {"spool-recycled", "docker-run-compile", "waiting", "new environments", "memory", "kill -9"} <= set(
        report["left_out"]
    )
    assert "not measured: kill -9: it takes about " in measured.stdout
    assert "before measuring 1000" in report["late"]
    assert report["late"] in measured.stdout


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_growth_has_a_slope_and_memory_for_each_size(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes are tiny, because the test only shows that every row can be measured."""
    small = {"SIZES": (8192, 16384, 32768), "PATHS": (2, 4, 8), "ANSWERS": (5, 10, 20), "ROUNDS": 1, "STARTS": 1}
    for name, value in small.items():
        monkeypatch.setattr(growth, name, value)
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}/contrib/development:{REPOSITORY}")  # for the daemons
    with ExitStack() as stack:
        rows = growth.measure(parsed(options(tmp_path, nix_settings, docker_host)), stack)
    assert set(rows) == {
        *("slots", "responses, bytes", "requests, bytes", "new environments, paths", "known environments, paths"),
        *("kept answers, jobs", "kept answers, start"),
    }
    for name, row in rows.items():
        assert len(row["sizes"]) == len(row["seconds"]) == 3, name
        assert row["sizes"] == sorted(set(row["sizes"])), name
        assert isinstance(row["slope"], float), name
        for daemons in (*row["memory_mb"], *row["peak_mb"]):
            assert set(daemons) == ROLES, name
            assert all(size > 1 for size in daemons.values()), name
    assert rows["known environments, paths"]["sizes"][2] - rows["known environments, paths"]["sizes"][0] == 6
    out = io.StringIO()
    growth.show(rows, Console(file=out, width=200))
    assert all(name in out.getvalue() for name in rows)


@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_executors_share_a_spool(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}/contrib/development:{REPOSITORY}")  # for the daemons
    with ExitStack() as stack:
        given = parsed(options(tmp_path, nix_settings, docker_host))
        (served,) = spools.start(given, stack, {"shared": Spool(NOTHING, (TRIVIAL,))}, {}).values()
        found = executors.executors(served, tmp_path, 20, (1, 3))
        assert set(found) == {"1", "3"}
        assert all(row["jobs_per_s"] > 0 and row["cpu_ms"] > 0 for row in found.values())
        assert served.burst([TRIVIAL]) > 0  # the spool's own executor runs again


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(PATIENCE + 300)
def test_it_tells_where_the_cpu_time_goes(
    tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object
) -> None:
    words = options(tmp_path, nix_settings, docker_host, jobs=20, rounds=1)
    measured = run("benchmarks.cost", *words, "--tree", f"a={REPOSITORY}", "--tree", f"b={REPOSITORY}")
    assert measured.returncode == 0, measured.stderr + measured.stdout
    report = json.loads((tmp_path / "out.json").read_bytes())
    assert set(report) == {"a", "b"}
    for costs in report.values():
        parts = [part for part in costs if part not in ("all parts", "rest of the machine", "jobs/s")]
        assert set(parts) > ROLES
        assert costs["containers user"] + costs["containers system"] > 0  # the kernel counts each of them in ticks
        assert costs["jobs/s"] > 0
        assert all(f"\n {part} " in measured.stdout for part in parts)


@pytest.mark.parametrize("kind", ["tmpfs", "journal", "no journal"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_the_file_system_is_told_with_its_journal(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(place)]
    if kind != "tmpfs":
        image = tmp_path / "image"
        image.write_bytes(b"")
        os.truncate(image, 16 << 20)
        feature = "has_journal" if kind == "journal" else "^has_journal"
        subprocess.run(["mkfs.ext4", "-q", "-O", feature, image], check=True)
        mount = ["mount", "-o", "loop", str(image), str(place)]
    subprocess.run(mount, check=True)
    try:
        told = file_system(place)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    begins = {"tmpfs": "tmpfs (", "journal": "ext4, a journal (", "no journal": "ext4, no journal ("}
    assert told.startswith(begins[kind])


class Answers(BaseHTTPRequestHandler):
    """Answers like those of go-judge and Piston: the run went well, or its compilation failed."""

    protocol_version = "HTTP/1.1"
    connections = 0
    shells = ("/bin/sh",)

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        self._answer([{"language": "bash", "version": "5"}, {"language": "c", "version": "10"}])

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "cmd" in asked:
            there = asked["cmd"][0]["args"][0] in self.shells
            self._answer([{"status": "Accepted" if there else "File Error", "files": {"stdout": "hi\n"}}])
        elif asked["language"] == "c":
            self._answer({"compile": {"code": 1, "stderr": "no such compiler"}})
        else:
            self._answer({"run": {"stdout": "hi\n"}})

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.connections = 0
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_peer_is_asked_over_one_connection(server: str) -> None:
    judge = GoJudge("go-judge", server, SOME)
    assert [judge.run(TRIVIAL) for _ in range(3)] == ["hi\n"] * 3
    assert Answers.connections == 1
    judge.close()


def test_go_judge_gets_the_store_where_it_has_it(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without = GoJudge("go-judge", server, SOME)
    assert without.run(TRIVIAL) == "hi\n"
    assert without.about
    monkeypatch.setattr(Answers, "shells", ("/nix/store/bash/bin/bash",))
    having = GoJudge("go-judge", server, SOME)
    assert having.run(TRIVIAL) == "hi\n"
    assert not having.about
    without.close()
    having.close()


def test_a_compilation_that_fails_is_what_the_peer_printed_and_no_crash(server: str) -> None:
    piston = Piston("piston", server)
    assert piston.run(TRIVIAL) == "hi\n"
    assert "no such compiler" in piston.run(COMPILE)
    piston.close()


def test_help_tells_of_every_option() -> None:
    told = subprocess.run(
        [REPOSITORY / "contrib/development/bench", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--quick", "--seconds", "--json", "--chart", "--isolate", "--go-judge", "--piston", *MORE):
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


def test_the_command_that_has_storms_tells_of_its_options_and_refuses_others() -> None:
    told = subprocess.run(
        [REPOSITORY / "contrib/development/storm", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--minutes", "--submissions", "--seed", "--lease", "--engine"):
        assert option in told
    refused = run("tests.storms", "--minutes", "0")
    assert refused.returncode == 2
    assert "contrib/development/storm: error: " in refused.stderr


def test_the_command_that_runs_languages_tells_of_them_and_refuses_others() -> None:
    command = REPOSITORY / "contrib/development/languages"
    told = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "contrib/development/languages [LANGUAGE...]" in told
    refused = subprocess.run([command, "elvish"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "there is no program in elvish; choose one of: bash" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(["--bogus"], ["--seconds", "x"], ["--json", "/no/where/x.json"], ["--rate", "0"], ["--quick", "--growth"]),
        *(["--pid", "piston=7"], ["--pid", "piston=x", "--piston", "http://x/"], ["--pid", "isolate=7"]),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(words: list[str]) -> None:
    refused = run("benchmarks.options", *words)
    assert refused.returncode == 2
    assert "contrib/development/bench: error: " in refused.stderr
