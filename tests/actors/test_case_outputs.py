"""Files of cases, from the dropped file to the response and the tar beside it, with a stand-in for the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.host.spill import Spill
from spoold.model.limits import Limits, OutputLimits
from tests.actors.bench import Bench, settings_for
from tests.actors.test_cancel import PATIENT, ask, be_patient
from tests.actors.test_outputs import members

SCRIPT = 'mkdir out; printf %s "$1" >out/word; test "$1" != fail || exit 3'


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a spool whose responses hold ten bytes of files, and eight files at most."""
    made = Bench(tmp_path, settings_for(tmp_path, limits=Limits(outputs=OutputLimits(inline=10, files=8, total=100))))
    yield made
    made.close()


def cases(*words: str, **more: Any) -> list[dict[str, Any]]:
    """Return cases with these words as names. Each leaves a file with its word in it."""
    return [{"name": word, "args": [word], **more} for word in words]


def run(bench: Bench, *wanted: dict[str, Any], script: str = SCRIPT, **keys: Any) -> dict[str, Any]:
    bench.drop("a", script, cases=list(wanted), **keys)
    bench.wait_for("a")
    return bench.response("a")


def files(response: dict[str, Any]) -> list[dict[str, str] | None]:
    """Return each case's files by name: the content, "-" for a file without content, None for a case without files."""
    return [
        {file["name"]: file.get("content", "-") for file in case["outputs"]} if "outputs" in case else None
        for case in response["cases"]
    ]


OUT = [{"path": "out/*"}]


def test_files_of_each_case_stand_in_what_came_of_it(bench: Bench) -> None:
    response = run(bench, *cases("one", "fail"), *cases("none", outputs=[]), outputs=OUT)
    assert files(response) == [{"out/word": "one"}, {"out/word": "fail"}, None]
    assert [case["verdict"] for case in response["cases"]] == ["accepted", "runtime_error", "accepted"]
    file = response["cases"][0]["outputs"][0]
    assert (file["size"], file["mode"], file["encoding"]) == (3, "0644", "utf8")
    assert not {"outputs", "outputs_missing", "outputs_tar"} & response.keys()


def test_a_case_asks_by_patterns_of_its_own_and_is_told_what_is_missing(bench: Bench) -> None:
    own = [{"path": "none", "required": True}, {"path": "run.sh"}]
    response = run(bench, *cases("one"), *cases("two", outputs=own), script="echo x>f", outputs=[{"path": "f"}])
    assert files(response) == [{"f": "x\n"}, {"run.sh": "echo x>f"}]
    assert [case.get("outputs_missing") for case in response["cases"]] == [None, ["none"]]
    assert [case["verdict"] for case in response["cases"]] == ["accepted"] * 2, "no verdict depends on files"
    assert response["status"] == "COMPLETED"


def test_nothing_comes_back_of_a_hidden_case(bench: Bench) -> None:
    required = [{"path": "out/*"}, {"path": "none", "required": True}]
    response = run(bench, *cases("seen"), *cases("secret", hidden=True), *cases("shown"), outputs=required)
    assert files(response) == [{"out/word": "seen"}, None, {"out/word": "shown"}]
    assert not {"outputs_missing", "message"} & response["cases"][1].keys()


def test_contents_are_in_the_response_as_long_as_there_is_room_for_all_cases(bench: Bench) -> None:
    response = run(bench, *cases("12345", "123456", "1234", "../x"), outputs=OUT)
    assert files(response) == [{"out/word": "12345"}, {"out/word": "-"}, {"out/word": "1234"}, {"out/word": "-"}]
    found = {name: data for name, (data, _) in members(bench, "a").items()}
    assert found == {
        "12345/out/word": b"12345",
        "123456/out/word": b"123456",
        "1234/out/word": b"1234",
        "%2E.%2Fx/out/word": b"../x",
    }
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    assert bench.names("done") == {"a.json", "a.response.json", "a.outputs.tar"}


def test_cases_take_what_those_before_them_left(bench: Bench) -> None:
    many = 'for n in $(seq "$1"); do echo x >f$n; done'
    response = run(bench, *cases("3", "4", "5", "0"), script=many, outputs=[{"path": "f*", "required": True}])
    assert [len(each or ()) for each in files(response)] == [3, 4, 1, 0]
    assert response["cases"][2]["message"] == "run.outputs: 4 left out"
    assert [case.get("outputs_missing") for case in response["cases"]] == [None, None, None, ["f*"]]
    assert [case["verdict"] for case in response["cases"]] == ["accepted"] * 4


def test_files_come_back_whatever_a_checker_finds(bench: Bench) -> None:
    check = {"name": "run.sh", "content": 'test "$(cat judge/output)" = good && exit 42; echo x >feedback/f; exit 43'}
    response = run(
        bench,
        *cases("good", "bad"),
        script='echo "$1"; echo "$1" >word',
        outputs=[{"path": "word"}, {"path": "feedback/*"}],
        checker={"files": [check]},
    )
    assert [case["verdict"] for case in response["cases"]] == ["accepted", "wrong_answer"]
    assert files(response) == [{"word": "good\n"}, {"word": "bad\n"}]


def test_a_case_that_is_skipped_has_no_files(bench: Bench) -> None:
    response = run(bench, *cases("fail", "next"), outputs=[{"path": "x", "required": True}], stop_on_failure=True)
    assert files(response) == [{}, None]
    assert "outputs_missing" not in response["cases"][1]


def test_of_a_cancelled_submission_no_files_of_any_case_come_back(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    began = tmp_path / "began"
    script = f'echo x >x; test "$1" != b || {{ touch {began}; sleep 600; }}'
    bench.drop("a", script, cases=cases("a", "b"), outputs=[{"path": "x"}], limits=PATIENT)
    bench.until(began.exists)
    ask(bench, "a")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    response = bench.response("a")
    assert (response["status"], files(response)) == ("CANCELLED", [None, None])
    assert [case["verdict"] for case in response["cases"]] == ["accepted", "skipped"]


def test_who_looks_on_the_way_is_shown_no_files(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f'echo x >x; test "$1" != b || until test -e {go}; do sleep 0.01; done'
    bench.drop("a", script, cases=cases("a", "b"), outputs=[{"path": "x"}], limits=PATIENT)
    side = bench.root / "progress" / "a.json"
    bench.until(lambda: side.exists() and b'"accepted"' in side.read_bytes())
    assert b"outputs" not in side.read_bytes()
    go.touch()
    bench.wait_for("a")
    assert files(bench.response("a")) == [{"x": "x\n"}] * 2


def test_what_came_back_is_closed_when_it_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, forgotten = set[Spill](), set[Spill]()
    add, close = Spill.add, Spill.close

    def add_and_note(spill: Spill, data: bytes) -> None:
        kept.add(spill)
        add(spill, data)

    def close_and_note(spill: Spill) -> None:
        forgotten.add(spill)
        close(spill)

    monkeypatch.setattr(Spill, "add", add_and_note)
    monkeypatch.setattr(Spill, "close", close_and_note)
    run(bench, *cases("one", "two"), outputs=OUT)
    assert len(kept) == 1, "all cases share one place"
    bench.until(lambda: kept <= forgotten, lambda: None)
