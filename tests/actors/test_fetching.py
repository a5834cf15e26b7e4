"""Submissions that wait for a build show the builder's downloads, and caches that fail."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import pytest

from spoold.actors.builder import Builder
from spoold.model.response import Fetching
from tests.actors.bench import Bench
from tests.standins import PlainBackend

SHOWN = {"paths": 1, "all_paths": 2, "bytes": 10, "all_bytes": 30}


def fetching(bench: Bench, id_: str) -> object:
    """Return what a waiting submission's owner sees of the fetch."""
    with contextlib.suppress(FileNotFoundError):  # the side file may vanish at any time
        shown = json.loads((bench.root / "progress" / f"{id_}.json").read_bytes())
        return shown.get("waiting_for", {}).get("fetching")
    return None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.actors.executor.building.FETCHING", 0.0)
    monkeypatch.setattr("spoold.actors.executor.building.SELDOM", 0.0)


@pytest.mark.usefixtures("quick")
def test_how_much_is_fetched_is_shown(bench: Bench, tmp_path: Path) -> None:
    for id_ in ("a", "b"):
        bench.drop(id_, expression=f"fetches {tmp_path}/go-on")
    bench.until(lambda: fetching(bench, "a") == fetching(bench, "b") == SHOWN)
    assert json.loads((bench.root / "builds/fetching.json").read_bytes()) | {"format": 0} == {
        "format": 0,
        "builds": {bench.backend.built[0]: SHOWN},
    }
    (tmp_path / "go-on").touch()
    bench.wait_for("a", "b")
    assert not bench.has("builds", "fetching.json")


def test_what_cannot_be_read_of_it_is_left(bench: Bench, tmp_path: Path) -> None:
    bench.drop("a", expression=f"fetches {tmp_path}/go-on")
    bench.until(lambda: bench.has("builds", "fetching.json"))
    (bench.root / "builds/fetching.json").write_bytes(b"{")
    bench.step()
    (tmp_path / "go-on").touch()
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_a_file_that_cannot_be_written_fails_no_build(bench: Bench, tmp_path: Path) -> None:
    (bench.root / "builds/fetching.json").mkdir()
    (tmp_path / "go-on").touch()
    bench.drop("a", expression=f"fetches {tmp_path}/go-on")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_what_a_builder_left_is_forgotten_by_the_next(bench: Bench) -> None:
    bench.builds.fetching.tell("0" * 64, Fetching(paths=0, all_paths=1, bytes=0, all_bytes=1))
    assert bench.has("builds", "fetching.json")
    builder = Builder(bench.settings, PlainBackend())
    builder.start()
    builder.stop()
    assert not bench.has("builds", "fetching.json")


def test_a_cache_that_fails_is_given_more_time_and_is_never_the_clients_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 1000.0)
    monkeypatch.setattr("spoold.actors.builder.work.CACHE_BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)
    bench.backend.cache_failures = 2
    bench.drop("a", expression="first")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"

    bench.backend.cache_failures = 3
    bench.drop("b", expression="second")
    bench.wait_for("b")
    response = bench.response("b")
    assert response["status"] == "INTERNAL_ERROR"
    assert "a binary cache is away" in response["dependencies"]["stderr"]


def test_hosts_are_taken_over_by_a_builder_that_runs(bench: Bench) -> None:
    nix = msgspec.structs.replace(bench.settings.nix, fetch=["github.com"])
    bench.builder.apply_settings(msgspec.structs.replace(bench.settings, nix=nix))
    assert bench.backend.settings is not None
    assert bench.backend.settings.nix.fetch == ["github.com"]
