"""Short forms of options: how outputs are compared, and how many points cases are worth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from spoold.cli.grading.cases import Test

BY, LIKE = ("lines", "tokens", "exact"), ("kattis", "judge0", "cms", "dmoj")
FLAGS = ("case_sensitive", "space_change_sensitive")
FLOATS = {
    "float": ("float_absolute", "float_relative"),
    **{key: (key,) for key in ("float_absolute", "float_relative")},
}
WORDS = {"yes": True, "true": True, "": True, "no": False, "false": False}
POINTS = re.compile(r"(?:(?P<group>.*)=)?(?P<points>[0-9]+(?:\.[0-9]+)?)", re.DOTALL)


def compare(words: str) -> dict[str, Any]:
    """Return the ``compare`` rules of a request. Raises :class:`click.UsageError`."""
    made: dict[str, Any] = {}
    for word in words.replace(",", " ").split():
        key, separator, value = word.partition("=")
        if word in BY or word in LIKE:
            made["by" if word in BY else "like"] = word
        elif key in FLAGS and value.lower() in WORDS:
            made[key] = WORDS[value.lower()]
        elif key in FLOATS and separator:
            made |= dict.fromkeys(FLOATS[key], _number(word, value))
        else:
            keys = ", ".join([*BY, *LIKE, *FLAGS, *(f"{each}=NUMBER" for each in FLOATS)])
            raise click.UsageError(f"--compare: {word!a}: use these words: {keys}")
    return made


def _number(word: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise click.UsageError(f"--compare: {word!a}: its value is no number") from None


def with_points(tests: Sequence[Test], said: Sequence[str]) -> list[Test]:
    """Return the cases with their points.

    Each text in ``said`` spreads points over all cases, or over those of a group.
    """
    made = list(tests)
    for text in said:
        match = POINTS.fullmatch(text)
        if match is None:
            raise click.UsageError(f"--points {text}: write POINTS or GROUP=POINTS")
        group = (match["group"] or "").strip("/")
        places = [place for place, test in enumerate(made) if match["group"] is None or is_in(test, group)]
        if not places:
            groups = ", ".join(sorted({test.group for test in made if test.group})) or "none"
            raise click.UsageError(f"--points {text}: no case is in that group. The groups are: {groups}")
        for place in places:
            made[place] = made[place]._replace(points=float(match["points"]) / len(places))
    return made


def is_in(test: Test, group: str) -> bool:
    """Tell whether a case is in a group or in one of its subgroups. "" stands for the cases in no group."""
    return test.group == group or bool(group and test.group.startswith(f"{group}/"))
