"""The meaning of a checker's end in each protocol."""

from __future__ import annotations

import json

import msgspec
import pytest

from spoold.model.cases import Case, Protocol
from spoold.model.checkers import arguments_for, files_for, judgement, not_compiled, why_lost
from spoold.model.dropped import read_request
from spoold.model.errors import ClientError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, JobResult
from spoold.model.limits import Limits
from spoold.model.plan import builds_of, plan_job
from spoold.model.response import SKIPPED_PHASE, CaseResult, Outcome, Phase, Stream, Verdict, finished_phase
from spoold.model.submission import Request
from spoold.model.verdicts import Judgement, checked
from tests.standins import PlainBackend

RIGHT, WRONG, PART, ERROR = Verdict.ACCEPTED, Verdict.WRONG_ANSWER, Verdict.PARTIAL, Verdict.JUDGE_ERROR


def ended(code: int | None, stdout: str = "", stderr: str = "", outcome: Outcome | None = None, more: int = 0) -> Phase:
    """Return the run of a checker with this end, which printed ``more`` bytes than were kept."""
    streams = [Stream(text.encode(), len(text) + more) for text in (stdout, stderr)]
    chosen = outcome or (Outcome.OK if code == 0 else Outcome.NONZERO_EXIT)
    return finished_phase(stdout=streams[0], stderr=streams[1], time=0.1, outcome=chosen, exit_code=code)


@pytest.mark.parametrize(
    ("protocol", "run", "verdict", "points", "words"),
    [
        ("kattis", ended(42, "x", "y"), RIGHT, None, ""),
        ("kattis", ended(43), WRONG, None, ""),
        ("kattis", ended(0), ERROR, None, "checker: it ended with 0"),
        ("kattis", ended(1, stderr="a\nTraceback: x\n"), ERROR, None, "it ended with 1; its last words: Traceback: x"),
        ("kattis", ended(42, outcome=Outcome.TIME_LIMIT), ERROR, None, "it ended with time_limit"),
        ("kattis", ended(None, outcome=Outcome.SIGNALLED), ERROR, None, "it ended with signalled"),
        ("kattis", ended(42, more=1), ERROR, None, "more than its output limit"),
        ("testlib", ended(0, stderr="ok 3 numbers\n"), RIGHT, None, "ok 3 numbers"),
        ("testlib", ended(1, stderr="wrong answer 1st words differ"), WRONG, None, "wrong answer 1st words differ"),
        ("testlib", ended(2), WRONG, None, ""),
        ("testlib", ended(4), WRONG, None, ""),
        ("testlib", ended(8), WRONG, None, ""),
        ("testlib", ended(3, stderr="FAIL no answer"), ERROR, None, "it ended with 3; its last words: FAIL no answer"),
        ("testlib", ended(7, stderr="points 2.5 half"), PART, 2.5, "points 2.5 half"),
        ("testlib", ended(7, stderr="points 10"), RIGHT, None, ""),
        ("testlib", ended(7, stderr="points 99"), RIGHT, None, ""),
        ("testlib", ended(7, stderr="points 0"), WRONG, None, ""),
        ("testlib", ended(7, stderr="points -3"), WRONG, None, ""),
        ("testlib", ended(7, stderr="nothing"), ERROR, None, "it ended with 7"),
        ("testlib", ended(7, stderr="points 1e999"), ERROR, None, "its points are not a number"),
        ("testlib", ended(7, stderr="points 1-e"), ERROR, None, "its points are not a number"),
        ("testlib", ended(50), WRONG, None, ""),
        ("testlib", ended(150), PART, 5.0, ""),
        ("testlib", ended(250), RIGHT, None, ""),
        ("testlib", ended(251), ERROR, None, "it ended with 251"),
        ("testlib", ended(16), ERROR, None, "it ended with 16"),
        ("cms", ended(0, "1.0\n", "translate:success\n"), RIGHT, None, "success"),
        ("cms", ended(0, "0.0\n", "wrong\nmore\n"), WRONG, None, "wrong"),
        ("cms", ended(0, "0.25", "some"), PART, 2.5, "some"),
        ("cms", ended(0, "2\n"), ERROR, None, "not a number from 0 to 1"),
        ("cms", ended(0, "nan\n"), ERROR, None, "not a number from 0 to 1"),
        ("cms", ended(0, ""), ERROR, None, "not a number from 0 to 1"),
        ("cms", ended(1, "1.0\n"), ERROR, None, "it ended with 1"),
    ],
)
def test_what_the_end_of_a_checker_means(
    protocol: Protocol, run: Phase, verdict: Verdict, points: float | None, words: str
) -> None:
    found = judgement(protocol, run, 10.0)
    assert (found.verdict, found.points) == (verdict, points)
    assert words in found.message


@pytest.mark.parametrize(
    ("protocol", "run", "verdict"),
    [
        ("testlib", ended(50), WRONG),
        ("testlib", ended(51), PART),
        ("testlib", ended(250), RIGHT),
        ("testlib", ended(7, stderr="points 0"), WRONG),
        ("cms", ended(0, "0.0\n"), WRONG),
        ("cms", ended(0, "0.5\n"), PART),
        ("cms", ended(0, "1.0\n"), RIGHT),
    ],
)
def test_what_is_wrong_is_so_where_a_case_is_worth_no_points(protocol: Protocol, run: Phase, verdict: Verdict) -> None:
    assert judgement(protocol, run, 0.0).verdict is verdict


def test_a_checker_may_speak_in_another_character_set() -> None:
    """testlib's messages are sometimes in a character set of the 1990s. The points in them count all the same."""
    stderr = Stream("points 2.5 \u043e\u043a".encode("cp1251"), 13)
    run = finished_phase(
        stdout=Stream(b"0.5\n\xff", 5), stderr=stderr, time=0.1, outcome=Outcome.NONZERO_EXIT, exit_code=7
    )
    assert judgement("testlib", run, 10.0) == Judgement(PART, 2.5, "points 2.5 \ufffd\ufffd")
    run = msgspec.structs.replace(run, exit_code=0, outcome=Outcome.OK)
    assert judgement("cms", run, 10.0) == Judgement(PART, 5.0, "points 2.5 \ufffd\ufffd")
    assert judgement("kattis", run, 10.0).message.endswith("its last words: points 2.5 \ufffd\ufffd")


@pytest.mark.parametrize(
    ("feedback", "code", "verdict", "points", "words"),
    [
        ({"score.txt": b"2.5\n"}, 42, PART, 2.5, ""),
        ({"score.txt": b"10"}, 42, RIGHT, None, ""),
        ({"score.txt": b"0"}, 42, WRONG, None, ""),
        ({"score.txt": b"x"}, 42, ERROR, None, "feedback/score.txt is not a number"),
        ({"score_multiplier.txt": b"0.25"}, 42, PART, 2.5, ""),
        ({"score_multiplier.txt": b"\xff"}, 42, ERROR, None, "is not a number"),
        ({"score.txt": b"5"}, 43, WRONG, None, ""),
        ({"judgemessage.txt": b"line 3\nis wrong", "teammessage.txt": b"no"}, 43, WRONG, None, "line 3 is wrong"),
        ({"judgemessage.txt": b"\n", "teammessage.txt": b"no"}, 42, RIGHT, None, "no"),
        ({"judgemessage.txt": b"x", "score.txt": b"1"}, 1, ERROR, None, "it ended with 1"),
        *(({"score.txt": odd}, 42, ERROR, None, "is not a number") for odd in (b"1_0", "\u0661".encode(), b"0x1", b"")),
        *(({"score.txt": odd}, 42, ERROR, None, "is not a number") for odd in (b"nan", b"inf", b"1e999", b"1 2", b"-")),
        *(({"score.txt": fine}, 42, PART, 2.5, "") for fine in (b"+2.5", b" 25e-1\r\n", b"2.50000")),
    ],
)
def test_what_a_kattis_checker_leaves(
    feedback: dict[str, bytes], code: int, verdict: Verdict, points: float | None, words: str
) -> None:
    named = {f"feedback/{name}": content for name, content in feedback.items()}
    found = judgement("kattis", ended(code), 10.0, named)
    assert (found.verdict, found.points) == (verdict, points)
    assert words in found.message


def test_long_words_are_cut_to_one_line() -> None:
    found = judgement("testlib", ended(1, stderr="a\n" * 5000), 1.0)
    assert len(found.message) == 1003
    assert "\n" not in found.message


def test_a_checker_that_is_not_compiled_says_why() -> None:
    result = JobResult(compile=ended(1, stderr="x.c:1: error\n"), run=SKIPPED_PHASE, notes=["a note"])
    assert not_compiled(result) == Judgement(
        ERROR, message="checker: its compile.sh ended with nonzero_exit: a note; its last words: x.c:1: error"
    )


OLD_TRACE = """\
error: undefined variable 'gc'

       at cutor.nix:1:55:

            1| { pkgs ? import <nixpkgs> {} }: pkgs.mkShell { a = gc; }
             |                                                     ^
"""
NEW_TRACE = """\
error:
       … while calling the 'derivationStrict' builtin
         at <nix/derivation-internal.nix>:37:12:

       error: undefined variable 'gc'
       at cutor.nix:1:55:
            1| { pkgs ? import <nixpkgs> {} }: pkgs.mkShell { a = gc; }
             |                                                     ^
"""


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (OLD_TRACE, ": error: undefined variable 'gc' at cutor.nix:1:55"),
        (NEW_TRACE, ": error: undefined variable 'gc' at cutor.nix:1:55"),
        (
            "error: syntax error, unexpected end of file\n       at cutor.nix:1:1:\n",
            ": error: syntax error, unexpected end of file at cutor.nix:1:1",
        ),
        (
            "error: builder for '/nix/store/a.drv' failed with exit code 1\nerror: 1 dependencies failed to build\n",
            ": error: builder for '/nix/store/a.drv' failed with exit code 1",
        ),
        ("error: no network\nspoold: use a fetcher\n", ": error: no network; spoold: use a fetcher"),
        ("fetching\nspoold: it took too long\n", ": spoold: it took too long"),
        ("", ""),
    ],
)
def test_a_checker_that_cannot_be_built_says_why(stderr: str, words: str) -> None:
    """The last line that Nix prints of an error is its place in the expression, or an excerpt of that."""
    failed = BuildResult(phase=Phase(stderr=stderr, outcome=Outcome.NONZERO_EXIT))
    assert why_lost(failed) == f"checker: its dependencies cannot be installed (nonzero_exit){words}"


@pytest.mark.parametrize(
    ("found", "points"),
    [(Judgement(RIGHT), 4), (Judgement(PART, 1.5), 1.5), (Judgement(WRONG), 0), (Judgement(ERROR), 0)],
)
def test_points_are_what_the_checker_gave(found: Judgement, points: float) -> None:
    so_far = CaseResult(name="a", verdict=RIGHT, points=4, run=ended(0), message="a note")
    result = checked(Case(name="a", points=4), so_far, found._replace(message="words"))
    assert (result.verdict, result.points, result.message) == (found.verdict, points, "words; a note")
    assert checked(Case(name="a", hidden=True), so_far, found._replace(message="words")).message is msgspec.UNSET


def test_what_a_checker_is_given() -> None:
    files = {file.name: file.content for file in files_for(b"in", b"answer", b"out")}
    assert files == {"judge/input": b"in", "judge/answer": b"answer", "judge/output": b"out", "feedback/": b""}
    assert arguments_for("kattis", ["-x"]) == ["judge/input", "judge/answer", "feedback/", "-x"]
    assert arguments_for("testlib", []) == ["judge/input", "judge/output", "judge/answer"]
    assert arguments_for("cms", []) == ["judge/input", "judge/answer", "judge/output"]


# -- what a request may ask for

RUN = {"name": "run.sh", "content": ""}
CASES = [{"name": "a"}]


def read(max_files: int = 5, **keys: object) -> Request:
    data = json.dumps({"files": [RUN], **keys}).encode()
    return read_request(data, max_files=max_files, pins=frozenset({"default"}))


def test_a_checker_has_a_build_of_its_own_and_limits() -> None:
    shell = {"name": "cutor.nix", "content": "{ }: 1"}
    checker = {"files": [RUN, {"name": "./compile.sh", "content": ""}, shell], "limits": {"run": {"time": 3}}}
    request = read(cases=CASES, checker=checker)
    assert request.checker
    assert request.checker.protocol == "kattis"
    runtime = PlainBackend().prepare({"default": "/srv/nixpkgs"})
    one, other = builds_of(request, runtime).values()
    assert (one == request.expression(), other) == (True, "{ }: 1")
    assert len(builds_of(read(cases=CASES, checker={"files": [RUN]}), runtime)) == 1
    build = BuildResult(phase=ended(0), shell="/nix/store/" + "0" * 32 + "-x", closure=[])
    theirs = BuildResult(phase=ended(0), shell="/nix/store/" + "1" * 32 + "-y", closure=[])
    job, _ = plan_job(Entry("x", 0, 1), request, Limits(), build=build, checker=theirs, nixpkgs="", owner=7)
    assert job.checker
    assert (job.shell, job.checker.shell, job.checker.owner) == (build.shell, theirs.shell, 7)
    assert job.checker.compile
    assert [file.name for file in job.checker.files] == ["run.sh", "compile.sh", "cutor.nix"]
    assert job.longest == Limits().run.default.time + 3 + Limits().compile.default.time
    failed = BuildResult(phase=ended(1))
    assert (
        plan_job(Entry("x", 0, 1), request, Limits(), build=build, checker=failed, nixpkgs="", owner=7)[0].checker
        is None
    )


def test_what_is_asked_of_a_checkers_build_is_noted_by_its_own_key() -> None:
    """The build's limits have their own key in notes.

    Both builds share the submission's own limits.dependencies.time.
    """
    asked = {"dependencies": {"time": 1, "memory": 2 << 20}}
    request = read(cases=CASES, checker={"files": [RUN], "limits": asked}, limits=asked)
    build = BuildResult(phase=ended(0), shell="/nix/store/" + "0" * 32 + "-x", closure=[])
    _, notes = plan_job(Entry("x", 0, 1), request, Limits(), build=build, checker=build, nixpkgs="", owner=7)
    assert [note.partition(":")[0] for note in notes] == [
        "limits.dependencies.memory",
        "checker.limits.dependencies.time",
        "checker.limits.dependencies.memory",
    ]


@pytest.mark.parametrize("name", ["steam-bwrap", "tool-fhs", "tool-fhsenv-rootfs", "old-chrootenv"])
def test_an_fhs_environment_is_noted(name: str) -> None:
    paths = [f"/nix/store/{'0' * 32}-{each}" for each in ("bash-5", name)]
    build = BuildResult(phase=ended(0), shell=paths[0], closure=paths)
    _, notes = plan_job(Entry("x", 0, 1), read(cases=CASES), Limits(), build=build, nixpkgs="", owner=7)
    assert [note.partition(" is of")[0] for note in notes] == [f"cutor.nix: {name}"]
    plain = msgspec.structs.replace(build, closure=paths[:1])
    assert not plan_job(Entry("x", 0, 1), read(cases=CASES), Limits(), build=plain, nixpkgs="", owner=7)[1]


@pytest.mark.parametrize(
    ("code", "feedback", "verdict", "words"),
    [
        (42, {}, ERROR, "cannot be read, so nobody knows the points: 1 left out"),
        (42, {"feedback/score.txt": b"2"}, PART, "1 left out"),
        (42, {"feedback/score.txt": b"2", "feedback/judgemessage.txt": b"well"}, PART, "well"),
        (43, {}, WRONG, "1 left out"),
        (1, {}, ERROR, "it ended with 1"),
    ],
)
def test_points_that_cannot_be_read_are_not_all_points(
    code: int, feedback: dict[str, bytes], verdict: Verdict, words: str
) -> None:
    found = judgement("kattis", ended(code), 10.0, feedback, lost=["1 left out"])
    assert found.verdict is verdict
    assert words in found.message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"checker": {"files": [RUN]}}, "checker: there are no cases to judge"),
        ({"cases": CASES, "checker": {}}, "checker.files: there is no run.sh"),
        ({"cases": CASES, "checker": {"files": [RUN, RUN]}}, "checker.files[1].name: 'run.sh' is the same file"),
        (
            {"cases": CASES, "checker": {"files": [RUN, {"name": "Judge/x", "content": ""}]}},
            "checker.files[1].name: 'Judge/x'",
        ),
        (
            {"cases": CASES, "checker": {"files": [RUN, {"name": "feedback", "content": ""}]}},
            "judge and feedback are given",
        ),
        ({"cases": CASES, "checker": {"files": [RUN], "protocol": "x"}}, "there are kattis, testlib, cms"),
        ({"cases": CASES, "checker": {"files": [RUN], "args": ["\0"]}}, "checker.args[0]: a NUL"),
        ({"cases": CASES, "checker": {"files": [RUN], "compare": {}}}, "there is no such key"),
        ({"cases": CASES, "checker": {"files": [RUN]}, "compare": {}}, "compare: the checker decides"),
        (
            {"cases": [*CASES, {"name": "b", "compare": {}}], "checker": {"files": [RUN]}},
            "cases[1].compare: the checker decides",
        ),
        (
            {"cases": CASES, "checker": {"files": [RUN, *({"name": f"{n}", "content": ""} for n in range(4))]}},
            "checker.files: 5 files are more than the 4",
        ),
        ({"cases": CASES, "checker": {"files": [{"name": "run.sh"}]}}, "checker.files[0].content"),
        ({"interactor": {"files": [RUN]}}, "interactor: there are no cases to judge"),
        (
            {"cases": CASES, "interactor": {"files": [RUN]}, "checker": {"files": [RUN]}},
            "interactor: there is a checker",
        ),
        ({"cases": CASES, "interactor": {"files": []}}, "interactor.files: there is no run.sh"),
        ({"cases": CASES, "interactor": {"files": [RUN], "protocol": "cms"}}, "interactor.protocol: there is no 'cms'"),
        (
            {"cases": CASES, "interactor": {"files": [RUN, {"name": "judge/x", "content": ""}]}},
            "interactor.files[1].name: 'judge/x': judge and feedback are given to the interactor",
        ),
        ({"cases": CASES, "interactor": {"files": [RUN]}, "compare": {}}, "compare: the interactor decides"),
        ({"cases": CASES, "interactive": {"files": [RUN]}}, "Is interactor meant?"),
        ({"cases": CASES, "validator": {"files": [RUN]}}, "Is checker meant?"),
    ],
)
def test_what_cannot_be_asked_of_a_checker(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**keys)  # type: ignore[arg-type]
    assert words in str(caught.value)
