"""The words that all of spoold is written in: kinds of entries, their states, and the roles of the daemons.

Spec: spool-layout.md, "States" and "Users". Everything that goes through all states or roles is made from these, so
what is added here is seen by the check, by health, and by what is measured. Where each needs something of its own, a
``match`` ends with ``assert_never``, or a test compares the table with these: spool-layout's tables, the daemons, the
metrics.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an entry is, in the order of the flow: the name of the directory."""

    NEW = "new"
    BUILDING = "building"
    RUNNING = "running"
    DONE = "done"


class Kind(StrEnum):
    """What an entry is."""

    SUBMISSION = "submission"
    BUILD = "build"

    @property
    def flow(self) -> tuple[State, ...]:
        """Return the states that it goes through."""
        return FLOWS[self]

    @property
    def held(self) -> tuple[State, ...]:
        """Return the states in which a worker, or a build, has it."""
        return self.flow[1:-1]

    @property
    def leased(self) -> tuple[State, ...]:
        """Return the states in which a worker has it, and renews its mtime. What waits for a build has no lease."""
        return tuple(state for state in self.held if (self, state) not in UNLEASED)

    @property
    def on_its_way(self) -> tuple[State, ...]:
        """Return all states but the last."""
        return self.flow[:-1]

    def directory(self, state: State) -> str:
        """Return the directory of a state, below the root of the spool."""
        return f"{ROOTS[self]}{state}"


FLOWS = {Kind.SUBMISSION: tuple(State), Kind.BUILD: (State.NEW, State.BUILDING, State.DONE)}
UNLEASED = ((Kind.SUBMISSION, State.BUILDING),)  # its build has a lease
ROOTS = {Kind.SUBMISSION: "", Kind.BUILD: "builds/"}


class Role(StrEnum):
    """A daemon, by the name of its command."""

    INTAKE = "intake"
    EXECUTOR = "executor"
    BUILDER = "builder"
    HEALTH = "health"
    SCALE = "scale"


ALWAYS = tuple(role for role in Role if role is not Role.SCALE)  # of every spool; that one needs a pool
