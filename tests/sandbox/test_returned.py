"""The worker checks all that a supervisor says about returned files before it believes any of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from spoold.engines.docker.framing import Attached
from spoold.host.spill import Spill
from spoold.model.errors import TemporaryError
from spoold.model.outputs import Output as Asked
from spoold.model.outputs import Returned, Wanted
from spoold.sandbox import RunCancelledError, wire
from spoold.sandbox.messages import Output, Outputs
from spoold.sandbox.returned import after, collect, order_of, room
from spoold.sandbox.stream import ClosedError, Stream
from tests.returned import contents
from tests.sandbox.test_stream import framed

WANTED = Wanted(
    outputs=[Asked(path="a*", required=True), Asked(path="b/**", required=True)], files=4, file_size=10, total=20
)
NOTHING_LEFT_OUT = dict.fromkeys(("large", "many", "total", "odd", "names", "closed", "deep", "slow"), 0)
Ends = tuple[Stream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    stream = Stream(Attached(ours), threading.Event())
    yield stream, theirs
    stream.close()
    theirs.close()


def file(name: bytes, data: bytes = b"data", *, mode: int = 0o644, matched: int = 1, size: int | None = None) -> bytes:
    said = Output(name=name, mode=mode, matched=matched, size=len(data) if size is None else size)
    return wire.frame(said) + data


def end(*, failed: bytes = b"", whole: int = 1, counts: dict[str, int] | None = None) -> bytes:
    return wire.frame(Outputs(**NOTHING_LEFT_OUT | (counts or {}), failed=failed, whole=whole))


def told(ends: Ends, *parts: bytes, wanted: Wanted = WANTED, contents: Spill | None = None) -> Returned:
    stream, theirs = ends
    theirs.sendall(b"".join(framed(part) for part in parts))
    theirs.shutdown(socket.SHUT_WR)
    return collect(stream, wanted, "run", room("") if contents is None else contents)


def test_what_a_supervisor_is_told() -> None:
    order = order_of(WANTED)
    assert (order.patterns, order.files, order.file_size, order.total) == ([b"a*", b"b/**/*"], 4, 10, 20)
    assert order_of(None).patterns == []


def test_files_are_in_the_order_of_their_names(ends: Ends) -> None:
    found = told(ends, file(b"b", b"2", mode=0o106755), file(b"a", b"1"), file(b"empty", b"", matched=2), end())
    assert [(each.name, each.mode) for each in found.files] == [("a", 0o644), ("b", 0o755), ("empty", 0o644)]
    assert contents(found) == {"a": b"1", "b": b"2", "empty": b""}
    assert (found.missing, found.notes) == ([], [])


BAD = (
    *(b"", b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"a/", b"./a", b"-rf", b"a/-b", b"\xff", b"a\nb", b"a\x1b[2J"),
    *("\u0085".encode(), "\u2028".encode(), "\ud800".encode(errors="surrogatepass"), b"a\\b", b"n" * 256, b"a\0b"),
    *(b"a/" * 33 + b"b", b"x/" * 512 + b"y"),
)


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_no_request_can_have_is_counted(ends: Ends, name: bytes) -> None:
    found = told(ends, file(name), file(b"a", b"next"), end(counts={"names": 2}))
    assert contents(found) == {"a": b"next"}
    assert found.notes == ["run.outputs: 3 left out, a name that no request can have"]
    assert found.missing == ["b/**"]


def test_of_names_that_are_one_to_some_file_systems_the_first_comes(ends: Ends) -> None:
    found = told(
        ends, file(b"A", b"1"), file(b"a", b"2", matched=2), file("e\u0301".encode()), file("\u00e9".encode()), end()
    )
    assert contents(found) == {"A": b"1", "e\u0301": b"data"}
    assert found.missing == ["b/**"], "a file that is left out matches nothing"


@pytest.mark.parametrize(("first", "then"), [(b"a", b"A/b/c"), (b"a/b/c", b"A"), (b"a/b/c", b"a/B"), (b"a", b"a/b")])
def test_no_name_is_a_file_and_a_directory_to_any_file_system(ends: Ends, first: bytes, then: bytes) -> None:
    """No request could have both, and such a tar could not be unpacked everywhere."""
    found = told(ends, file(first), file(then, matched=2), file(b"ab"), end())
    assert contents(found) == {first.decode(): b"data", "ab": b"data"}
    assert found.missing == ["b/**"]
    assert found.notes == ["run.outputs: 1 left out, a name that no request can have"]


@pytest.mark.parametrize(
    "parts",
    [
        [file(b"a", bytes(11)), end()],
        [file(b"a", b"", size=-1), end()],
        [file(b"a", bytes(10)), file(b"b", bytes(10)), file(b"c", b"x"), end()],
        [*(file(b"%d" % number, b"") for number in range(5)), end()],
        [file(b"a", b"", size=1 << 63)],
        [wire.frame(order_of(None))],
        [b"\xff\xff\xff\xff"],
        [file(b"a", b"half", size=10)],
        [file(b"a")],
    ],
    ids=["large", "negative", "total", "many", "huge", "another message", "garbage", "half", "no end"],
)
def test_what_was_not_asked_for_is_garbage(ends: Ends, parts: list[bytes]) -> None:
    with pytest.raises(ClosedError):
        told(ends, *parts)


def test_a_file_that_is_not_whole_does_not_come_back(ends: Ends) -> None:
    found = told(ends, file(b"a", b"1"), file(b"b", bytes(9), matched=2), end(failed=b"ended", whole=0))
    assert contents(found) == {"a": b"1"}
    assert found.missing == ["b/**"]
    assert found.notes == ["run.outputs: reading them ended too early, perhaps since memory is short"]


def test_where_the_last_one_was_left_out_none_other_goes_for_it(ends: Ends) -> None:
    assert contents(told(ends, file(b"a", b"1"), file(b"-", b"2"), end(whole=0))) == {"a": b"1"}


@pytest.mark.parametrize("failed", [b"memory", b"time", b"anything"])
def test_what_failed_is_noted(ends: Ends, failed: bytes) -> None:
    (note,) = told(ends, end(failed=failed)).notes
    assert note.startswith("run.outputs: ")
    assert "anything" not in note


def test_each_count_has_a_note(ends: Ends) -> None:
    counts = {name: 7 for name in NOTHING_LEFT_OUT if name != "slow"}
    notes = told(ends, end(counts=counts | {"slow": 1})).notes
    assert len(set(notes)) == 8
    assert all(note.startswith("run.outputs: 7 ") for note in notes[:-1])
    assert "10 bytes" in notes[0]
    assert "4 files" in notes[1]
    assert "20 bytes" in notes[2]


def test_counts_below_zero_are_none(ends: Ends) -> None:
    assert told(ends, end(counts={"large": -1})).notes == []


def test_several_phases_share_the_room_for_contents(ends: Ends) -> None:
    stream, theirs = ends
    contents_of_all = room("")
    theirs.sendall(
        b"".join(framed(part) for part in (file(b"a", b"1"), end(), file(b"a", b"2"), file(b"b", b"3"), end()))
    )
    first, second = (collect(stream, WANTED, where, contents_of_all) for where in ("cases[0]", "cases[1]"))
    assert [list(first.contents.pieces(each.at, each.size)) for each in first.files] == [[b"1"]]
    assert contents(second) == {"a": b"2", "b": b"3"}


def test_a_cancel_ends_it(ends: Ends) -> None:
    stream, theirs = ends
    theirs.sendall(framed(file(b"a")))
    stream.cancelled.set()
    with pytest.raises(RunCancelledError):
        collect(stream, WANTED, "run", room(""))


def test_of_a_sandbox_that_is_lost_for_want_of_memory_nothing_comes_back(ends: Ends) -> None:
    stream, theirs = ends
    theirs.sendall(framed(file(b"a")))
    theirs.shutdown(socket.SHUT_WR)
    found = after(stream, WANTED, "run", room(""), lambda: True)
    assert (found.files, found.missing) == ([], ["a*", "b/**"])
    (note,) = found.notes
    assert "memory ran out" in note
    with pytest.raises(TemporaryError, match="lost"):
        after(stream, WANTED, "run", room(""), lambda: False)


def test_several_phases_share_a_place_and_what_does_not_come_back_takes_none(ends: Ends) -> None:
    """Otherwise each of a thousand cases could leave as much on the host's disk as all of them together may."""
    kept = room("")
    kept.add(b"before")
    found = told(ends, file(b"a", b"1"), file(b"b", bytes(9)), end(failed=b"ended", whole=0), contents=kept)
    assert ([each.at for each in found.files], kept.size) == ([6], 7)
    assert b"".join(kept.pieces(0, 7)) == b"before1"


def test_where_a_sandbox_is_lost_nothing_is_kept_of_what_came_before(ends: Ends) -> None:
    kept = room("")
    kept.add(b"before")
    with pytest.raises(ClosedError):
        told(ends, file(b"a", b"1"), file(b"b", b"half", size=10), contents=kept)
    assert kept.size == len(b"before")


def test_notes_of_a_case_tell_what_all_cases_may_have(ends: Ends) -> None:
    few = Wanted(outputs=WANTED.outputs, files=1, file_size=10, total=2, together=WANTED)
    found = told(ends, file(b"a", b"1"), end(counts={"many": 5, "total": 1, "large": 2}), wanted=few)
    assert found.notes == [
        "run.outputs: 2 left out, larger than 10 bytes",
        "run.outputs: 5 left out, beyond 4 files of all cases",
        "run.outputs: 1 left out, beyond 20 bytes of all cases",
    ]
