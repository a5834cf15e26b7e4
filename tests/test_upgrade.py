"""Objects of an earlier version are used further or replaced, and none of them is lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.host import fsops
from spoold.model.ids import Entry, parse_entry
from spoold.spool import layout
from spoold.upkeep.check import Check
from spoold.upkeep.requeue import requeue
from tests import frozen
from tests.actors.bench import Bench, settings_for


def test_a_frozen_spool_is_explained(tmp_path: Path) -> None:
    root = frozen.spool(tmp_path / "spool")
    layout.create(str(root))  # makes the directories of later versions
    layout.check(str(root))
    assert Check(settings_for(root), "test").unexplained() == []


# The status that each submission of the frozen spool gets. Answers that exist already keep every byte.
OUTCOMES = {
    "again": "COMPLETED",  # taken in, while the client's file still lies in incoming/
    "cancelling": "CANCELLED",  # taken by intake, and not answered
    "committed": "COMPLETED",  # its result is in tmp/
    "dropped": "COMPLETED",
    "first": "COMPLETED",
    "list": "COMPLETED",
    "queued": "COMPLETED",
    "queued-too": "COMPLETED",  # with a pin that was added
    "runs": "COMPLETED",  # by an executor that died
    "second": "COMPLETED",  # its second attempt
    "tried-build": "COMPLETED",  # its build has its second attempt
    # its build had a builder that died; its cancel does not name the id, so it has no effect any more
    "waits": "COMPLETED",
    "wrote": "COMPLETED",  # has a result that was not committed
}
RUN_AGAIN = OUTCOMES.keys() - {"cancelling", "committed", "list"}


def test_a_frozen_spool_goes_on_to_its_end(tmp_path: Path) -> None:
    root = frozen.spool(tmp_path / "spool")
    answered = {path.name: path.read_bytes() for path in (root / "done").glob("*.response.json")}
    answered |= {path.name: path.read_bytes() for path in (root / "done").glob("*.refused.json")}
    set_aside = {path.name: path.read_bytes() for path in (root / "quarantine").iterdir()}
    for lock in (root / "tmp").glob("*.lock"):
        lock.unlink()  # a daemon leaves the lock, and no actor of this test makes one
    committed = (root / "tmp" / "committed@1.response.json").read_bytes()
    bench = Bench(root, settings_for(root))
    for directory in ("running", "builds/building"):
        bench.let_leases_run_out(directory)
    try:
        for actor in (bench.intake, bench.health):
            actor.start()

        def step() -> None:
            bench.intake.step()
            bench.step()
            bench.health.step()

        bench.until(lambda: all(bench.has("done", f"{id_}.response.json") for id_ in OUTCOMES), step)
        bench.until(lambda: bench.builds.orders.report("by-hand-4e5f6071"), step)
        bench.until(lambda: not bench.names("builds/new") | bench.names("builds/building"), step)
        bench.assert_nothing_is_left()
        assert {id_: bench.response(id_)["status"] for id_ in OUTCOMES} == OUTCOMES
        assert (root / "done" / "committed.response.json").read_bytes() == committed
        assert {name: (root / "done" / name).read_bytes() for name in answered} == answered
        assert {path.name: path.read_bytes() for path in (root / "quarantine").iterdir()} == set_aside
        names = {name.removesuffix(".response.json") for name in bench.names("done") if name.endswith(".response.json")}
        assert names == OUTCOMES.keys() | {name.removesuffix(".response.json") for name in answered if "@" not in name}
        assert sorted(job.submission_id for job in bench.sandbox.jobs) == sorted(RUN_AGAIN), "each once"
        assert len(bench.backend.built) == len(set(bench.backend.built)) == 4, "no environment is built twice"
        assert len(bench.builds.packages(None)) == 1
        assert bench.builds.pins.added() == {"24.11": "/srv/nixpkgs-24.11"}
        runtime = bench.builds.runtime.read()
        assert runtime is not None
        assert runtime.format == runtime.NEWEST
        assert set(runtime.nixpkgs) == {"default", "24.11"}
    finally:
        bench.close()


# Where each submission of the frozen spool is that has no answer. These names come from a version that knew no owners.
OLD_NAMES = {
    "again": "new/again.json",
    "first": "new/first.json",
    "list": "new/list.json",
    "queued": "building/queued@1.json",
    "queued-too": "building/queued-too@1.json",
    "runs": "new/runs@2.json",  # its executor puts it back at its start
    "second": "new/second@2.json",
    "tried-build": "building/tried-build@1.json",
    "waits": "building/waits@1.json",
    "wrote": "running/wrote@1.json",
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(frozen.spool(tmp_path / "spool"))
    made.intake.start()
    yield made
    made.close()


def places(bench: Bench) -> dict[str, str]:
    """Return the path of each submission that has no answer yet."""
    found = (f"{state}/{name}" for state in ("new", "building", "running") for name in bench.names(state))
    return {os.path.basename(path).removesuffix(".json").partition("@")[0]: path for path in found}


def test_what_has_a_name_of_before_is_found_by_its_id(bench: Bench) -> None:
    """The same submission under its id counts as taken in. Another one under its id is refused."""
    assert places(bench) == OLD_NAMES
    assert {id_: os.readlink(bench.root / "ids" / id_) for id_ in bench.names("ids")} == dict.fromkeys(OLD_NAMES, "-")
    assert {id_: bench.spool.queue.locate(id_) for id_ in OLD_NAMES} == {
        id_: (path.partition("/")[0], parse_entry(os.path.basename(path))) for id_, path in OLD_NAMES.items()
    }
    assert bench.has("incoming", "again.json")
    for id_ in ("first", "queued", "wrote"):
        bench.drop(id_, "echo other")
    assert [name for name in bench.names("incoming") if name.endswith(".json")] == []
    assert places(bench) == OLD_NAMES | {"dropped": f"new/dropped@{frozen.CLIENT[0]}-1.json"}
    refused = {name.partition("@")[0] for name in bench.names("done") if name.endswith(".refused.json")}
    assert refused == {"answered", "first", "queued", "wrote"}


@pytest.mark.parametrize("id_", ["first", "queued", "wrote"])
def test_what_has_a_name_of_before_is_cancelled_under_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, id_: str
) -> None:
    moved: list[str] = []
    move = fsops.move

    def noting(source: str, target: str) -> bool:
        moved.append(os.path.relpath(target, bench.root))
        return move(source, target)

    monkeypatch.setattr(fsops, "move", noting)
    wish = bench.root / "incoming" / f"{id_}.cancel"
    wish.write_text(id_)
    os.chown(wish, *frozen.CLIENT)
    bench.until(lambda: bench.has("done", f"{id_}.response.json"), bench.intake.step)
    assert bench.response(id_)["status"] == "CANCELLED"
    assert moved == [f"running/{id_}@9999.json", f"done/{id_}.json"]
    assert id_ not in bench.names("ids")


def test_what_has_a_name_of_before_keeps_it_where_it_is_put_back(bench: Bench) -> None:
    bench.let_leases_run_out("running")
    bench.until(lambda: "wrote" in places(bench) and places(bench)["wrote"] == "new/wrote@2.json", bench.health.step)
    assert bench.spool.queue.locate("wrote") == ("new", Entry("wrote", 2))
    bench.until(lambda: bench.has("done", "wrote.response.json"))
    assert bench.response("wrote")["status"] == "COMPLETED"


def test_a_frozen_answer_may_be_taken_back_and_given_anew(tmp_path: Path) -> None:
    bench = Bench(frozen.spool(tmp_path / "spool"))
    try:
        before = bench.response("answered")
        requeue(bench.spool, "answered")
        assert f"answered@{frozen.CLIENT[0]}-1.json" in bench.names("new"), "its second life has a name of today"
        bench.wait_for("answered")
        after = bench.response("answered")
        assert before["run"]["stdout"] == after["run"]["stdout"] == "20 22\nfast a\nhi\n"
        assert before["status"] == after["status"] == "COMPLETED"
    finally:
        bench.close()


@pytest.mark.parametrize("group", [None, os.getegid()])
def test_a_frozen_nix_state_is_laid_out(tmp_path: Path, group: int | None) -> None:
    state = frozen.nix_state(tmp_path / "state", group=group)
    store = state / "nix/nix/store"
    assert stat.S_IMODE(store.stat().st_mode) == (0o711 if group is None else 0o1771)
    programs = state / "nix/nix/var/nix/gcroots/spoold/runtime"
    assert {"python3", "bash", "coreutils"} <= {link.name for link in programs.iterdir()}
    assert all(os.readlink(link).startswith("/nix/store/") for link in programs.iterdir())
