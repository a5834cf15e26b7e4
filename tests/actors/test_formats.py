"""Files of a newer version of spoold are left alone and logged once. The newer version goes on with them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.actors.builder import Builder
from spoold.actors.executor.pace import LOOKS
from spoold.actors.health import Health
from spoold.actors.intake import Intake
from spoold.model.collection import Order, Rules
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored
from spoold.model.ids import CANCEL, Entry
from spoold.model.job import Runtime
from spoold.model.retention import Rules as Retention
from spoold.model.states import State
from spoold.model.submission import Dependencies, Submission
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.queue import Queue
from spoold.spool.store import Spool
from spoold.upkeep import check as checking
from spoold.upkeep.check import Check
from spoold.upkeep.repair import repair as carry_out
from spoold.upkeep.requeue import requeue
from spoold.upkeep.unexplained import Action
from tests.actors.bench import Bench, settings_for
from tests.names import mine, named, result_named
from tests.standins import store_path

NEWER = max(kind.NEWEST for kind in Stored.__subclasses__()) + 1
OLD = (1.0, 1.0)
BUILD = "0" * 64


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, gc=Rules(interval=0, max_age=1000, min_free=0)))
    yield made
    made.close()


@pytest.fixture(params=["adds keys", "is another"])
def unlike(request: pytest.FixtureRequest) -> bool:
    """Tell whether a newer format shares nothing with ours but the number."""
    return bool(request.param == "is another")


def make_newer(path: Path, *, unlike: bool = False) -> bytes:
    """Turn the object at ``path`` into one of a newer version, with the same mtime. Return its bytes."""
    status = path.stat()
    found = json.loads(path.read_bytes())
    made = {"format": NEWER, "body": "x"} if unlike else _with_more(found) | {"format": NEWER}
    path.write_text(json.dumps(made))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return path.read_bytes()


def _with_more(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_more(part) for key, part in value.items()} | {"later": 1}
    return [_with_more(part) for part in value] if isinstance(value, list) else value


def be_newer(monkeypatch: pytest.MonkeyPatch, *kinds: type[Stored]) -> None:
    """Act as the version that knows the newer format."""
    for kind in kinds or (Submission,):
        monkeypatch.setattr(kind, "NEWEST", NEWER)


def restart(bench: Bench) -> None:
    bench.executor.stop()
    bench.executor = bench.new_executor()


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the log lines about newer formats."""
    return [record.__dict__["fields"] for record in caplog.records if "newer version" in record.getMessage()]


def note_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """Record the arguments of each later call of a method, which still does its work."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, noting)
    return calls


def assert_untouched(bench: Bench, path: str, data: bytes) -> None:
    assert (bench.root / path).read_bytes() == data, bench.picture()
    assert not bench.names("quarantine")


def hold(bench: Bench, id_: str, attempt: int) -> Path:
    """Leave a submission as held by a worker that died long ago."""
    bench.drop(id_)
    path = bench.root / "running" / named(id_, attempt)
    (bench.root / "new" / named(id_)).rename(path)
    os.utime(path, OLD)
    return path


def step_health(bench: Bench) -> None:
    """Let health look at held and old entries for longer than it needs to find their holders dead."""
    began = time.monotonic()
    bench.until(lambda: time.monotonic() - began > 6 * bench.settings.lease.renewal, bench.health.step)
    bench.health.step()


# -- executor


def test_an_entry_of_a_newer_intake_stays_and_others_go_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = LOOKS + 5  # more than one step looks at
    for number in range(many):
        bench.drop(f"newer-{number}")
        make_newer(bench.root / "new" / named(f"newer-{number}"))
    bench.drop("ours")
    bench.wait_for("ours")
    for _ in range(5):
        bench.step()
    bench.drop("newer-again")  # this kind has been logged already
    make_newer(bench.root / "new" / named("newer-again"))
    bench.drop("ours-too")
    bench.wait_for("ours-too")
    assert bench.names("new") == {named("newer-again"), *(named(f"newer-{number}") for number in range(many))}
    assert not bench.names("quarantine")
    assert [(each["format"], each["files"]) for each in said(caplog)] == [(NEWER, many)]

    be_newer(monkeypatch)
    restart(bench)
    bench.wait_for("newer-again", *(f"newer-{number}" for number in range(many)))
    assert bench.response("newer-0")["status"] == "COMPLETED"
    bench.assert_nothing_is_left()


def test_a_newer_entry_is_looked_at_once_and_again_when_it_is_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unlike: bool
) -> None:
    bench.drop("a")
    entry = bench.root / "new" / named("a")
    ours = entry.read_bytes()
    newer = make_newer(entry, unlike=unlike)
    looks = note_calls(monkeypatch, Spool, "read")
    for _ in range(20):
        bench.step()
    assert looks == [("new", mine("a"))]
    assert_untouched(bench, f"new/{named('a')}", newer)
    entry.unlink()
    bench.step()
    entry.write_bytes(ours)
    bench.wait_for("a")


def test_a_newer_entry_that_waits_for_its_build_stays(
    bench: Bench, caplog: pytest.LogCaptureFixture, unlike: bool
) -> None:
    bench.backend.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.names("building"))
    newer = make_newer(bench.root / "building" / named("a"), unlike=unlike)
    restart(bench)
    bench.backend.gate.set()
    bench.drop("b")
    bench.wait_for("b")
    for _ in range(5):
        bench.step()
    assert_untouched(bench, f"building/{named('a')}", newer)
    assert len(said(caplog)) == 1


def test_what_turns_out_to_be_newer_after_the_claim_goes_back_with_the_same_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = note_calls(monkeypatch, Queue, "give_back")
    decoded = Spool.decoded

    def find_newer(spool: Spool, data: bytes, state: State, entry: Entry) -> Submission:
        if state is State.RUNNING and not given_back:
            raise NewerFormatError(spool.queue.entry_path(state, entry), NEWER, NEWER - 1)
        return decoded(spool, data, state, entry)

    monkeypatch.setattr(Spool, "decoded", find_newer)
    bench.drop("a")
    bench.wait_for("a")
    assert given_back == [(mine("a"), "running", 1)]
    assert bench.response("a")["status"] == "COMPLETED"
    assert len(bench.sandbox.jobs) == 1
    assert not bench.names("quarantine")
    bench.until(lambda: said(caplog))


def test_a_newer_runtime_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture, unlike: bool) -> None:
    ours = (bench.root / "builds" / "runtime.json").read_bytes()
    make_newer(bench.root / "builds" / "runtime.json", unlike=unlike)
    bench.builds.pins.set({"added": "/srv/nixpkgs-added"})
    restart(bench)
    bench.intake = Intake(bench.settings)
    bench.drop("a")
    bench.drop("b", nixpkgs="added")  # this intake cannot tell that the pin is missing
    for _ in range(5):
        bench.executor.step()
        bench.health.step()
    assert bench.names("new") == {named("a"), named("b")}
    assert len([each for each in said(caplog) if "error" in each]) == 1
    assert not bench.names("done") | bench.names("quarantine")
    (bench.root / "builds" / "runtime.json").write_bytes(ours)
    bench.wait_for("a")


# -- what a newer builder made


def built_by_a_newer(bench: Bench, expression: str, *, unlike: bool) -> tuple[str, bytes]:
    """Build an environment and turn its result into a newer builder's. Return its id and its bytes."""
    before = {*bench.builds.finished()}
    bench.drop(f"first-{len(before)}", expression=expression)
    bench.wait_for(f"first-{len(before)}")
    bench.assert_nothing_is_left()
    (build_id,) = {*bench.builds.finished()} - before
    return build_id, make_newer(Path(bench.builds.result_path(build_id)), unlike=unlike)


@pytest.mark.parametrize("expression", ["good", "broken"])
def test_a_newer_result_is_neither_set_aside_nor_forgotten(bench: Bench, expression: str, unlike: bool) -> None:
    build_id, newer = built_by_a_newer(bench, expression, unlike=unlike)
    quick = settings_for(bench.root, gc=bench.settings.gc)
    health = Health(quick)
    bench.backend.lost = {store_path(f"{build_id[:8]}-shell")}
    for _ in range(3):
        health.step()
    Builder(bench.settings, bench.backend).start()
    assert_untouched(bench, f"builds/done/{build_id}.response.json", newer)
    assert bench.has("builds/done", f"{build_id}.json")


def test_a_submission_waits_for_a_newer_result(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_id, _ = built_by_a_newer(bench, "x", unlike=False)
    bench.drop("a", expression="x")
    bench.until(lambda: bench.names("building"))
    restart(bench)
    for _ in range(5):
        bench.step()
    os.utime(bench.root / "building" / named("a"), OLD)
    step_health(bench)
    assert bench.names("building") == {named("a")}
    assert not bench.names("builds/new") | bench.names("builds/building") | bench.names("quarantine")
    assert bench.backend.built == [build_id]
    assert {Path(each["directory"]).name for each in said(caplog)} == {"done"}
    assert len(said(caplog)) <= 3, "one line each from the two executors and health"

    be_newer(monkeypatch, BuildRecord)
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    assert bench.backend.built == [build_id]


def test_a_list_says_what_it_does_not_name(bench: Bench) -> None:
    built_by_a_newer(bench, "x", unlike=True)
    bench.drop("ours", expression="y")
    bench.wait_for("ours")
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.wait_for("list")
    assert len(bench.response("list")["packages"]) == 1
    assert "newer version" in bench.response("list")["notes"][0]


def test_a_collection_keeps_what_a_newer_version_built(bench: Bench, unlike: bool) -> None:
    build_id, newer = built_by_a_newer(bench, "x", unlike=unlike)
    for note in (bench.root / "builds" / "used").iterdir():
        os.utime(note, OLD)
    bench.builds.orders.file("test", Order())
    bench.until(lambda: bench.builds.orders.report("test"), bench.builder.step)
    report = bench.builds.orders.report("test")
    assert report is not None
    assert (report.error, report.deleted) == ("", [])
    assert build_id in bench.backend.rooted
    assert_untouched(bench, f"builds/done/{build_id}.response.json", newer)


@pytest.mark.parametrize("state", ["new", "building", "running"])
def test_a_collection_deletes_nothing_that_a_newer_submission_may_need(bench: Bench, state: str) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    for note in (bench.root / "builds" / "used").iterdir():
        os.utime(note, OLD)
    bench.drop("a", expression="x")
    path = bench.root / state / named("a")
    (bench.root / "new" / named("a")).rename(path)
    make_newer(path, unlike=True)
    bench.builds.orders.file("test", Order())
    bench.until(lambda: bench.builds.orders.report("test"), bench.builder.step)
    report = bench.builds.orders.report("test")
    assert report is not None
    assert "newer version" in report.error
    assert len(bench.builds.finished()) == 1


# -- builder


def test_a_build_that_a_newer_executor_filed_stays(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, unlike: bool
) -> None:
    wanted = Dependencies(build_id=BUILD, expression="x", nixpkgs=store_path("nixpkgs"))
    assert bench.builds.request(wanted)
    filed = bench.root / "builds" / "new" / f"{BUILD}.json"
    newer = make_newer(filed, unlike=unlike)
    claims, looks = note_calls(monkeypatch, Queue, "claim"), note_calls(monkeypatch, BuildStore, "newer")
    bench.drop("ours")
    bench.wait_for("ours")
    for _ in range(5):
        bench.builder.step()
    bench.until(lambda: said(caplog), bench.builder.step)
    assert Entry(BUILD, 1) not in {call[0] for call in claims}
    assert [call[1] for call in looks].count(Entry(BUILD, 1)) == 1
    assert_untouched(bench, f"builds/new/{BUILD}.json", newer)
    assert [each["files"] for each in said(caplog)] == [1]
    if not unlike:
        be_newer(monkeypatch, Dependencies)
        bench.builder.stop()
        bench.builder = Builder(bench.settings, bench.backend)
        bench.builder.start()
        bench.until(lambda: bench.builds.result(BUILD), bench.builder.step)


def test_a_build_that_turns_out_to_be_newer_after_the_claim_goes_back_with_the_same_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BuildStore, "newer", lambda *_: None)
    wanted = Dependencies(build_id=BUILD, expression="x", nixpkgs=store_path("nixpkgs"))
    assert bench.builds.request(wanted)
    newer = make_newer(bench.root / "builds" / "new" / f"{BUILD}.json")
    bench.until(lambda: said(caplog), bench.builder.step)
    bench.until(lambda: bench.has("builds/new", f"{BUILD}.json"), bench.builder.step)
    assert_untouched(bench, f"builds/new/{BUILD}.json", newer)
    assert not bench.backend.built


def test_an_order_of_a_newer_version_stays(bench: Bench, caplog: pytest.LogCaptureFixture, unlike: bool) -> None:
    settings = settings_for(bench.root, gc=Rules(interval=0.01))
    health = Health(settings)
    health.step()
    bench.until(lambda: bench.builds.orders.is_filed("scheduled"), health.step)
    path = bench.root / "builds" / "collect" / "scheduled.json"
    newer = make_newer(path, unlike=unlike)
    bench.builds.orders.file("test", Order(dry_run=True))
    bench.until(lambda: bench.builds.orders.report("test"), bench.builder.step)
    for _ in range(3):
        health.step()
        bench.builder.step()
    assert_untouched(bench, "builds/collect/scheduled.json", newer)
    bench.until(lambda: said(caplog), bench.builder.step)
    assert len(said(caplog)) == 1


def test_the_runtime_is_written_anew_only_where_it_says_something_else(bench: Bench) -> None:
    path = bench.root / "builds" / "runtime.json"
    first = path.stat().st_ino
    Builder(bench.settings, bench.backend).start()
    assert path.stat().st_ino == first
    old = json.loads(path.read_bytes())
    del old["format"]
    path.write_text(json.dumps(old | {"python": "/nix/store/python"}))
    Builder(bench.settings, bench.backend).start()
    assert json.loads(path.read_bytes())["format"] == Runtime.NEWEST


# -- health


def test_a_dead_newer_entry_is_put_back(bench: Bench, unlike: bool) -> None:
    newer = make_newer(hold(bench, "a", 1), unlike=unlike)
    bench.until(lambda: bench.names("new"), bench.health.step)
    assert bench.names("new") == {named("a", 2)}
    assert_untouched(bench, f"new/{named('a', 2)}", newer)


def test_a_newer_entry_is_not_ended_after_its_last_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, unlike: bool
) -> None:
    newer = make_newer(hold(bench, "a", 3), unlike=unlike)
    hold(bench, "ours", 3)
    bench.until(lambda: bench.has("done", "ours.response.json"), bench.health.step)
    step_health(bench)
    assert (bench.root / "running" / named("a", 3)).read_bytes() == newer
    assert not bench.has("quarantine", "a.bytes")
    assert len(said(caplog)) == 1
    if not unlike:
        be_newer(monkeypatch)
        bench.until(lambda: bench.has("done", "a.response.json"), bench.health.step)
        assert bench.response("a")["status"] == "INTERNAL_ERROR"


def test_an_executor_ends_no_newer_entry_that_it_held_in_its_former_life(bench: Bench, unlike: bool) -> None:
    notes = bench.root / "tmp" / "executor-default.held"
    newer = make_newer(hold(bench, "a", 3), unlike=unlike)
    make_newer(hold(bench, "b", 1), unlike=unlike)
    bench.executor.stop()
    for name in (named("a", 3), named("b")):
        (notes / name).touch()
    bench.executor = bench.new_executor()
    assert_untouched(bench, f"running/{named('a', 3)}", newer)
    assert bench.names("running") == {named("a", 3)}
    assert bench.names("new") == {named("b", 2)}


def test_a_newer_entry_that_is_cancelled_is_not_past_its_last_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry belongs to intake. An executor's next life must treat it as health does."""
    newer = make_newer(hold(bench, "a", CANCEL))
    bench.executor.stop()
    (bench.root / "tmp" / "executor-default.held" / named("a", CANCEL)).touch()
    bench.executor = bench.new_executor()
    step_health(bench)
    bench.executor._newer.tell()
    assert_untouched(bench, f"running/{named('a', CANCEL)}", newer)
    assert said(caplog) == []


def test_a_newer_entry_in_building_is_not_taken_for_one_that_cannot_be_read(bench: Bench, unlike: bool) -> None:
    bench.drop("a")
    path = bench.root / "building" / named("a")
    (bench.root / "new" / named("a")).rename(path)
    newer = make_newer(path, unlike=unlike)
    os.utime(path, OLD)
    step_health(bench)
    assert_untouched(bench, f"building/{named('a')}", newer)


def test_nobody_gives_a_newer_entry_up(bench: Bench, unlike: bool) -> None:
    bench.drop("a")
    newer = make_newer(bench.root / "new" / named("a"), unlike=unlike)
    with pytest.raises(NewerFormatError):
        bench.spool.give_up(mine("a"), State.NEW, "a reason")
    assert_untouched(bench, f"new/{named('a')}", newer)


def test_a_newer_entry_that_is_committed_is_published(bench: Bench, unlike: bool) -> None:
    """Publication does not read the entry."""
    bench.drop("a")
    entry = bench.root / "done" / "a.json"
    (bench.root / "new" / named("a")).rename(entry)
    make_newer(entry, unlike=unlike)
    (bench.root / "tmp" / result_named("a")).write_text('{"Submission_id": "a"}\n')
    bench.health.step()
    assert json.loads((bench.root / "done" / "a.response.json").read_bytes()) == {"Submission_id": "a"}


def test_retention_takes_a_newer_entry_by_its_age(tmp_path: Path, unlike: bool) -> None:
    retention = Retention(max_age=100, min_age=0, interval=0.001)
    bench = Bench(tmp_path, settings_for(tmp_path, retention=retention))
    try:
        bench.drop("a")
        bench.wait_for("a")
        bench.assert_nothing_is_left()
        make_newer(tmp_path / "done" / "a.json", unlike=unlike)
        for path in (tmp_path / "done").iterdir():
            os.utime(path, OLD)
        bench.until(lambda: not bench.names("done"), bench.health.step)
        assert not bench.names("quarantine")
    finally:
        bench.close()


def test_who_used_what_a_newer_version_built_is_kept(bench: Bench, unlike: bool) -> None:
    build_id, _ = built_by_a_newer(bench, "x", unlike=unlike)
    (bench.root / "builds" / "used" / f"{'1' * 64}@7").touch()
    notes = bench.names("builds/used")
    for note in notes:
        os.utime(bench.root / "builds" / "used" / note, OLD)
    bench.until(lambda: bench.names("builds/used") != notes, bench.health.step)
    assert {note.partition("@")[0] for note in bench.names("builds/used")} == {build_id}


# -- intake


@pytest.mark.parametrize("state", ["new", "building", "running"])
def test_the_wish_to_cancel_a_newer_entry_waits(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, state: str, unlike: bool
) -> None:
    bench.drop("a")
    path = bench.root / state / named("a")
    (bench.root / "new" / named("a")).rename(path)
    newer = make_newer(path, unlike=unlike)
    (bench.root / "incoming" / "a.cancel").write_text("a")
    bench.drop("ours")
    began = time.monotonic()
    bench.until(lambda: time.monotonic() - began > 3 * bench.settings.spool.settle, bench.intake.step)
    assert bench.names("incoming") == {"a.cancel"}
    assert bench.has("new", named("ours")), "others are taken in"
    assert_untouched(bench, f"{state}/{path.name}", newer)
    assert len(said(caplog)) == 1
    if not unlike:
        be_newer(monkeypatch)
        bench.until(lambda: not bench.names("incoming"), bench.intake.step)
        assert bench.response("a")["status"] == "CANCELLED"


def test_a_newer_entry_that_is_done_cannot_be_cancelled(bench: Bench, unlike: bool) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    make_newer(bench.root / "done" / "a.json", unlike=unlike)
    (bench.root / "incoming" / "a.cancel").write_text("a")
    bench.until(lambda: not bench.names("incoming"), bench.intake.step)
    assert bench.response("a")["status"] == "COMPLETED"


def test_what_a_newer_intake_began_to_cancel_is_its_to_end(
    bench: Bench, caplog: pytest.LogCaptureFixture, unlike: bool
) -> None:
    newer = make_newer(hold(bench, "a", CANCEL), unlike=unlike)
    intake = Intake(bench.settings)
    intake.start()
    intake.step()
    step_health(bench)
    assert_untouched(bench, f"running/{named('a', CANCEL)}", newer)
    assert len(said(caplog)) == 1


@pytest.mark.parametrize("script", ["echo hi", "echo other"])
def test_a_file_whose_id_a_newer_entry_has_waits(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, script: str, unlike: bool
) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    make_newer(bench.root / "done" / "a.json", unlike=unlike)
    for _ in range(3):
        bench.drop("a", script)
    bench.drop_bytes("b", b"[]")
    assert bench.names("incoming") == {"a.json"}
    assert bench.names("done") == {"a.json", "a.response.json", "b.json", "b.response.json"}
    assert len(said(caplog)) == 1
    if not unlike:
        be_newer(monkeypatch)
        bench.intake.step()
        assert not bench.names("incoming")
        assert len([name for name in bench.names("done") if "refused" in name]) == (script != "echo hi")


# -- the operator


def newer_everywhere(bench: Bench, *, unlike: bool) -> dict[str, bytes]:
    """Put a newer object into each place where spoold stores objects."""
    bench.drop("a")
    submission = (bench.root / "new" / named("a")).read_bytes()
    runtime = (bench.root / "builds" / "runtime.json").read_bytes()
    wanted = json.dumps({"build_id": BUILD, "content of cutor.nix": "x", "nixpkgs": "y"}).encode()
    bench.builds.orders.file("test", Order())
    order = (bench.root / "builds" / "collect" / "test.json").read_bytes()
    bench.builds.pins.answer({}, "")
    places = {
        f"new/{named('a')}": submission,
        f"building/{named('a')}": submission,
        # the later attempt of the same submission counts, but this version cannot tell that
        f"running/{named('a', 2)}": submission,
        "done/unanswered.json": submission,
        f"builds/new/{BUILD}.json": wanted,
        f"builds/building/{BUILD}@1.json": wanted,
        f"builds/done/{BUILD}.json": wanted,  # has no result
        f"builds/done/{'1' * 64}.response.json": b"{}",
        "builds/runtime.json": runtime,
        "builds/collect/test.json": order,
        "builds/collect/test.result.json": b"{}",
        "builds/pins.json.result.json": b"{}",
    }
    for place, data in places.items():
        (bench.root / place).write_bytes(data)
        places[place] = make_newer(bench.root / place, unlike=unlike)
        os.utime(bench.root / place, OLD)
    return places


def test_the_check_names_what_is_newer_and_a_repair_leaves_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unlike: bool
) -> None:
    monkeypatch.setattr(checking, "SECOND_LOOK", 0.01)
    places = newer_everywhere(bench, unlike=unlike)
    check = Check(bench.settings, "test")
    found = check.unexplained()
    assert {each.path: each.action for each in found} == dict.fromkeys(places, Action.LEAVE)
    assert {each.why for each in found} == {f"of a newer version of spoold (format {NEWER}): upgrade this version"}
    for each in found:
        carry_out(check.spool, each)
    for place, data in places.items():
        assert_untouched(bench, place, data)


def test_health_says_of_each_directory_once_that_something_there_is_newer(
    bench: Bench, caplog: pytest.LogCaptureFixture, unlike: bool
) -> None:
    places = newer_everywhere(bench, unlike=unlike)
    wanted = sorted({os.path.dirname(place) for place in places})

    def told() -> list[str]:
        return sorted(os.path.relpath(each["directory"], bench.root) for each in said(caplog))

    bench.health.start()
    bench.until(lambda: len(told()) >= len(wanted), bench.health.step)  # a look may take several steps
    for _ in range(3):
        bench.health.step()
    assert told() == wanted
    assert not [record for record in caplog.records if "no state explains" in record.getMessage()]


def test_a_newer_entry_cannot_be_requeued(bench: Bench, unlike: bool) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()
    newer = make_newer(bench.root / "done" / "a.json", unlike=unlike)
    with pytest.raises(NewerFormatError, match=r"newer version of spoold.* upgrade"):
        requeue(bench.spool, "a")
    assert_untouched(bench, "done/a.json", newer)
    assert bench.names("done") == {"a.json", "a.response.json"}


# -- damage


def test_what_cannot_be_read_at_a_known_format_is_damaged(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        for id_, data in (
            ("a", b'{"format": 2, "Submission_id": 1}'),
            ("b", b'{"format": 1}'),
            ("c", b'{"Submission_id": "\xff"}'),
        ):
            (tmp_path / "new" / named(id_)).write_bytes(data)
        bench.wait_for("a", "b", "c")
        assert {bench.response(id_)["status"] for id_ in "abc"} == {"INTERNAL_ERROR"}
        assert bench.names("quarantine") == {
            f"{id_}@{os.getuid()}-1.{kind}" for id_ in "abc" for kind in ("bytes", "reason")
        }
    finally:
        bench.close()
