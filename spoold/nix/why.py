"""The answer to "Why is this path in the store?": the roots that need it, and through which references.

Theory of operation: for each root that needs the path, a shortest chain of references is found in the graph that
collections use (:mod:`spoold.nix.usage`). The store's owner reads it, and not root: reading Nix's database may make
files beside it.
"""

from __future__ import annotations

import sys

import msgspec

from spoold.config import NixSettings
from spoold.host import userns
from spoold.nix import seat
from spoold.nix.store import Store
from spoold.nix.usage import Graph

SECONDS = 120.0


class Chain(msgspec.Struct, frozen=True):
    """A root that needs a path, such as ``builds/<build id>``, and store paths that each refer to the next one."""

    root: str
    paths: list[str]


class Why(msgspec.Struct, frozen=True):
    """The size of a path in bytes, None where it is not in the store, and a shortest chain from each root to it."""

    size: int | None
    chains: list[Chain] = []


class _Question(msgspec.Struct, frozen=True):
    settings: NixSettings
    path: str


def why(settings: NixSettings, path: str) -> Why:
    """Return what needs the store path ``path``.

    Raises :class:`OperatorError` where this user does not own the store and cannot become its owner, and
    :class:`TemporaryError` where the store cannot be read.
    """
    question = _Question(settings, path)
    if seat.is_taken(settings):
        return _answer(question)
    return msgspec.json.decode(seat.run(settings, __name__, msgspec.json.encode(question), SECONDS), type=Why)


def _answer(question: _Question) -> Why:
    store = Store(question.settings)
    graph = Graph(store)
    step = graph.next_towards(question.path)
    chains = [
        Chain(root, _chain(step, target)) for root, target in sorted(store.roots.targets().items()) if target in step
    ]
    return Why(graph.size.get(question.path), chains)


def _chain(step: dict[str, str], start: str) -> list[str]:
    found = [start]
    while step[found[-1]]:
        found.append(step[found[-1]])
    return found


if __name__ == "__main__":
    userns.at_start()
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    sys.stdout.buffer.write(msgspec.json.encode(_answer(asked)))
