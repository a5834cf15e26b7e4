"""The tables and objects in spool-layout.md are the same as those in the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from spoold.model.cases import Case
from spoold.model.collection import Order, Report
from spoold.model.compare.excerpts import Difference
from spoold.model.compare.rules import Compare
from spoold.model.environments import Environments
from spoold.model.formats import Stored
from spoold.model.job import Runtime
from spoold.model.limits import PhaseLimits, RequestedLimits
from spoold.model.response import FINAL, PENDING_PHASE, Outcome, Phase, Response, Status, Verdict
from spoold.model.submission import Dependencies, Request, Submission
from spoold.spool.builds import BuildRecord
from spoold.spool.fetching import FetchingNow
from spoold.spool.layout import DIRECTORIES, STATES, TRANSITIONS
from spoold.spool.pins import PinsAnswer
from spoold.upkeep.shares import Count
from tests.structs import structs_in

STORED = (
    Submission,
    Dependencies,
    BuildRecord,
    Runtime,
    FetchingNow,
    PinsAnswer,
    Order,
    Report,
    Count,
    Environments,
)
SPEC = (Path(__file__).parents[2] / "spool-layout.md").read_text()
# The objects that tables describe, by heading. Every other object is written out as {"key", "key"}, or ["item",
# "item"].
TABLES = {
    Request: "\n## 3. The request\n",
    Case: "`notes` says why.\n",
    Compare: "\n### When output is right\n",
    Difference: "\nA **difference** is",
    RequestedLimits: "\n### Limits\n",
    PhaseLimits: "\n### Limits\n",
    Response: "\n## 4. The Response\n",
    Phase: "\nA phase starts as ",
}
WRITTEN_OUT = re.compile(r'`([{[]"\w[^`:]*"[]}])`')


def table_after(heading: str) -> list[tuple[str, ...]]:
    """Return the rows of the first table below a heading, without code marks."""
    return table_below(f"\n{heading}\n")


def table_below(text: str) -> list[tuple[str, ...]]:
    lines = SPEC.split(text, 1)[1].splitlines()
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


@pytest.mark.parametrize("word", [*Status, *Outcome, *Verdict])
def test_words_are_in_the_spec(word: str) -> None:
    assert f"`{word}`" in SPEC


def test_final_words_are_the_last_ones() -> None:
    ends = SPEC.split("ends with\none of ", 1)[1].split(".", 1)[0]
    assert {word.strip("`") for word in ends.replace("\n", " ").split(", ")} == {str(status) for status in FINAL}


OBJECTS = {each for kind in (Request, Response, PhaseLimits, *STORED) for each in structs_in(kind)}


def keys(kind: type[msgspec.Struct]) -> list[str]:
    """Return the keys of a type as they are written, in order."""
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def written_out(kind: type[msgspec.Struct]) -> str:
    """Return a type in the spec's notation: an object's keys, or the items of a list."""
    start, end = "[]" if kind.__struct_config__.array_like else "{}"
    return start + ", ".join(f'"{key}"' for key in keys(kind)) + end


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_a_table_has_the_keys_of_its_type(kind: type[msgspec.Struct]) -> None:
    named = [key for cells in table_below(TABLES[kind]) for key in cells[0].split(", ")]
    assert sorted(named) == sorted(keys(kind))


def test_every_other_object_is_written_out_and_nothing_else() -> None:
    found = set(WRITTEN_OUT.findall(SPEC))
    assert found == {written_out(kind) for kind in OBJECTS - {*TABLES}}
    assert {*TABLES} <= OBJECTS


def test_a_phase_starts_as_the_spec_says() -> None:
    assert f"\nA phase starts as `{json.dumps(msgspec.to_builtins(PENDING_PHASE))}`" in SPEC
