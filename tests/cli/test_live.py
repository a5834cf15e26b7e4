"""Output during a run: each byte once and in its place, or the newest bytes and how many were missed."""

from __future__ import annotations

from typing import Any

import pytest

from spoold.cli.live import Streams
from spoold.client.response import Case, Phase, Response

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, bytes]] = []
        self.notes: list[str] = []

    def write(self, phase: str, stream: str, data: bytes) -> None:
        self.written.append((phase, stream, data))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def text(self, phase: str = "run", stream: str = "stdout") -> str:
        return b"".join(data for *key, data in self.written if key == [phase, stream]).decode()


def so_far(start: int, end: int) -> Response:
    """Return a response of a running program that has printed letters up to ``end``. It has those from ``start`` on."""
    return Response(status="RUNNING", run=Phase(stdout=LETTERS[start:end], stdout_bytes=end, stderr_bytes=0))


def ended(kept: int = 26, **more: Any) -> Response:
    run = Phase(stdout=LETTERS[:kept], stdout_bytes=26, stdout_truncated=kept < 26, outcome="ok")
    return Response(**{"status": "COMPLETED", "run": run, **more})


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [(0, 1)],
        [(0, 3), (1, 5), (1, 5), (5, 26)],
        [(0, 3), (10, 12), (11, 20)],  # some letters are missed
        [(4, 6)],
        [(0, 3), (2, 3)],
    ],
)
def test_each_byte_is_written_once_and_in_its_place(looks: list[tuple[int, int]]) -> None:
    sink = Kept()
    streams = Streams(sink, whole=True)
    for start, end in looks:
        streams.take(so_far(start, end), ended=False)
        assert LETTERS.startswith(sink.text())
    streams.take(ended(), ended=True)
    assert (sink.text(), sink.notes) == (LETTERS, [])


def test_what_is_contiguous_is_written_at_once() -> None:
    sink = Kept()
    streams = Streams(sink, whole=True)
    for start, end in ((0, 3), (1, 5)):
        streams.take(so_far(start, end), ended=False)
        assert sink.text() == LETTERS[:end]


def test_the_newest_is_written_with_a_note_of_what_was_missed() -> None:
    sink = Kept()
    streams = Streams(sink, whole=False)
    for start, end in ((2, 4), (3, 6), (10, 12)):
        streams.take(so_far(start, end), ended=False)
    streams.take(ended(), ended=True)
    assert sink.text() == "cdef" + "kl" + LETTERS[12:]
    assert [note.split()[1] for note in sink.notes] == ["2", "4"]


def test_more_may_be_seen_than_is_kept() -> None:
    sink = Kept()
    streams = Streams(sink, whole=True)
    streams.take(so_far(0, 20), ended=False)
    streams.take(ended(kept=5), ended=True)
    assert sink.text() == LETTERS[:20]
    assert sink.notes == ["... 6 bytes of run stdout after this were not kept: --limit stdout=SIZE keeps more"]


def test_phases_before_the_run_are_shown_where_they_failed_or_all_is_asked_for() -> None:
    warned = ended(compile=Phase(stderr="warning", outcome="ok"))
    failed = Response(status="COMPILE_FAILED", compile=Phase(stderr="error", outcome="nonzero_exit"))
    unbuilt = Response(status="DEPENDENCIES_FAILED", dependencies=Phase(stderr="no such", outcome="nonzero_exit"))
    for whole, shown in ((True, ["", "error"]), (False, ["warning", "error"])):
        sinks = [Kept(), Kept(), Kept()]
        for sink, response in zip(sinks, (warned, failed, unbuilt), strict=True):
            Streams(sink, whole=whole).take(response, ended=True)
        assert [sink.text("compile", "stderr") for sink in sinks] == [*shown, ""]
        assert sinks[2].text("dependencies", "stderr") == "no such"


def test_cases_are_shown_when_all_have_ended() -> None:
    sink = Kept()
    cases = [Case(name="a", verdict="accepted", run=Phase(stdout="1", outcome="ok"))]
    Streams(sink, whole=False).take(Response(status="RUNNING", cases=cases), ended=False)
    assert sink.written == []
    Streams(sink, whole=False).take(ended(cases=cases, run=Phase(outcome="skipped")), ended=True)
    assert (sink.text("case a"), sink.notes) == ("1", ["case a: accepted"])
