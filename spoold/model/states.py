"""The words that all of spoold uses: kinds of entries, their states, and the roles of the daemons.

Spec: spool-layout.md, "States" and "Users". Code that goes through all states or roles is made from these lists. So the
check, health and the metrics see each addition. Where code needs something of its own for each, a ``match`` ends with
``assert_never``, or a test compares its table with these: the tables of spool-layout, the daemons, the metrics.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of an entry, in the order of the flow. It is the name of the directory."""

    NEW = "new"
    BUILDING = "building"
    RUNNING = "running"
    DONE = "done"


class Kind(StrEnum):
    """The kind of an entry."""

    SUBMISSION = "submission"
    BUILD = "build"

    @property
    def flow(self) -> tuple[State, ...]:
        """Return the states that an entry goes through."""
        return FLOWS[self]

    @property
    def held(self) -> tuple[State, ...]:
        """Return the states in which a worker holds an entry, or a submission waits for its build."""
        return self.flow[1:-1]

    @property
    def leased(self) -> tuple[State, ...]:
        """Return the states in which a worker renews its lease. A submission that waits for a build has no lease."""
        return tuple(state for state in self.held if (self, state) not in UNLEASED)

    @property
    def on_its_way(self) -> tuple[State, ...]:
        """Return all states but the last."""
        return self.flow[:-1]

    def directory(self, state: State) -> str:
        """Return the directory of a state, below the root of the spool."""
        return f"{ROOTS[self]}{state}"


FLOWS = {Kind.SUBMISSION: tuple(State), Kind.BUILD: (State.NEW, State.BUILDING, State.DONE)}
UNLEASED = ((Kind.SUBMISSION, State.BUILDING),)  # its build has the lease
ROOTS = {Kind.SUBMISSION: "", Kind.BUILD: "builds/"}


class Role(StrEnum):
    """A daemon, by the name of its command."""

    INTAKE = "intake"
    EXECUTOR = "executor"
    BUILDER = "builder"
    HEALTH = "health"
    SCALE = "scale"


ALWAYS = tuple(role for role in Role if role is not Role.SCALE)  # every spool has these roles. Scale needs a pool
