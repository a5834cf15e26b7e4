"""Limits: a request gets at most what is allowed. A new limit must be handled everywhere, or a test here fails."""

from __future__ import annotations

import inspect
import re

import pytest
from msgspec.structs import replace

from spoold.model.limits import (
    MIB,
    RUN_DEFAULT,
    RUN_MAXIMUM,
    Limits,
    PhaseLimits,
    PhaseRange,
    RequestedLimits,
    effective,
    unused_wishes,
)
from spoold.sandbox import sizes
from spoold.sandbox.messages import Bounds
from spoold.sandbox.program import SOURCE
from tests.engines import REPOSITORY

BY_THE_ENGINE = {"processes"}  # the supervisor enforces all others
SECTION = (REPOSITORY / "spool-layout.md").read_text().partition("\n### Limits\n")[2].partition("\n#")[0]


def test_a_client_may_ask_for_each_limit() -> None:
    assert RequestedLimits.__struct_fields__ == PhaseLimits.__struct_fields__


@pytest.mark.parametrize("name", PhaseLimits.__struct_fields__)
def test_each_limit_goes_to_whoever_enforces_it(name: str) -> None:
    assert (name in Bounds.FIELDS) == (name not in BY_THE_ENGINE)
    if name in BY_THE_ENGINE:
        text = inspect.getsource(sizes)
    else:
        text = "".join((SOURCE / place).read_text() for place in ("child.c", "phase.c", "usage.c"))
    inner = {"stdout": "output", "stderr": "output", "on_output_limit": "end_on_output"}.get(name, name)
    assert re.search(rf"\blimits(\.|->){inner}\b", text), "no code reads the limit there"


def test_the_supervisor_is_sent_no_other() -> None:
    assert Bounds.FIELDS.keys() <= {*PhaseLimits.__struct_fields__}


@pytest.mark.parametrize("name", PhaseLimits.__struct_fields__)
def test_each_limit_is_in_the_spec(name: str) -> None:
    assert f"`{name}`" in SECTION


def test_limits_are_cut_to_the_maximum_and_said() -> None:
    limits, notes = effective("limits.run", RequestedLimits(time=1e9, memory=MIB), Limits().run)
    assert (limits.time, limits.memory, limits.stdout) == (RUN_MAXIMUM.time, MIB, RUN_DEFAULT.stdout)
    assert len(notes) == 1
    assert "limits.run.time" in notes[0]
    assert effective("limits.run", None, Limits().run) == (RUN_DEFAULT, [])


def test_memory_in_another_unit_than_bytes_is_noted() -> None:
    for part, allowed in (("run", Limits().run), ("compile", Limits().compile)):
        limits, notes = effective(f"limits.{part}", RequestedLimits(memory=MIB - 1), allowed)
        assert limits.memory == MIB - 1
        assert [note for note in notes if f"limits.{part}.memory: " in note and "bytes" in note] == notes != []
        assert effective(f"limits.{part}", RequestedLimits(memory=MIB), allowed)[1] == []


def times(allowed: PhaseRange, **asked: float) -> tuple[float, float]:
    """Return the wall-clock time and the CPU time that a request gets."""
    limits, notes = effective("limits.run", RequestedLimits(**asked), allowed)  # type: ignore[arg-type]
    assert len(notes) == sum(value > getattr(allowed.maximum, name) for name, value in asked.items())
    return limits.time, limits.cpu_time


def test_wall_clock_and_cpu_time_go_together() -> None:
    allowed = Limits().run
    assert (allowed.default.time, allowed.default.cpu_time) == (20, 10)
    for asked, got in (
        ({}, (20, 10)),
        ({"memory": MIB}, (20, 10)),
        ({"cpu_time": 3}, (6, 3)),
        ({"cpu_time": 0.25}, (0.5, 0.25)),
        ({"cpu_time": 400}, (600, 400)),
        ({"cpu_time": 700}, (600, 600)),
        ({"time": 4}, (4, 4)),
        ({"time": 100}, (100, 10)),
        ({"time": 5, "cpu_time": 9}, (5, 9)),
        ({"time": 9, "cpu_time": 5}, (9, 5)),
    ):
        assert times(allowed, **asked) == got, asked
    own = replace(allowed, default=replace(allowed.default, time=5, cpu_time=30))
    # an operator may allow several processes more CPU time than wall-clock time
    assert times(own, memory=MIB) == (5, 30)
    assert times(own, cpu_time=1) == (2, 1)
    compile_, _ = effective("limits.compile", RequestedLimits(cpu_time=100), Limits().compile)
    assert (compile_.time, compile_.cpu_time) == (200, 100)


def test_what_becomes_of_output_beyond_its_limit_is_chosen_and_has_no_maximum() -> None:
    allowed = Limits().run
    assert allowed.default.on_output_limit == "continue"
    for asked in ("continue", "end"):
        limits, notes = effective("limits.run", RequestedLimits(on_output_limit=asked), allowed)
        assert (limits.on_output_limit, notes) == (asked, [])
    own = replace(allowed, default=replace(allowed.default, on_output_limit="end"))
    assert effective("limits.run", RequestedLimits(time=1), own)[0].on_output_limit == "end"
    assert effective("limits.run", RequestedLimits(on_output_limit="continue"), own)[0].on_output_limit == "continue"
    assert "on_output_limit" in unused_wishes(RequestedLimits(on_output_limit="end"))[0]


def test_many_processes_get_fewer_descriptors_each() -> None:
    allowed = Limits().run
    for processes, open_files, got in ((64, 1024, 1024), (65, 1024, 1008), (1024, 1024, 64), (1024, 32, 32)):
        limits, notes = effective("limits.run", RequestedLimits(processes=processes, open_files=open_files), allowed)
        assert (limits.processes, limits.open_files) == (processes, got)
        assert ["limits.run.open_files" in note for note in notes] == [True] * (got < open_files)
    assert effective("limits.run", RequestedLimits(processes=1024), allowed)[0].open_files == 64
    asked = RequestedLimits(processes=1024, open_files=1024)
    wide = replace(allowed, default=replace(allowed.default, processes=512, open_files=1024))
    assert effective("limits.run", asked, wide)[0].open_files == 512
    huge = replace(allowed, maximum=replace(allowed.maximum, processes=10**6))
    assert effective("limits.run", RequestedLimits(processes=10**6), huge)[0].open_files == 1
