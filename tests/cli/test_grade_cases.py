"""Cases in files, options about cases, and the requests that they make. Some are hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from spoold.cli.asked import why_refused
from spoold.cli.grading import cases, options, suite
from spoold.cli.grading.suite import Requests, Suite, case_names
from spoold.model.errors import ClientError

RUN = [{"name": "run.sh", "content": "cat"}]


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def found(root: Path, **keys: bool) -> list[str]:
    return [test.name for test in cases.find(str(root), **keys)]


def request(made: Requests, number: int = 0) -> Any:
    data = made.request(RUN, made.chunks[number], {})  # type: ignore[arg-type]  # a plain dictionary will do
    assert why_refused(data) == ""
    return json.loads(data)


def test_cases_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "10.in", "10.out", "2.in", "2.ans", "2.out", "b/1.in", "b/1.out", "note.txt", ".x.in", "3.out")
    tests = cases.find(str(tmp_path))
    assert [test.name for test in tests] == ["2", "3", "10", "b/1"]
    assert [os.path.basename(test.answer) for test in tests] == ["2.ans", "3.out", "10.out", "1.out"]
    assert (tests[1].input, tests[3].group) == ("", "b"), "a case without input needs no .in"
    assert not any(test.hidden for test in tests)


def test_what_is_no_sample_is_hidden_where_there_are_samples(tmp_path: Path) -> None:
    write(tmp_path, "sample/1.in", "sample/1.out", "secret/a/1.in", "secret/a/1.out", "2.in", "2.out")
    assert {test.name: test.hidden for test in cases.find(str(tmp_path))} == {
        "2": True,
        "sample/1": False,
        "secret/a/1": True,
    }


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, "1.in", "a/2.in", "3.in", "3.out")
    with pytest.raises(ClientError, match=r"1\.in has neither 1\.out nor 1\.ans beside it; a/2\.in has neither"):
        cases.find(str(tmp_path))
    assert found(tmp_path, needs_answers=False) == ["1", "3", "a/2"], "with a checker a case may need no answer"
    with pytest.raises(ClientError, match=r"there are no cases in it\. A case is N\.in"):
        cases.find(str(write(tmp_path / "other", "x.txt")))
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        cases.find(str(tmp_path / "missing"))


def test_links_that_go_round_and_files_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "round", "1.in", "1.out")
    (tmp_path / "round" / "again").symlink_to(".")
    with pytest.raises(ClientError, match="is a link to a directory that contains it"):
        cases.find(str(tmp_path / "round"))
    write(tmp_path / "linked", "1.in", "1.out")
    (tmp_path / "linked" / "a").symlink_to(tmp_path / "linked" / ".." / "shared")
    write(tmp_path / "shared", "2.in", "2.out")
    assert found(tmp_path / "linked") == ["1", "a/2"]
    write(tmp_path / "pipe", "1.out")
    os.mkfifo(tmp_path / "pipe" / "1.in")
    with pytest.raises(ClientError, match=r"1\.in is no regular file"):
        Requests(Suite(cases.find(str(tmp_path / "pipe"))))
    write(tmp_path / "gone", "1.out")
    (tmp_path / "gone" / "1.in").symlink_to("nowhere")
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        Requests(Suite(cases.find(str(tmp_path / "gone"))))
    deep = tmp_path / "deep"
    write(deep / "/".join("x" * 40), "1.in", "1.out")
    with pytest.raises(ClientError, match="32 directories deep"):
        cases.find(str(deep))


def test_names_that_are_hostile(tmp_path: Path) -> None:
    """Such names are shown escaped, and stay different from each other."""
    for name in (b"a\nb", b"\xff", b"\xfe", b"x" * 150, b"x" * 149 + b"y", b"\x1b[31m"):
        for end in (b".in", b".out"):
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + end)).write_bytes(name)
    made = Requests(Suite(cases.find(str(tmp_path))))
    names = [case["name"] for case in request(made)["cases"]]
    assert len(set(names)) == 6
    assert {"a\\nb", "\\\\xff", "\\x1b[31m"} & {name.replace("\\xff", "\\\\xff") for name in names}
    assert all(len(name) <= 100 and name.isprintable() for name in names)


def test_contents_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "1.in").write_bytes(b"\xff\x00\r\n")
    (tmp_path / "1.out").write_bytes("ü\n".encode())
    (case,) = request(Requests(Suite(cases.find(str(tmp_path)))))["cases"]
    assert (case["inputs"], case["inputs_encoding"]) == ("/wANCg==", "base64")
    assert case["expected"] == {"stdout": "ü\n", "encoding": "utf8"}


def test_much_is_several_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request takes as many cases as fit. Each case is in one request, in the right order."""
    monkeypatch.setattr(suite, "ROOM", 1000)
    for number in range(10):
        (tmp_path / f"{number}.in").write_text("x" * (300 if number != 5 else 3000))
        (tmp_path / f"{number}.out").write_text("")
    made = Requests(Suite(cases.find(str(tmp_path))))
    names = [[case["name"] for case in request(made, number)["cases"]] for number in range(len(made.chunks))]
    assert [name for chunk in names for name in chunk] == [str(number) for number in range(10)]
    assert ["5"] in names
    assert all(len(chunk) <= 3 for chunk in names)
    monkeypatch.setattr(suite, "MOST", 1)
    assert len(Requests(Suite(cases.find(str(tmp_path)))).chunks) == 10


def test_arguments_of_a_checker_are_the_requests(tmp_path: Path) -> None:
    tests = [cases.Test(f"{n}", checker_arguments=("a",) if n % 2 else ()) for n in range(4)]
    made = Requests(Suite(tests, checker={"files": RUN, "protocol": "kattis"}))
    assert [(request(made, n)["checker"]["args"], [c["name"] for c in request(made, n)["cases"]]) for n in (0, 1)] == [
        ([], ["0", "2"]),
        (["a"], ["1", "3"]),
    ]
    assert len(Requests(Suite(tests)).chunks) == 1


def test_keys_of_a_suite() -> None:
    tests = [cases.Test("a", "g", hidden=True, points=2.5, compare={"by": "exact"}, arguments=("x",))]
    made = request(Requests(Suite(tests, compare={"like": "kattis"}, stop="group", hide=True)))
    assert made["cases"] == [
        {"name": "a", "group": "g", "points": 2.5, "hidden": True, "compare": {"by": "exact"}, "args": ["x"]}
    ]
    assert (made["compare"], made["stop_on_failure"]) == ({"like": "kattis"}, "group")
    assert "hidden" not in request(Requests(Suite(tests)))["cases"][0], "a grader sees everything"


def test_case_names_are_different_whatever_they_are() -> None:
    assert case_names(["a", "a", ""]) == ["a", "a~1", ""]


# -- options


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ("tokens", {"by": "tokens"}),
        ("kattis, float=1e-6", {"like": "kattis", "float_absolute": 1e-6, "float_relative": 1e-6}),
        ("exact case_sensitive=no", {"by": "exact", "case_sensitive": False}),
        ("space_change_sensitive float_absolute=2", {"space_change_sensitive": True, "float_absolute": 2.0}),
    ],
)
def test_rules_of_comparing_in_short(words: str, rules: dict[str, Any]) -> None:
    assert options.compare(words) == rules


@pytest.mark.parametrize("words", ["fuzzy", "float=x", "case_sensitive=maybe", "float"])
def test_rules_that_are_wrong(words: str) -> None:
    with pytest.raises(click.UsageError, match="--compare"):
        options.compare(words)


def test_points_are_shared() -> None:
    tests = [cases.Test("1"), cases.Test("a/1", "a"), cases.Test("a/b/1", "a/b"), cases.Test("c/1", "c")]
    assert [test.points for test in options.with_points(tests, ["100"])] == [25] * 4
    assert [test.points for test in options.with_points(tests, ["a=3", "c=0"])] == [1, 1.5, 1.5, 0]
    for wrong in ("x", "-3", "z=3", "inf"):
        with pytest.raises(click.UsageError, match="--points"):
            options.with_points(tests, [wrong])
