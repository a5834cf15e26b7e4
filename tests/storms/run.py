"""One storm: submissions and blows, then calm, and the verdict."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.storms.blows import BLOWS, Blow, Weather
from tests.storms.field import Field
from tests.storms.witness import OLD

PAUSE = (0.5, 6.0)  # seconds between two blows
PACE = 0.5  # seconds between two looks whether a submission is due
MOST = 2.0  # no blow falls after so many times the storm's minutes
EMPTY = ("incoming", "new", "building", "running", "ids", "progress", "quarantine", "builds/new", "builds/building")
PATIENCE = 60.0  # seconds


class Plan(NamedTuple):
    """How many ``submissions``, and for how many ``minutes`` blows fall at random. With ``each`` one of each kind does.

    A blow then waits for a pilot where it needs one. Kinds whose turn would come after twice the minutes are left out.
    """

    submissions: int
    minutes: float
    seed: int
    each: bool = False


class Report(NamedTuple):
    """The blows and their results. ``faults`` is empty where all is well."""

    blows: Counter[str]
    answers: int
    lost: int  # attempts
    unseen: int  # of these, attempts that no look saw with a pilot
    seconds: float
    faults: list[str]


class Client:
    """Drops submissions. ``dropped`` is how many there are."""

    def __init__(self, field: Field, chance: random.Random) -> None:
        self._field, self._chance, self.dropped = field, chance, 0

    def drop(self, most: float) -> None:
        """Drop submissions until there are so many."""
        while self.dropped < most:
            self._field.drop(self.dropped, _seconds(self._chance) if self.dropped else 0)
            self.dropped += 1

    def drop_one_more(self) -> None:
        """Drop one where all others are answered, so that there is work for a pilot."""
        if self._field.answers() == self.dropped:
            self.drop(self.dropped + 1)


def blow(field: Field, plan: Plan, say: Callable[[str], None]) -> Report:
    """Have a storm over a field, and return what came of it once all is calm and answered."""
    chance = random.Random(plan.seed)  # noqa: S311 - blows are no secret
    weather, client = Weather(field, chance), Client(field, chance)
    blows: Counter[str] = Counter()
    client.drop(1)
    field.until(field.answers, "nothing is answered")  # its build may take minutes
    began = time.monotonic()
    for part, each in _blows(plan, chance, began):
        client.drop(plan.submissions * part)
        if each is None:
            continue
        if weather.down and chance.random() < 0.5:
            weather.mend()
        weather.tidy()
        while not (what := each(weather)) and plan.each:  # its pilot ended just then, or its node is down
            _await_pilot(weather, client)
            weather.mend()
        if what:
            blows[each.__name__] += 1
            passed = time.monotonic() - began
            say(f"{passed:6.0f} s: {each.__name__} {what}; {client.dropped} dropped, {field.answers()} answered")
    weather.mend()
    weather.tidy()
    client.drop(plan.submissions)
    say("calm; waiting for the last answers")
    weather.until(lambda: field.answers() >= client.dropped, "not everything is answered")
    seconds = time.monotonic() - began
    weather.until(lambda: not field.witness.pilots() and not field.jobs(), "pilots are left")
    if field.sandboxed:
        _tidy_up(weather, client)
    faults, lost, unseen = _judge(field, client.dropped)
    return Report(blows, field.answers(), lost, unseen, seconds, faults)


def _tidy_up(weather: Weather, client: Client) -> None:
    """Let one more pilot remove what killed ones left on this host, and health their names as if an hour had passed."""
    field = weather.field
    client.drop(client.dropped + 1)
    weather.until(lambda: field.answers() >= client.dropped, "the last one is not answered")
    weather.until(lambda: not field.witness.pilots() and not field.jobs(), "the last pilot is left")
    for name in field.names():
        with contextlib.suppress(FileNotFoundError):
            os.utime(field.served.spool / "tmp" / name, OLD)
    weather.until(lambda: not field.names(), "names of pilots are left")


def _await_pilot(weather: Weather, client: Client) -> None:
    def is_there() -> bool:
        client.drop_one_more()
        return bool(weather.witness.pilots())

    weather.until(is_there, "no pilot came")


def _seconds(chance: random.Random) -> float:
    """Return how long a program sleeps: one of ten for longer than a drain takes."""
    return chance.uniform(2.5, 5.0) if chance.random() < 0.1 else chance.uniform(0.0, 1.0)


def _blows(plan: Plan, chance: random.Random, began: float) -> Iterator[tuple[float, Blow | None]]:
    """Yield which part of all submissions is to be dropped by now, and the blow that falls then, if one does."""
    seconds = plan.minutes * 60

    def part() -> float:
        return (time.monotonic() - began) / seconds

    if plan.each:
        for number, each in enumerate(chance.sample(BLOWS, len(BLOWS)), 1):
            while part() < number / (len(BLOWS) + 1):
                yield part(), None
                time.sleep(PACE)  # the parts are of time
            if part() < MOST:
                yield min(part(), 1.0), each
        return
    while (now := part()) < 1:
        yield now, chance.choice(BLOWS)
        time.sleep(chance.uniform(*PAUSE))


def _judge(field: Field, submissions: int) -> tuple[list[str], int, int]:
    """Return what is wrong, how many attempts were lost, and with how many of them no pilot was seen."""
    served, witness = field.served, field.witness
    field.until(lambda: not any(os.listdir(served.spool / each) for each in EMPTY), "something is left")
    faults = [f"check: {each}" for each in served.ctl("check")["unexplained"]]
    names = os.listdir(served.spool / "done")
    wanted = {f"job-{number}{ending}" for number in range(submissions) for ending in (".json", ".response.json")}
    faults += [f"left: {each}" for each in field.places()]
    faults += [f"done/ has {name}" for name in sorted(set(names) - wanted)]
    faults += [f"done/ lacks {name}" for name in sorted(wanted - set(names))]
    lost = unseen = 0
    for number in range(submissions):
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
