"""An attacker with the builder's account writes arbitrary files that executor and health read (security case 6)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.actors.executor import Executor
from spoold.model import ids
from spoold.model.job import Runtime
from tests.actors.bench import Bench
from tests.names import named
from tests.standins import PlainSandbox, store_path

Make = Callable[[Path, bytes], None]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "spool")
    yield made
    made.close()


def link(path: Path, content: bytes) -> None:
    """Make a link to a file that its readers may read, with content that would be accepted."""
    secret = path.parents[3] / "secret"
    secret.write_bytes(content)
    path.symlink_to(secret)


def huge(path: Path, content: bytes) -> None:
    """Write content that would be accepted, followed by far too much."""
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.seek(10 << 30)
        file.write(b" ")


ODD: dict[str, Make] = {
    "a FIFO that nobody writes to": lambda path, _: os.mkfifo(path),
    "a link": link,
    "a directory": lambda path, _: path.mkdir(),
    "10 GiB": huge,
}


def everyone(bench: Bench) -> None:
    bench.step()
    bench.let_leases_run_out("building")  # submissions that wait for a build that exists nowhere are put back
    bench.health.step()


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_runtime_is_none_and_keeps_nobody_waiting(
    bench: Bench, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = bench.root / "builds" / "runtime.json"
    content = path.read_bytes()
    path.unlink()
    ODD[kind](path, content)
    bench.drop("waits")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            bench.executor.step()
            bench.health.step()
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if line.startswith("no work is taken until the builder provides")]) == 1
    assert bench.names("new") == {named("waits")}
    path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(content)
    bench.wait_for("waits")
    assert bench.response("waits")["status"] == "COMPLETED"


GOOD = store_path("good")
BAD_RUNTIMES: dict[str, dict[str, object]] = {
    "a program of the host": {"bash": "/etc/passwd"},
    "the store itself": {"bash": "/nix/store"},
    "a way up": {"bash": f"{GOOD}/../../../etc"},
    "a way up in place of a name": {"coreutils": "/nix/store/../../etc"},
    "a path below": {"coreutils": f"{GOOD}/bin"},
    "a line more": {"coreutils": f"{GOOD}\n"},
    "no path": {"bash": ""},
    "a relative path": {"bash": GOOD.lstrip("/")},
    "a link's name": {"closure": [GOOD, "/nix/store/.links"]},
    "a pin of the host's": {"nixpkgs": {"default": "/root"}},
    "a pin with options": {"nixpkgs": {"default": f"{GOOD}:ro,x=/etc"}},
    "a pin whose name clears the screen": {"nixpkgs": {"\x1b[2J": GOOD}},
    "a Nix of the host's": {"nix": "/usr"},
    "another kind of machine": {"system": "x86_64-linux\n; rm"},
}


@pytest.mark.parametrize("change", BAD_RUNTIMES)
def test_a_runtime_that_names_anything_but_the_store_starts_nothing_and_is_said(
    bench: Bench, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = bench.root / "builds" / "runtime.json"
    content = path.read_bytes()
    path.write_bytes(msgspec.json.encode(json.loads(content) | BAD_RUNTIMES[change]))
    made: list[Runtime] = []
    sandbox = PlainSandbox()
    executor = Executor(bench.settings, lambda runtime: made.append(runtime) or sandbox)  # type: ignore[func-returns-value]
    bench.drop("waits")
    with caplog.at_level(logging.ERROR):
        executor.start()
        for _ in range(3):
            executor.step()
    executor.stop()
    assert (made, sandbox.jobs, bench.names("new")) == ([], [], {named("waits")})
    (said,) = [record for record in caplog.records if "no work is taken" in record.getMessage()]
    (key,) = BAD_RUNTIMES[change]
    assert f"$.{key}" in said.getMessage() or f"$.{key}" in str(vars(said))
    path.write_bytes(content)
    bench.wait_for("waits")


def test_of_a_runtime_that_says_where_the_store_or_a_python_is_nothing_is_taken(bench: Bench) -> None:
    path = bench.root / "builds" / "runtime.json"
    before = bench.builds.runtime.read()
    path.write_bytes(msgspec.json.encode(json.loads(path.read_bytes()) | {"store": "/", "python": "/tmp/static"}))
    assert bench.builds.runtime.read() == before
    assert not {"store", "python"} & set(Runtime.__struct_fields__)


@pytest.mark.parametrize(
    "change",
    [
        {"shell": "/etc"},
        {"shell": f"{GOOD}/enter.sh"},
        {"closure": [GOOD, "/nix/store/../../root"]},
        {"packages": [{"name": "x", "version": "1", "path": "/etc/shadow", "closure_size": 1}]},
    ],
)
def test_a_result_that_names_anything_but_the_store_is_none(bench: Bench, change: dict[str, object]) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    (build_id,) = bench.builds.finished()
    path = bench.root / "builds/done" / ids.response_name(build_id)
    record = json.loads(path.read_bytes())
    path.write_bytes(msgspec.json.encode(record | {"result": record["result"] | change}))
    before = len(bench.sandbox.jobs)
    bench.drop("second", expression="x")
    bench.executor.step()
    assert len(bench.sandbox.jobs) == before
    bench.until(lambda: bench.has("done", "second.response.json"), lambda: everyone(bench))
    assert bench.backend.built == [build_id, build_id]


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_result_of_a_build_is_set_aside_and_keeps_nobody_waiting(bench: Bench, kind: str) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    (build_id,) = bench.builds.finished()
    path = bench.root / "builds/done" / ids.response_name(build_id)
    content = path.read_bytes()
    path.unlink()
    ODD[kind](path, content)
    bench.drop("second", expression="x")
    bench.until(lambda: bench.has("done", "second.response.json"), lambda: everyone(bench))
    assert bench.response("second")["status"] == "COMPLETED"
    assert bench.backend.built == [build_id, build_id]
    kept = bench.root / "quarantine" / f"{build_id}@build.bytes"
    assert os.path.lexists(kept)
    assert kept.is_symlink() == (kind == "a link")


def test_a_result_that_names_another_build_is_none(bench: Bench, tmp_path: Path) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    (build_id,) = bench.builds.finished()
    path = bench.root / "builds/done" / ids.response_name(build_id)
    record = json.loads(path.read_bytes())
    elsewhere = tmp_path / "elsewhere"
    path.unlink()
    path.write_bytes(msgspec.json.encode(record | {"build_id": f"../../../{elsewhere.name}"}))
    bench.drop("second", expression="x")
    bench.until(lambda: bench.has("done", "second.response.json"), lambda: everyone(bench))
    assert bench.backend.built == [build_id, build_id]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(elsewhere.name)]


def test_a_use_is_noted_on_no_file_that_a_link_leads_to(bench: Bench, tmp_path: Path) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    (used,) = bench.names("builds/used")
    other = tmp_path / "other"
    other.write_bytes(b"")
    os.utime(other, (1, 1))
    (bench.root / "builds/used" / used).unlink()
    (bench.root / "builds/used" / used).symlink_to(other)
    bench.drop("second", expression="x")
    bench.wait_for("second")
    assert other.stat().st_mtime == 1
