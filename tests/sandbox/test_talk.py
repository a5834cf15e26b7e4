"""A program and an interactor talk in a real sandbox, and neither can do anything to the other but talk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import pytest

from spoold.model.checkers import WELL, arguments_for, feedback_of, files_for_talk
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.response import Outcome
from spoold.sandbox import Check, RunCancelledError, Talked
from spoold.sandbox import talk as module
from tests.sandbox.conftest import RUN, AnySandbox, longer, make_job
from tests.sandbox.test_cases import All, with_cases

pytestmark = pytest.mark.docker

# Thinks of 617, and answers guesses. It finds a program wrong that says nothing more.
GUESS = """
for guess in {1..20}; do
    read -r number || exit 43
    if [ "$number" = 617 ]; then echo right; exit 42; fi
    [ "$number" -lt 617 ] && echo higher || echo lower
done
echo "too many guesses" > "$3/judgemessage.txt"
exit 43
"""
SEARCH = """
low=1 high=1000
while :; do
    middle=$(((low + high) / 2))
    echo $middle
    read -r answer || exit 9
    case $answer in right) exit 0;; higher) low=$((middle + 1));; lower) high=$((middle - 1));; esac
done
"""
ALL = "for guess in {1..30}; do echo $guess; read -r answer || exit 6; done"
OPENS = "echo a; read -r x; [ $x = b ] && exit 42"
LISTEN = 'wc -c > "$3/judgemessage.txt"; exit 42'  # says nothing, and reads to the end
SHORT = msgspec.structs.replace(RUN, time=2.0)  # for what never ends
MUCH = msgspec.structs.replace(RUN, stdout=MIB)


class Pair(NamedTuple):
    """An interactor and the program of one case, what it is, and how both end."""

    what: str
    interactor: str
    program: str
    ended: tuple[Outcome, Outcome, int | None]  # the program, the interactor, and that one's exit code
    is_decided: bool | None  # None: both end at about the same time
    limits: PhaseLimits = RUN


class Talks(All):
    """A judge of programs that talk. Each case's input is what its interactor runs."""

    def __init__(self, interactors: Sequence[str]) -> None:
        super().__init__()
        self.interactors = interactors
        self.talks: list[Talked] = []

    def meets(self, number: int) -> Check:
        files, args = files_for_talk(self.interactors[number].encode(), b""), arguments_for("kattis", [])
        return Check(files, b"", args, feedback_of("kattis"), WELL["kattis"])

    def talked(self, number: int, talked: Talked) -> None:
        assert number == len(self.talks)
        self.talks.append(talked)


def feedback(talked: Talked) -> str:
    """Return the message that an interactor left."""
    assert talked.result
    assert talked.result.outputs
    files = talked.result.outputs
    return "".join(b"".join(files.contents.pieces(each.at, each.size)).decode() for each in files.files)


Talk = Callable[..., Talks]


@pytest.fixture
def talk(sandbox: AnySandbox, plain_shell: str) -> Talk:
    """Return a function that lets pairs talk."""

    def _talk(
        pairs: Sequence[Pair],
        own: PhaseLimits = RUN,
        cancelled: threading.Event | None = None,
        compile_sh: str = "touch own",
    ) -> Talks:
        judge = Talks([pair.interactor for pair in pairs])
        job = make_job('eval "$1"', shell=plain_shell, compile_sh="touch made")
        beside = make_job('eval "$(cat "$1")"', shell=plain_shell, compile_sh=compile_sh, limits=own)
        job = with_cases(job, *(pair.program for pair in pairs), limits=[pair.limits for pair in pairs])
        job = msgspec.structs.replace(job, checker=beside, talks=True)
        sandbox.run(job, lambda *_: None, cancelled or threading.Event(), judge)
        return judge

    return _talk


def require(pairs: Sequence[Pair], judge: Talks) -> dict[str, Talked]:
    """Require that all pairs ended as they should; return the talks by name."""
    for pair, talked in zip(pairs, judge.talks, strict=True):
        assert talked.result
        own = talked.result.run
        ended = talked.run.outcome, own.outcome, own.exit_code
        assert (pair.what, ended) == (pair.what, pair.ended), talked
        assert pair.is_decided in (talked.is_decided, None), talked
    return {pair.what: talked for pair, talked in zip(pairs, judge.talks, strict=True)}


OK, NONZERO = Outcome.OK, Outcome.NONZERO_EXIT
RIGHT, WRONG = (NONZERO, 42), (NONZERO, 43)
TALKS = [
    Pair("right", GUESS, SEARCH, (OK, *RIGHT), None),
    Pair("guesses", GUESS, ALL, (NONZERO, *WRONG), is_decided=True),
    Pair("fails", GUESS, "echo 500; exit 3", (NONZERO, *WRONG), is_decided=False),
    Pair("fails after", "exit 43", "read -r x || exit 7", (NONZERO, *WRONG), is_decided=True),
    Pair("may go on", "exit 42", "read -r x; sleep 1; exit 5", (NONZERO, *RIGHT), is_decided=True),
    Pair("closes", "cat; echo bye; exit 42", "exec >&-; read -r x; [ $x = bye ]", (OK, *RIGHT), is_decided=False),
    Pair("opens again", OPENS, "read -r x </dev/stdin; echo b >/dev/stdout; exit 4", (NONZERO, *RIGHT), None),
    Pair("cannot see", LISTEN, "ls /job /job/*/ /tmp; ls -d /proc/[0-9]*", (OK, *RIGHT), is_decided=False),
    Pair("breaks", "exit 1", "read -r x || exit 7", (NONZERO, NONZERO, 1), is_decided=True),
    Pair("crashes", "kill -SEGV $$", "read -r x || exit 7", (NONZERO, Outcome.SIGNALLED, None), is_decided=True),
    Pair("right again", GUESS, SEARCH, (OK, *RIGHT), None),
]  # fmt: skip


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a program that was found wrong all the time that it takes to end."""
    monkeypatch.setattr(module, "GRACE", 600.0)


@pytest.mark.usefixtures("patient")
def test_they_talk_and_the_one_that_ends_first_decides(talk: Talk) -> None:
    found = require(TALKS, talk(TALKS))
    said = ">500\n<higher\n>750\n<lower\n>625\n<lower\n>562\n<higher\n>593\n<higher\n>609\n<higher\n>617\n<right\n"
    assert found["right"].transcript == found["right again"].transcript == said
    assert found["right"].run.stdout == "500\n750\n625\n562\n593\n609\n617\n"
    assert feedback(found["guesses"]) == "too many guesses\n"
    assert "judge" not in found["cannot see"].run.stdout
    assert "own" not in found["cannot see"].run.stdout.split()


def test_a_program_that_was_found_wrong_is_ended_and_its_container_is_well(talk: Talk) -> None:
    wrong = (Outcome.CANCELLED, *WRONG)
    pairs = [
        Pair("goes on", "exit 43", "while :; do read -r x; done", wrong, is_decided=True),
        Pair("closes, then fails", "cat; exit 43", "exec >&-; sleep 2; exit 3", (NONZERO, *WRONG), is_decided=False),
        Pair("right", GUESS, SEARCH, (OK, *RIGHT), None),
    ]
    require(pairs, talk(pairs))


ATTACKS = [
    Pair("floods", LISTEN, "cat /dev/zero", (Outcome.OUTPUT_LIMIT, *RIGHT), is_decided=False),
    Pair("floods nobody", "exit 42", "read -r x; cat /dev/zero", (Outcome.OUTPUT_LIMIT, *RIGHT), is_decided=True),
    Pair("is flooded", "cat /dev/zero", "sleep 1", (OK, Outcome.OUTPUT_LIMIT, None), is_decided=False),
    Pair("never reads", f"head -c 300000 /dev/zero; {LISTEN}", "sleep 1", (OK, *RIGHT), is_decided=False),
    Pair("reads all", f"head -c 300000 /dev/zero; exec >&-; {LISTEN}", "wc -c", (OK, *RIGHT), is_decided=True),
    Pair("says much", LISTEN, "head -c 300000 /dev/zero", (OK, *RIGHT), is_decided=False, limits=MUCH),
    Pair("leaves", LISTEN, "echo 1; (sleep 600; echo 2) & setsid sleep 600 & exit 0", (OK, *RIGHT), is_decided=False),
    Pair("waits", "read -r x || exit 43", "read -r x", (Outcome.TIME_LIMIT, *WRONG), is_decided=False, limits=SHORT),
    Pair("right", GUESS, SEARCH, (OK, *RIGHT), None),
]  # fmt: skip


@pytest.mark.usefixtures("patient")
def test_neither_can_stop_or_flood_the_other(talk: Talk) -> None:
    found = require(ATTACKS, talk(ATTACKS, own=MUCH))
    assert [feedback(found[what]).strip() for what in ("floods", "says much", "leaves")] == ["65536", "300000", "2"]
    assert found["reads all"].run.stdout == "300000\n"
    assert len(found["says much"].transcript) < 5000


HANGS = [
    Pair("waits for one that hangs", "sleep 600", "read -r x", (Outcome.TIME_LIMIT, Outcome.TIME_LIMIT, None),
         is_decided=False, limits=SHORT),
    Pair("floods one that hangs", "sleep 600", "cat /dev/zero", (Outcome.TIME_LIMIT, Outcome.TIME_LIMIT, None),
         is_decided=False, limits=msgspec.structs.replace(SHORT, stdout=MIB)),
]  # fmt: skip


def test_an_interactor_that_hangs_meets_its_own_limit(talk: Talk) -> None:
    def hang(times: float) -> Talks:
        return talk(HANGS, own=msgspec.structs.replace(RUN, time=2.0 * times))

    def began_at_once(judge: Talks) -> bool:  # else a machine that stalled between both beginnings ended the interactor
        return all(talked.run.outcome is Outcome.TIME_LIMIT for talked in judge.talks)

    require(HANGS, longer(hang, began_at_once))


def test_a_cancel_ends_both(talk: Talk, sandbox: AnySandbox) -> None:
    cancelled, judge = threading.Event(), None
    pair = Pair("goes on", LISTEN, "echo $(yes | head -c 1000); sleep 600", (OK, *RIGHT), is_decided=False)
    timer = threading.Timer(3.0, cancelled.set)  # any time will do
    timer.start()
    with pytest.raises(RunCancelledError):
        judge = talk([pair], cancelled=cancelled)
    timer.join()
    assert judge is None
    assert not [thread for thread in threading.enumerate() if thread.name == "interactor"]


def test_no_program_is_run_where_its_interactor_cannot_be_compiled(talk: Talk) -> None:
    judge = talk([Pair("", "exit 42", "exit 0", (OK, *RIGHT), None)] * 2, compile_sh="exit 3")
    for talked in judge.talks:
        assert talked.result
        assert talked.run.outcome is talked.result.run.outcome is Outcome.SKIPPED
        assert talked.result.compile.outcome is NONZERO
    assert len(judge.talks) == 2
