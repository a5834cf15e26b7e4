"""One storm: submissions and blows, then calm, and the verdict."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.storms.blows import BLOWS, Blow, Weather
from tests.storms.field import Field

PAUSE = (0.5, 6.0)  # seconds between two blows
EMPTY = ("incoming", "new", "building", "running", "ids", "progress", "quarantine", "builds/new", "builds/building")
PATIENCE = 60.0  # seconds


class Plan(NamedTuple):
    """How many ``submissions``, and for how many ``minutes`` blows fall; with 0 minutes one of each kind does."""

    submissions: int
    minutes: float
    seed: int


class Report(NamedTuple):
    """The blows and their results. ``faults`` is empty where all is well."""

    blows: Counter[str]
    answers: int
    lost: int  # attempts
    unseen: int  # of these, attempts that no look saw with a pilot
    seconds: float
    faults: list[str]


def blow(field: Field, plan: Plan, say: Callable[[str], None]) -> Report:
    """Have a storm over a field, and return what came of it once all is calm and answered."""
    chance = random.Random(plan.seed)  # noqa: S311 - blows are no secret
    weather = Weather(field, chance)
    blows: Counter[str] = Counter()
    field.drop(0, 0)
    field.until(field.answers, "nothing is answered")  # its build may take minutes
    began, dropped = time.monotonic(), 1
    for part, each in _blows(plan, chance, began):
        while dropped < plan.submissions * part:
            field.drop(dropped, _seconds(chance))
            dropped += 1
        if plan.minutes == 0:
            _await_pilot(weather)
        if weather.down and chance.random() < 0.5:
            weather.mend()
        weather.tidy()
        what = each(weather)
        while plan.minutes == 0 and not what:  # its pilot ended just then, or its node is down
            weather.mend()
            _await_pilot(weather)
            what = each(weather)
        if what:
            blows[each.__name__] += 1
            passed = time.monotonic() - began
            say(f"{passed:6.0f} s: {each.__name__} {what}; {dropped} dropped, {field.answers()} answered")
    weather.mend()
    weather.tidy()
    for number in range(dropped, plan.submissions):
        field.drop(number, _seconds(chance))
    say("calm; waiting for the last answers")
    field.until(lambda: field.answers() >= plan.submissions, "not everything is answered")
    seconds = time.monotonic() - began
    field.until(lambda: not field.witness.pilots() and not field.jobs(), "pilots are left")
    faults, lost, unseen = _judge(field, plan)
    return Report(blows, field.answers(), lost, unseen, seconds, faults)


def _await_pilot(weather: Weather) -> None:
    """Wait for a pilot. Where none is there its node may be away, or drained, so both come back."""

    def is_there() -> bool:
        if weather.witness.pilots():
            return True
        weather.mend()
        weather.tidy()
        return False

    weather.field.until(is_there, "no pilot came")


def _seconds(chance: random.Random) -> float:
    """Return how long a program sleeps: one of ten for longer than a drain takes."""
    return chance.uniform(2.5, 5.0) if chance.random() < 0.1 else chance.uniform(0.0, 1.0)


def _blows(plan: Plan, chance: random.Random, began: float) -> Iterator[tuple[float, Blow]]:
    """Yield which part of all submissions is to be dropped by now, and the blow that falls then."""
    if plan.minutes == 0:
        for number, each in enumerate(chance.sample(BLOWS, len(BLOWS)), 1):
            yield number / (len(BLOWS) + 1), each
        return
    while (part := (time.monotonic() - began) / (plan.minutes * 60)) < 1:
        yield part, chance.choice(BLOWS)
        time.sleep(chance.uniform(*PAUSE))


def _judge(field: Field, plan: Plan) -> tuple[list[str], int, int]:
    """Return what is wrong, how many attempts were lost, and with how many of them no pilot was seen."""
    served, witness = field.served, field.witness
    field.until(lambda: not any(os.listdir(served.spool / each) for each in EMPTY), "something is left")
    faults = [f"check: {each}" for each in served.ctl("check")["unexplained"]]
    names = os.listdir(served.spool / "done")
    wanted = {f"job-{number}{ending}" for number in range(plan.submissions) for ending in (".json", ".response.json")}
    faults += [f"done/ has {name}" for name in sorted(set(names) - wanted)]
    faults += [f"done/ lacks {name}" for name in sorted(wanted - set(names))]
    lost = unseen = 0
    for number in range(plan.submissions):
        response = field.response(number)
        if (response["status"], response["run"]["stdout"]) != ("COMPLETED", f"{number}\n"):
            faults.append(f"job-{number}: {response}")
        for attempt in range(1, response["attempt"]):
            lost += 1
            holders = witness.holders.get(f"job-{number}@{os.geteuid()}-{attempt}.json", set())
            unseen += not holders
            if holders and not holders & witness.doomed:
                faults.append(f"job-{number}: attempt {attempt} was lost with a pilot that could drain: {holders}")
    return faults, lost, unseen


def after(field: Field) -> list[str]:
    """Stop a field; return what is left of it on this host."""
    field.stop()
    deadline = time.monotonic() + PATIENCE
    while (left := field.left()) and time.monotonic() < deadline:
        time.sleep(0.2)  # programs of pilots that were killed may sleep on for some seconds
    return [f"left: {each}" for each in left]
