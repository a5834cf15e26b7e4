"""A new state or role must be handled wherever code goes through all of them, or one of these tests fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spoold.actors.executor.ready import WAITING
from spoold.cli.roles import HELP
from spoold.config import Settings, SpoolSettings
from spoold.daemon import ROLES
from spoold.host.metrics import HELD, ON_ITS_WAY
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import FLOWS, ROOTS, Kind, Role, State
from spoold.spool import layout
from spoold.upkeep.check import Check
from spoold.upkeep.counting import PLACES

PLACED = [(kind, state) for kind in Kind for state in kind.flow]


def test_each_kind_has_a_flow_with_a_beginning_and_an_end() -> None:
    assert set(FLOWS) == set(ROOTS) == set(Kind)
    for kind in Kind:
        assert (kind.flow[0], kind.flow[-1]) == (State.NEW, State.DONE)
        assert kind.held, "some state has a worker"
        assert list(kind.flow) == [state for state in State if state in kind.flow], "in the order of the flow"
        assert kind.leased, "health checks whether a worker lives in some state"
    assert set(Kind.SUBMISSION.flow) == set(State)


@pytest.mark.parametrize(("kind", "state"), PLACED)
def test_each_state_has_a_directory_a_judge_and_a_measure(kind: Kind, state: State, tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    directory = kind.directory(state)
    assert directory in {each.path for each in layout.DIRECTORIES}
    (tmp_path / directory / "odd name").touch()
    named = [found.path for found in Check(Settings(spool=SpoolSettings(path=str(tmp_path))), "test").survey() if found]
    assert named == [os.path.join(directory, "odd name")]
    assert (directory in ON_ITS_WAY, directory in HELD) == (state is not State.DONE, state in kind.held)


@pytest.mark.parametrize("state", State)
def test_each_state_is_in_the_tables_of_the_spec(state: State) -> None:
    assert state in {row.name for row in layout.STATES}
    assert state in {row.target for row in layout.TRANSITIONS}
    assert state in {row.source for row in layout.TRANSITIONS}, "an entry can leave the state"
    assert ids.parse_entry(ids.entry_name(state, Entry("a", 1, 1000)))
    assert state in PLACES, "files there count as their owner's"


@pytest.mark.parametrize("state", Kind.SUBMISSION.on_its_way)
def test_from_each_state_there_is_a_way_on_an_end_and_a_way_back(state: State) -> None:
    rows = [row for row in layout.TRANSITIONS if row.source == state]
    assert "intake" in {row.actor for row in rows}, "intake can cancel from there"
    assert ("health" in {row.actor for row in rows}) == (state in Kind.SUBMISSION.held), "when its holder is dead"
    begins = ("executor", State.RUNNING) in {(row.actor, row.target) for row in rows}
    assert (state in WAITING) == begins, "the executor looks for work exactly where runs begin"


@pytest.mark.parametrize("role", Role)
def test_each_role_has_a_daemon_a_user_and_a_help(role: Role) -> None:
    assert role in ROLES
    assert layout.USERS[role] == f"spoold-{role}"
    assert HELP[role]
