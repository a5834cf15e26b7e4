"""The cases by which programs are graded, as requests.

A request has as many cases as fit into it, and as a daemon accepts. So most programs are one request, and are compiled
once. Large test data need several requests. So do checker arguments that differ between cases, because a request has
one list of them. Tests are read when a request is made, and are encoded once for all programs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from spoold.cli.grading.cases import Test, content
from spoold.cli.records import shown
from spoold.cli.text import printable
from spoold.client.request import File, as_bytes, encoded

ROOM = 12 << 20  # bytes of cases in a request; a daemon takes 16 MiB unless its operator says otherwise
MOST = 1000  # cases in a request
MOST_CHARACTERS = 100  # of a name
Chunk = tuple[int, ...]  # the cases of a request, by their places


class Suite(NamedTuple):
    """The cases, and the keys of requests that say how to judge them. ``hide``: responses tell little of hidden cases.

    ``checker`` has no ``args``, because each case has its own. Where it ``talks``, it is an interactor.
    """

    tests: Sequence[Test]
    compare: Mapping[str, Any] | None = None
    checker: Mapping[str, Any] | None = None
    talks: bool = False
    stop: bool | str = False
    hide: bool = False
    keys: Mapping[str, Any] = {}


class Requests:
    """The requests of a suite: one for each chunk of its cases and each program."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.names = case_names([test.name for test in suite.tests])
        self.groups = dict(
            zip((each := list(dict.fromkeys(test.group for test in suite.tests))), case_names(each), strict=True)
        )
        self._encoded = functools.lru_cache(maxsize=2)(self._encode)
        self.chunks = self._chunks()

    def _chunks(self) -> list[Chunk]:
        by_arguments: dict[tuple[str, ...], list[int]] = {}
        for place, test in enumerate(self.suite.tests):
            by_arguments.setdefault(test.checker_arguments if self.suite.checker else (), []).append(place)
        return [chunk for places in by_arguments.values() for chunk in self._split(places)]

    def _split(self, places: list[int]) -> list[Chunk]:
        chunks: list[list[int]] = [[]]
        room = ROOM
        for place in places:
            size = len(self._case(place))
            if chunks[-1] and (size > room or len(chunks[-1]) == MOST):
                chunks.append([])
                room = ROOM
            chunks[-1].append(place)
            room -= size
        return [tuple(chunk) for chunk in chunks]

    def _encode(self, chunk: Chunk) -> msgspec.Raw:
        return msgspec.Raw(b"[%s]" % b",".join(map(self._case, chunk)))

    def _case(self, place: int) -> bytes:
        test = self.suite.tests[place]
        case: dict[str, Any] = {"name": self.names[place]}
        if test.input:
            case["inputs"], case["inputs_encoding"] = encoded(content(test.input))
        if test.answer:
            text, encoding = encoded(content(test.answer))
            case["expected"] = {"stdout": text, "encoding": encoding}
        if test.group:
            case["group"] = self.groups[test.group]
        if test.points != 1:
            case["points"] = test.points
        if test.hidden and self.suite.hide:
            case["hidden"] = True
        if test.compare is not None and not self.suite.checker:
            case["compare"] = test.compare
        if test.arguments is not None:
            case["args"] = test.arguments
        return msgspec.json.encode(case)

    def request(self, files: Sequence[File], chunk: Chunk, over: Mapping[str, Any]) -> bytes:
        """Return the request for a program. ``over`` are further keys of it, such as limits."""
        request: dict[str, Any] = {"files": files, **self.suite.keys, **over, "cases": self._encoded(chunk)}
        if self.suite.compare is not None and not self.suite.checker:
            request["compare"] = self.suite.compare
        if self.suite.checker is not None:
            kind = "interactor" if self.suite.talks else "checker"
            request[kind] = {**self.suite.checker, "args": self.suite.tests[chunk[0]].checker_arguments}
        if self.suite.stop:
            request["stop_on_failure"] = self.suite.stop
        return as_bytes(request)


def case_names(names: Sequence[str]) -> list[str]:
    """Return names that a request accepts: without control characters, not too long, and each different."""
    made: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(names):
        text = printable(shown(name))
        if len(text) > MOST_CHARACTERS:
            text = f"{text[: MOST_CHARACTERS - 10]}~{number}"
        if text in taken:
            text = f"{text[: MOST_CHARACTERS - 10]}~{number}"
        taken.add(text)
        made.append(text)
    return made
