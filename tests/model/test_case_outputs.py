"""Files of cases: what a request may ask for, what each case may return, and its directory in the tar."""

from __future__ import annotations

import itertools
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.model.errors import ClientError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Job
from spoold.model.limits import Limits, OutputLimits
from spoold.model.outputs import Left, Output, Wanted, directories, told
from spoold.model.plan import plan_job
from spoold.model.response import SKIPPED_PHASE
from spoold.model.submission import Request
from tests.model.test_verdicts import read
from tests.returned import made

PNG, LOG = {"path": "*.png"}, {"path": "./*.log", "required": True}


def planned(request: Request) -> Job:
    build = BuildResult(phase=SKIPPED_PHASE, shell="/nix/store/" + "0" * 32 + "-x")
    limits = Limits(outputs=OutputLimits(files=5, file_size=10, total=20))
    job, _ = plan_job(Entry("x", 0, 1), request, limits, build=build, nixpkgs="", owner=0)
    return job


def paths(job: Job) -> list[list[str]]:
    return [[output.path for output in case.outputs] for case in job.cases]


def test_a_case_has_the_patterns_of_the_request_or_its_own() -> None:
    cases = [
        {"name": "all"},
        {"name": "own", "outputs": [LOG]},
        {"name": "none", "outputs": []},
        {"name": "null", "outputs": None},
        {"name": "braces", "outputs": {}},
        {"name": "hidden", "hidden": True},
    ]
    job = planned(read(cases=cases, outputs=[PNG]))
    assert paths(job) == [["*.png"], ["*.log"], [], ["*.png"], [], []]
    assert job.cases[1].outputs[0].required
    assert job.cases[0].outputs is job.cases[3].outputs, "all cases share one list"
    assert job.outputs
    assert (job.outputs.files, job.outputs.file_size, job.outputs.total) == (5, 10, 20)
    assert job.of_case(job.cases[0]).outputs is None, "the caller decides how much is left"


@pytest.mark.parametrize(
    ("keys", "asks"),
    [
        ({"cases": [{"name": "a"}]}, False),
        ({"cases": [{"name": "a", "outputs": [PNG]}]}, True),
        ({"cases": [{"name": "a", "hidden": True}], "outputs": [PNG]}, False),
        ({"outputs": [PNG]}, True),
    ],
)
def test_a_job_asks_for_files_where_one_of_its_cases_does(keys: dict[str, object], asks: bool) -> None:
    assert (planned(read(**keys)).outputs is not None) is asks


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"outputs": [PNG] * 17}, "cases[1].outputs: 17 patterns are more than the 16"),
        ({"outputs": [PNG, {"path": "../x"}]}, "cases[1].outputs[1].path: '../x': it must be a relative path"),
        ({"outputs": [{"path": "out/"}]}, "cases[1].outputs[0].path: 'out/': it ends in '/'"),
        ({"outputs": [{"glob": "x"}]}, "cases[1].outputs ('b')[0].glob: there is no such key. Is path meant?"),
        ({"outputs": "x"}, "cases[1].outputs"),
        ({"outputs": [PNG], "hidden": True}, "cases[1].outputs: no files of a hidden case come back"),
    ],
)
def test_what_cannot_be_asked_for_of_a_case(case: dict[str, object], words: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(cases=[{"name": "a"}, {"name": "b", **case}])
    assert words in str(caught.value)


def test_patterns_of_all_cases_together_have_a_bound() -> None:
    many = [{"name": str(n), "outputs": [PNG] * 16} for n in range(256)]
    assert len(read(cases=many).cases) == 256
    with pytest.raises(ClientError, match="cases: 4097 entries of outputs in all of them are more than 4096"):
        read(cases=[*many, {"name": "one more", "outputs": [PNG]}])


def test_all_that_may_be_asked_for_is_no_more_than_a_request_may_have() -> None:
    names = {f"n{n}": "v" for n in range(16)}
    full = {"args": ["x"] * 16, "env": names, "outputs": [{"path": "*", "required": True}] * 4, "group": "g"}
    assert len(read(cases=[{"name": str(n), **full} for n in range(1024)]).cases) == 1024


def test_each_case_may_have_what_those_before_it_left() -> None:
    together = Wanted(outputs=[], files=5, file_size=10, total=20)
    left, asked = Left(together), [Output(path="*")]
    assert left.of([]) is None
    for sizes, files, total in (((8, 0), 5, 20), ((), 3, 12), ((10,), 3, 12), ((1, 1), 2, 2), ((), 0, 0)):
        wanted = left.of(asked)
        assert wanted == Wanted(outputs=asked, files=files, file_size=10, total=total, together=together)
        left.take(made(*map(bytes, sizes)))


def test_contents_of_all_parts_have_room_together() -> None:
    parts = [made(b"123", b"4567"), made(), made(b"89", b"abcd", b"")]
    found, is_all = told(parts, 6)
    assert [[file.content for file in files if isinstance(file.content, str)] for files in found] == [
        ["123"],
        [],
        ["89", ""],
    ]
    assert [len(files) for files in found] == [2, 0, 3]
    assert not is_all
    assert told(parts, 13)[1]
    assert told([], 0) == ([], True)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["small", "a.b_c-1"], ["small", "a.b_c-1"]),
        (["a/b", "a%2Fb", "../x", ".", "..", "-rf", "a\\b"], ["a%2Fb", "a%252Fb", "%2E.%2Fx", "%2E", "%2E.", "%2Drf",
            "a%5Cb"]),
        (["\u00e9", "e\u0301"], ["%C3%A9", "e%CC%81"]),
        (["small", "x", "Small", "SMALL", "small~2"], ["small", "x", "Small~2", "SMALL~3", "small%7E2"]),
        ([" ", "a b", "~"], ["%20", "a%20b", "%7E"]),
    ],
)  # fmt: skip
def test_the_files_of_a_case_have_a_directory_that_is_called_like_it(names: list[str], found: list[str]) -> None:
    assert directories(names) == found


def test_a_long_name_is_cut() -> None:
    first, second = directories(["\u00e4" * 100, "\u00e4" * 99 + "\u00f6"])
    assert re.fullmatch(r"(%C3%A4){16}%C3%~[0-9a-f]{64}", first)
    assert len(second) == len(first)
    assert second != first


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=100)
SIMILAR = st.text(st.sampled_from("aA./-~%2\u00e9\u0130"), min_size=1, max_size=4)


@given(st.lists(st.one_of(NAMES, SIMILAR), unique=True, max_size=20))
def test_no_two_cases_share_a_directory_and_none_lies_elsewhere(names: list[str]) -> None:
    found = directories(names)
    folded = [unicodedata.normalize("NFC", each).casefold() for each in found]
    assert len(set(folded)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_%][A-Za-z0-9._%~-]*", each) and len(each) <= 255 for each in found)
    assert not any(one != other and other.startswith(f"{one}/") for one, other in itertools.product(found, found))
