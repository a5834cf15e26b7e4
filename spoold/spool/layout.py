"""The tables of the spool: directories, states, transitions.

Spec: spool-layout.md, "Directories", "States" and "Transitions"; a test reads those tables there and fails when they
and these differ. ``create`` makes a spool from the first one.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from spoold.model.errors import OperatorError


class Directory(NamedTuple):
    """A directory of the spool: its path below the root, its mode, and what it is for."""

    path: str
    mode: int
    holds: str


class State(NamedTuple):
    """A state of a submission: the file that makes it so, and what else may be there meanwhile."""

    name: str
    entry: str
    beside: str


class Transition(NamedTuple):
    """A step between two states, the actor that takes it, and the file operation that is the step."""

    source: str
    target: str
    actor: str
    step: str


DIRECTORIES = (
    Directory(".", 0o711, "the root: can be entered, not listed"),
    Directory("incoming", 0o1733, "the drop box: clients create files here and nothing else"),
    Directory("new", 0o700, "accepted submissions that nobody works on"),
    Directory("building", 0o700, "submissions that wait for their dependencies"),
    Directory("running", 0o700, "submissions that an executor holds"),
    Directory("done", 0o711, "finished submissions and the responses"),
    Directory("progress", 0o711, "side files: the response so far, for its owner to read"),
    Directory("tmp", 0o700, "private: everything is written here first"),
    Directory("quarantine", 0o700, "what could not be read, or killed its workers, with the reason"),
    Directory("builds", 0o700, "the Build store"),
    Directory("builds/new", 0o700, "builds that nobody works on"),
    Directory("builds/building", 0o700, "builds that a builder holds"),
    Directory("builds/done", 0o700, "finished builds and their results"),
    Directory("builds/tmp", 0o700, "private: results of builds are written here first"),
    Directory("builds/collect", 0o700, "orders to collect the dependency cache, and what came of them"),
    Directory("builds/used", 0o700, "one empty file per build and user; its mtime is when it was last wanted"),
)

STATES = (
    State("dropped", "incoming/<id>.json", ""),
    State("new", "new/<id>.json or new/<id>@<n>.json", "progress/<id>.json"),
    State("building", "building/<id>@<n>.json", "progress/<id>.json"),
    State("running", "running/<id>@<n>.json", "progress/<id>.json; tmp/<id>@<n>.response.json"),
    State("committed", "done/<id>.json", "progress/<id>.json; tmp/<id>@<n>.response.json"),
    State("done", "done/<id>.json and done/<id>.response.json", ""),
)

TRANSITIONS = (
    Transition("dropped", "new", "intake", "link tmp/<id>.accept.json to new/<id>.json"),
    Transition("dropped", "committed", "intake", "link tmp/<id>.accept.json to done/<id>.json"),
    Transition("new", "building", "executor", "rename new/<id>@<n>.json to building/<id>@<n>.json"),
    Transition("new", "running", "executor", "rename new/<id>@<n>.json to running/<id>@<n>.json"),
    Transition("building", "running", "executor", "rename building/<id>@<n>.json to running/<id>@<n>.json"),
    Transition("building", "new", "health", "rename building/<id>@<n>.json to new/<id>@<n+1>.json"),
    Transition("running", "new", "health", "rename running/<id>@<n>.json to new/<id>@<n+1>.json"),
    Transition("running", "new", "executor", "rename running/<id>@<n>.json to new/<id>@<m>.json"),
    Transition("running", "running", "health", "rename running/<id>@<n>.json to running/<id>@<n+1>.json"),
    Transition("new", "running", "intake", "rename new/<id>@<n>.json to running/<id>@9999.json"),
    Transition("building", "running", "intake", "rename building/<id>@<n>.json to running/<id>@9999.json"),
    Transition("running", "running", "intake", "rename running/<id>@<n>.json to running/<id>@9999.json"),
    Transition("running", "committed", "holder", "rename running/<id>@<n>.json to done/<id>.json"),
    Transition("committed", "done", "holder", "link tmp/<id>@<n>.response.json to done/<id>.response.json"),
    Transition("done", "committed", "operator", "remove done/<id>.response.json"),
    Transition("committed", "new", "operator", "rename done/<id>.json to new/<id>.json"),
)


def create(root: str) -> list[str]:
    """Make what is missing of a spool, with the modes of the table; return the paths that were made or mended.

    What exists keeps its owner; a mode that differs is set back, since a drop box that can be listed leaks names.
    """
    changed = []
    for directory in DIRECTORIES:
        path = os.path.normpath(os.path.join(root, directory.path))
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            changed.append(path)
        if os.stat(path).st_mode & 0o7777 != directory.mode:
            os.chmod(path, directory.mode)
            changed.append(path)
    return sorted(set(changed))


def check(root: str) -> None:
    """Raise :class:`OperatorError` unless ``root`` holds a spool."""
    for directory in DIRECTORIES:
        path = os.path.join(root, directory.path)
        if not os.path.isdir(path):
            raise OperatorError(f"{path} is missing: make the spool with `spoolctl init --spool {root}`")
