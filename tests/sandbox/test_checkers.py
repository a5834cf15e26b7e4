"""A checker is compiled once for all submissions of one owner that it judges."""

from __future__ import annotations

import threading

import msgspec
import pytest

from spoold.model.job import Job, JobFile, JobResult
from spoold.model.response import Outcome, Phase
from spoold.sandbox import Check
from spoold.sandbox import checkers as module
from spoold.sandbox.archive import Archive
from spoold.sandbox.checkers import NOT_COMPILED, Checkers, Compiled, _key
from tests.sandbox.conftest import COMPILE, AnySandbox, make_job
from tests.sandbox.test_cases import All, with_cases


class Checked(All):
    """A judge that lets the checker judge every case."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[JobResult] = []

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        super().ended(number, run, notes)
        return Check([JobFile("judge/output", run.stdout.encode(), 0o644)], b"", [])

    def checked(self, number: int, result: JobResult) -> None:
        assert number == len(self.results)
        self.results.append(result)


@pytest.mark.docker
def test_it_is_compiled_once_for_all_that_one_owner_judges(sandbox: AnySandbox, plain_shell: str) -> None:
    checker = make_job("cat made judge/output", compile_sh="echo $RANDOM$RANDOM$RANDOM > made", shell=plain_shell)

    def made(owner: int, **changes: object) -> list[str]:
        own = msgspec.structs.replace(checker, owner=owner, **changes)
        judge = Checked()
        job = with_cases(make_job("echo $1", shell=plain_shell), "a", "b")
        sandbox.run(msgspec.structs.replace(job, checker=own, owner=owner), lambda *_: None, threading.Event(), judge)
        assert [result.run.stdout.split()[1] for result in judge.results] == ["a", "b"]
        assert [result.compile.outcome for result in judge.results] == [Outcome.OK] * 2
        return [result.run.stdout.split()[0] for result in judge.results]

    first = made(64_001)
    assert first[0] == first[1]
    assert made(64_001) == first
    others = [made(64_002), made(64_001, compile=msgspec.structs.replace(COMPILE, time=20.0))]
    others.append(made(64_001, files=[*checker.files, JobFile("more", b"", 0o644)]))
    assert len({first[0], *(each[0] for each in others)}) == 4


def compiled(size: int) -> Compiled:
    archive = Archive("")
    archive.size = size
    return Compiled(NOT_COMPILED, archive)


def test_those_that_were_not_used_for_the_longest_time_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module, "ROOM", 100)
    checkers = Checkers()
    for key in b"a", b"b", b"c":
        checkers.keep(key, compiled(10))
    assert checkers.get(b"a")
    checkers.keep(b"d", compiled(10))
    assert [key for key in (b"a", b"b", b"c", b"d") if checkers.get(key)] == [b"a", b"c", b"d"]
    checkers.keep(b"e", compiled(75))
    assert [key for key in (b"a", b"c", b"d", b"e") if checkers.get(key)] == [b"c", b"d", b"e"]
    checkers.keep(b"f", compiled(101))
    assert not checkers.get(b"f")
    assert checkers.get(b"e")


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": 2},
        {"shell": "/nix/store/other"},
        {"nixpkgs": "other"},
        {"closure": ["x"]},
        {"files": [JobFile("run.sh", b"", 0o755)]},
        {"compile": msgspec.structs.replace(COMPILE, memory=1 << 30)},
    ],
)
def test_whatever_compiling_depends_on_makes_another(changes: dict[str, object]) -> None:
    job: Job = make_job("true", shell="/nix/store/x", compile_sh="true")
    limits = msgspec.structs.replace(COMPILE, memory=1 << 29)
    job = msgspec.structs.replace(job, compile=limits)
    assert _key(job) == _key(msgspec.structs.replace(job, stdin=b"x", args=["y"]))
    assert _key(job) != _key(msgspec.structs.replace(job, **changes))
