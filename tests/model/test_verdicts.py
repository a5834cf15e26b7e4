"""Results of cases: a verdict for each by the end and the output of its program, and one for all together."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from spoold.model import arguments
from spoold.model.arguments import MAX_ARGUMENTS, WIRE_OVERHEAD
from spoold.model.cases import Case, StopOnFailure
from spoold.model.compare.rules import Compare, rules_for
from spoold.model.dropped import read_request
from spoold.model.errors import ClientError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.limits import Limits
from spoold.model.plan import plan_job
from spoold.model.response import CaseResult, Outcome, Phase, Score, Stream, Verdict, finished_phase
from spoold.model.submission import Request
from spoold.model.verdicts import judged, skipped, stops, summary

RULES = rules_for(Compare())


def ran(outcome: Outcome = Outcome.OK, code: int | None = 0, printed: bytes = b"", total: int | None = None) -> Phase:
    """Return a run with this end, of whose output ``printed`` was kept."""
    stdout = Stream(printed, len(printed) if total is None else total)
    return finished_phase(
        stdout=stdout,
        stderr=Stream(b"words\n", 6),
        time=0.1,
        outcome=outcome,
        exit_code=code,
        signal="" if code is not None and code < 128 else "SIGKILL",
        cpu_time=0.05,
        memory=1000,
    )


def case(**parts: Any) -> Case:
    return msgspec.convert({"name": "one"} | parts, Case)


def verdict(phase: Phase, **parts: Any) -> Verdict:
    return judged(case(**parts), RULES, phase).verdict


@pytest.mark.parametrize(
    ("outcome", "code", "found"),
    [
        (Outcome.OK, 0, Verdict.ACCEPTED),
        (Outcome.NONZERO_EXIT, 1, Verdict.RUNTIME_ERROR),
        (Outcome.SIGNALLED, None, Verdict.RUNTIME_ERROR),
        (Outcome.SIGNALLED, 139, Verdict.RUNTIME_ERROR),
        (Outcome.TIME_LIMIT, None, Verdict.TIME_LIMIT),
        (Outcome.CPU_LIMIT, 0, Verdict.TIME_LIMIT),
        (Outcome.MEMORY_LIMIT, 0, Verdict.MEMORY_LIMIT),
        (Outcome.OUTPUT_LIMIT, 0, Verdict.OUTPUT_LIMIT),
        (Outcome.FILE_LIMIT, 0, Verdict.OUTPUT_LIMIT),
        (Outcome.CANCELLED, None, Verdict.SKIPPED),
    ],
)
def test_how_it_ended_is_the_verdict_where_that_is_wrong(outcome: Outcome, code: int | None, found: Verdict) -> None:
    """This holds even if the output is right, and if nothing is expected."""
    assert verdict(ran(outcome, code, b"42\n"), expected={"stdout": "42\n"}) is found
    assert verdict(ran(outcome, code)) is found


@pytest.mark.parametrize(
    ("wanted", "outcome", "code", "found"),
    [
        (3, Outcome.NONZERO_EXIT, 3, Verdict.ACCEPTED),
        (139, Outcome.SIGNALLED, 139, Verdict.ACCEPTED),
        (0, Outcome.OK, 0, Verdict.ACCEPTED),
        (3, Outcome.OK, 0, Verdict.WRONG_ANSWER),
        (3, Outcome.NONZERO_EXIT, 4, Verdict.RUNTIME_ERROR),
        (3, Outcome.SIGNALLED, None, Verdict.RUNTIME_ERROR),
        (0, Outcome.NONZERO_EXIT, 1, Verdict.RUNTIME_ERROR),
        (0, Outcome.MEMORY_LIMIT, 0, Verdict.MEMORY_LIMIT),
    ],
)
def test_an_exit_code_that_is_expected(wanted: int, outcome: Outcome, code: int | None, found: Verdict) -> None:
    result = judged(case(expected={"exit_code": wanted}), RULES, ran(outcome, code))
    assert result.verdict is found
    assert (found in (Verdict.ACCEPTED, Verdict.MEMORY_LIMIT)) == (result.message is msgspec.UNSET)
    assert "None" not in str(result.message)


def test_what_is_printed_has_to_be_right_and_whole() -> None:
    right = {"stdout": "one\ntwo\n"}
    assert verdict(ran(printed=b"one  \ntwo"), expected=right) is Verdict.ACCEPTED
    wrong = judged(case(expected=right), RULES, ran(printed=b"one\n2\n"))
    assert wrong.verdict is Verdict.WRONG_ANSWER
    assert isinstance(wrong.difference, msgspec.Struct)
    assert (wrong.difference.line, wrong.difference.expected, wrong.difference.printed) == (2, "two", "2")
    assert verdict(ran(printed=b"one\ntwo\n", total=9), expected=right) is Verdict.OUTPUT_LIMIT
    assert verdict(ran(printed=b"one\ntwo\n", total=9)) is Verdict.OUTPUT_LIMIT
    assert verdict(ran(printed=b"\xff\0"), expected={"stdout": "/wA=", "encoding": "base64"}) is Verdict.ACCEPTED
    assert verdict(ran(Outcome.NONZERO_EXIT, 7, b"x"), expected={"stdout": "x", "exit_code": 7}) is Verdict.ACCEPTED
    assert verdict(ran(Outcome.NONZERO_EXIT, 7, b"y"), expected={"stdout": "x", "exit_code": 7}) is Verdict.WRONG_ANSWER


def test_points_are_given_for_what_is_accepted_only() -> None:
    assert judged(case(points=2.5), RULES, ran()).points == 2.5
    assert judged(case(points=2.5), RULES, ran(Outcome.NONZERO_EXIT, 1)).points == 0


def test_a_hidden_case_tells_nothing_that_depends_on_its_input() -> None:
    shown = judged(case(expected={"stdout": "x"}), RULES, ran(printed=b"secret"), ["a note"])
    assert (shown.message, shown.run.stdout, shown.run.stderr) == ("a note", "secret", "words\n")
    result = judged(
        case(hidden=True, expected={"stdout": "x", "exit_code": 1}), RULES, ran(printed=b"secret"), ["a note"]
    )
    assert json.loads(msgspec.json.encode(result)) == {
        "name": "one",
        "verdict": "wrong_answer",
        "points": 0.0,
        "run": {
            "stdout": "",
            "stderr": "",
            "time": 0.1,
            "signal": "",
            "outcome": "ok",
            "cpu_time": 0.05,
            "memory": 1000,
        },
    }


def results(*verdicts: Verdict) -> list[CaseResult]:
    return [
        CaseResult(name=str(n), verdict=each, points=float(each is Verdict.ACCEPTED), run=ran())
        for n, each in enumerate(verdicts)
    ]


GOOD, WRONG, NONE = Verdict.ACCEPTED, Verdict.WRONG_ANSWER, Verdict.SKIPPED
CASES = [case(name=str(n), group=group) for n, group in enumerate(["a", "", "a", "b", ""])]


@pytest.mark.parametrize(
    ("how", "before", "found"),
    [
        (False, [WRONG, WRONG], False),
        (True, [GOOD, GOOD], False),
        (True, [GOOD, WRONG], True),
        (True, [NONE, GOOD], False),
        ("group", [WRONG, GOOD], True),
        ("group", [GOOD, WRONG], False),
        ("group", [WRONG, GOOD, NONE], False),
        ("group", [GOOD, WRONG, GOOD, GOOD], True),
        ("group", [WRONG, GOOD, NONE, WRONG], False),
        (True, [], False),
    ],
)
def test_what_is_skipped_after_a_failure(how: StopOnFailure, before: list[Verdict], found: bool) -> None:
    assert stops(how, CASES, results(*before)) is found


def test_what_came_of_all_of_them() -> None:
    whole = summary(CASES, results(GOOD, WRONG, GOOD, Verdict.TIME_LIMIT, GOOD))
    assert (whole.verdict, whole.accepted, whole.of, whole.points, whole.of_points) == (WRONG, 3, 5, 3, 5)
    assert whole.groups == {
        "a": Score(verdict=GOOD, accepted=2, of=2, points=2, of_points=2),
        "b": Score(verdict=Verdict.TIME_LIMIT, accepted=0, of=1, points=0, of_points=1),
    }
    assert summary(CASES, results(GOOD, GOOD, GOOD, GOOD, GOOD)).verdict is GOOD
    early = summary(CASES, results(GOOD, GOOD))
    assert (early.verdict, early.accepted, early.of, early.of_points) == (NONE, 2, 5, 5)
    assert summary(CASES[:1], [skipped(CASES[0])]).verdict is NONE
    assert summary([case()], results(GOOD)).groups is msgspec.UNSET


# -- what a request may ask for

RUN = {"name": "run.sh", "content": ""}


def read(**keys: object) -> Request:
    data = json.dumps({"files": [RUN], **keys}).encode()
    return read_request(data, max_files=10, pins=frozenset({"default"}))


def test_cases_are_read_as_they_are_meant() -> None:
    request = read(
        cases=[
            {"name": "a", "inputs": None, "args": None, "env": [], "expected": {"stdout": "x", "exit_code": 3.0}},
            {"name": "b", "inputs": "", "points": 3, "limits": {"time": 2}, "compare": {"like": "kattis"}},
        ],
        compare={"by": "tokens", "float_absolute": 1},
        stop_on_failure="group",
        inputs="in",
        args=["x"],
        env={"A": "1", "B": "2"},
        limits={"run": {"time": 5, "memory": 1 << 60}},
    )
    assert [request.stdin_of(each) for each in request.cases] == [b"in", b""]
    assert request.stop_on_failure == "group"
    request = msgspec.structs.replace(
        request, cases=[*request.cases, case(name="c", env={"B": "3"}, args=[], limits={"memory": 1 << 61})]
    )
    build = BuildResult(phase=ran(), shell="/nix/store/" + "0" * 32 + "-x")
    job, notes = plan_job(Entry("x", 0, 1), request, Limits(), build=build, nixpkgs="", owner=0)
    assert [(each.name, each.stdin, each.args, job.of_case(each).env) for each in job.cases] == [
        ("a", b"in", ["x"], {"A": "1", "B": "2"}),
        ("b", b"", ["x"], {"A": "1", "B": "2"}),
        ("c", b"in", [], {"A": "1", "B": "3"}),
    ]
    most = Limits().run.maximum.memory
    assert [(each.limits.time, each.limits.memory) for each in job.cases] == [(5, most), (2, most), (5, most)]
    assert [note.partition(":")[0] for note in notes] == ["limits.run.memory", "cases[2].limits.memory"]
    assert job.longest == 5 + 2 + 5


def test_notes_on_many_limits_are_few() -> None:
    request = read(cases=[{"name": str(n), "limits": {"memory": 1 << 60}} for n in range(100)])
    build = BuildResult(phase=ran(), shell="/nix/store/" + "0" * 32 + "-x")
    _, notes = plan_job(Entry("x", 0, 1), request, Limits(), build=build, nixpkgs="", owner=0)
    assert len(notes) == 9
    assert notes[-1] == "cases: 92 more limits are above this host's maximum"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cases": [{}]}, "cases[0].name: is missing"),
        ({"cases": [{"name": ""}]}, "cases[0].name: is empty"),
        ({"cases": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "cases[2].name: 'a' is the name of cases[0] too"),
        ({"cases": [{"name": "a\nb"}]}, "cases[0].name: 'a\\nb': control characters are not allowed"),
        ({"cases": [{"name": "x" * 101}]}, "has more than 100 characters"),
        ({"cases": [{"name": "a", "group": "\u2028"}]}, "cases[0].group"),
        ({"cases": [{"name": "a", "stdin": ""}]}, "cases[0].stdin: there is no such key. Is inputs meant?"),
        ({"cases": [{"name": "a", "expected_output": ""}]}, "Is expected meant?"),
        ({"tests": [{"name": "a"}]}, "tests: there is no such key. Is cases meant?"),
        ({"cases": [{"name": "a", "expected": "x"}]}, "cases[0].expected ('a'): an object is needed, not a text"),
        ({"cases": [{"name": "a", "expected": {"exit_code": 256}}]}, "between 0 and 255"),
        (
            {"cases": [{"name": "a", "expected": {"stdout": "x", "encoding": "hex"}}]},
            "cases[0].expected.stdout ('a'): not hex",
        ),
        ({"cases": [{"name": "a", "inputs": "x", "inputs_encoding": "base64"}]}, "cases[0].inputs ('a'): not base64"),
        ({"cases": [{"name": "a", "points": -1}]}, "cases[0].points ('a'): has to be between 0 and 1e+09"),
        ({"cases": [{"name": "a", "env": {"A=": ""}}]}, "cases[0].env: 'A=' is not a name"),
        ({"cases": [{"name": "a", "args": ["\0"]}]}, "cases[0].args[0]: a NUL is not allowed"),
        ({"cases": [{"name": "a", "limits": {"time": 0}}]}, "cases[0].limits ('a').time: has to be more than 0"),
        ({"cases": [{"name": "a", "limits": {"run": {}}}]}, "there is no such key"),
        ({"cases": [{"name": "a", "compare": {"by": "words"}}]}, "there are lines, tokens, exact"),
        (
            {"cases": [{"name": "a", "compare": {"by": "exact", "space_change_sensitive": False}}]},
            "cases[0].compare.space",
        ),
        ({"cases": [{"name": "a"}], "compare": {"by": "exact", "space_change_sensitive": False}}, "compare.space"),
        (
            {"cases": [{"name": "a"}], "stop_on_failure": "all"},
            "stop_on_failure: there is no 'all'; there are true, false, group",
        ),
        ({"cases": [{"name": "a"}], "stop_on_failure": 1}, "true, false or group is needed, not a number"),
        ({"stop_on_failure": True}, "stop_on_failure: there are no cases to judge"),
        ({"compare": {}}, "compare: there are no cases to judge"),
        (
            {"cases": [{"name": str(n)} for n in range(1025)]},
            "cases: 1025 cases are more than the 1024 that are allowed",
        ),
        ({"cases": [{"name": str(n), "args": [""] * 17} for n in range(1000)]}, "cases: 17000 entries of args"),
        (
            {"kind": "list-dependencies", "files": [], "cases": [{"name": "a"}]},
            "cases: a list-dependencies request has none",
        ),
    ],
)
def test_what_cannot_be_asked_for(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**keys)
    assert words in str(caught.value)


def test_what_all_cases_have_of_the_request_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise 15 MiB of inputs would be 15 GiB in an executor, and a large environment would cost intake seconds."""
    counted: list[str] = []
    real = arguments._checked_string

    def count(text: str, where: str) -> int:
        counted.append(where)
        return real(text, where)

    monkeypatch.setattr(arguments, "_checked_string", count)
    env = {f"N{n}": "x" for n in range(100)}
    many = [{"name": str(n), "env": {"N1": "y"}} for n in range(100)]
    request = read(cases=many, inputs="in", args=["a"] * 100, env=env)
    assert len(counted) < 1000
    build = BuildResult(phase=ran(), shell="/nix/store/" + "0" * 32 + "-x")
    job, _ = plan_job(Entry("x", 0, 1), request, Limits(), build=build, nixpkgs="", owner=0)
    assert all(each.stdin is job.stdin and each.args is job.args and len(each.env) == 1 for each in job.cases)
    assert job.of_case(job.cases[0]).env == env | {"N1": "y"}


@pytest.mark.parametrize(
    ("case_", "words"),
    [
        ({"env": {"A": "x" * 64}}, ""),
        ({"env": {"A": "x" * 65}}, "cases[0].args, env: 1048577 bytes together are more than 1048576"),
        ({"args": ["x"]}, "cases[0].args, env: 1048577 bytes"),
        ({"args": [""]}, ""),
        ({"env": {"B": ""}}, "cases[0].args, env: "),
        ({"env": {str(n): "" for n in range(4097)}}, "cases[0].env: 4098 entries are more than 4096"),
    ],
)
def test_a_case_counts_with_what_it_has_of_the_request(case_: dict[str, object], words: str) -> None:
    """The request's arguments and environment are the most that a program can get, if A is 64 bytes longer."""
    env = {"A": ""}
    args = ["x" * 100_000] * 10
    args.append("x" * (MAX_ARGUMENTS - 12 * WIRE_OVERHEAD - 1_000_000 - len("A=") - 64))
    if "args" in case_:  # one more argument, which counts 64 bytes more than it has
        case_ = case_ | {"args": [*args, *case_["args"]]}  # type: ignore[misc]
    keys = {"cases": [{"name": "a"} | case_], "args": args, "env": env}
    if not words:
        assert read(**keys)
        return
    with pytest.raises(ClientError) as caught:
        read(**keys)
    assert words in str(caught.value)


def test_the_largest_request_with_cases_is_read() -> None:
    many = [
        {
            "name": str(n),
            "args": ["a"] * 16,
            "env": {f"N{k}": "" for k in range(16)},
            "limits": {"time": 1, "memory": 2},
        }
        for n in range(1024)
    ]
    assert len(read(cases=many).cases) == 1024
