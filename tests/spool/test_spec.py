"""The tables of spool-layout.md and those in the code are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoold.model.collection import Order, Report
from spoold.model.formats import Stored
from spoold.model.job import Runtime
from spoold.model.response import FINAL, Outcome, Status
from spoold.model.submission import Dependencies, Submission
from spoold.spool.builds import BuildRecord
from spoold.spool.layout import DIRECTORIES, STATES, TRANSITIONS
from spoold.spool.pins import PinsAnswer
from spoold.upkeep.shares import Count

STORED = (Submission, Dependencies, BuildRecord, Runtime, PinsAnswer, Order, Report, Count)
SPEC = (Path(__file__).parents[2] / "spool-layout.md").read_text()


def table_after(heading: str) -> list[tuple[str, ...]]:
    """Return the rows of the first table below a heading, without code marks."""
    lines = SPEC.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|")))
    return rows[2:]


def test_directories() -> None:
    assert table_after("## 1. Directories") == [(d.path, d.owner, f"{d.mode:04o}", d.holds) for d in DIRECTORIES]


def test_states() -> None:
    assert table_after("## 5. States") == [tuple(state) for state in STATES]


def test_transitions() -> None:
    assert table_after("## 6. Transitions") == [tuple(transition) for transition in TRANSITIONS]


def test_formats() -> None:
    rows = [(name, number) for name, _, number in table_after("### Formats")]
    assert rows == [(kind.__name__, str(kind.NEWEST)) for kind in STORED]
    assert {*STORED} == {*Stored.__subclasses__()}


def test_states_of_transitions_exist() -> None:
    names = {state.name for state in STATES}
    assert {t.source for t in TRANSITIONS} | {t.target for t in TRANSITIONS} == names


@pytest.mark.parametrize("word", [*Status, *Outcome])
def test_words_are_in_the_spec(word: str) -> None:
    assert f"`{word}`" in SPEC


def test_final_words_are_the_last_ones() -> None:
    ends = SPEC.split("ends with\none of ", 1)[1].split(".", 1)[0]
    assert {word.strip("`") for word in ends.replace("\n", " ").split(", ")} == {str(status) for status in FINAL}
