"""The wire: the codec, and a stream whose other end is not a supervisor."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoold.engines.docker.framing import Attached
from spoold.sandbox import RunCancelledError, stream, wire
from spoold.sandbox.messages import KNOWN, VERSION, Again, Bounds, Broken, Order, Ready, Refused, parse
from spoold.sandbox.returned import NOTHING
from spoold.sandbox.stream import BrokenError, ClosedError, Stream

VALUES: st.SearchStrategy[object] = st.recursive(
    st.integers(-(10**18), 10**18) | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


REFUSED = Refused(reason=b"why")
READY = Ready(
    version=VERSION, no_new_privileges=1, seccomp=2, capabilities=224, memory=1 << 63, weight=-1, kernel=b"one"
)
BOUNDS = Bounds(**{name: b"end" if kind == "bytes" else 1 for name, kind in Bounds.FIELDS.items()})  # type: ignore[arg-type]


def sent(value: object) -> bytes:
    """Return the frame of a value that need not be a message."""
    body = wire.encode(value)
    return len(body).to_bytes(4, "big") + body


MESSAGES = (10, "3338ba12a03bbdc0")  # the version, and the digest of what all messages are made of


def test_a_change_of_the_messages_has_a_number() -> None:
    digest = hashlib.sha256(repr({name: known.FIELDS for name, known in KNOWN.items()}).encode()).hexdigest()[:16]
    assert (VERSION, digest) == MESSAGES, "raise VERSION: a supervisor that is older knows others"


@settings(deadline=None)
@given(VALUES)
def test_what_is_encoded_is_decoded(value: object) -> None:
    assert wire.decode(wire.encode(value), depth=20) == value


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        wire.decode(data)
    except ValueError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i1",
        b"ie",
        b"i" + b"9" * 1000 + b"e",
        b"5:abc",
        b"99999999999999999999:",
        b"-1:a",
        b"l",
        b"d1:ae",
        b"di1ei2ee",
        b"i1ei1e",
        b"l" * 100_000,
        b"d1:\xffi1ee",
    ],
)
def test_what_is_not_bencode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any message will do)
        wire.decode(data)


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    """Yield a stream and its other end."""
    ours, theirs = socket.socketpair()
    stream = Stream(Attached(ours), threading.Event())
    yield stream, theirs
    stream.close()
    theirs.close()


def framed(data: bytes, stream: int = 1) -> bytes:
    """Return ``data`` as the engine sends it."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def test_a_message_in_pieces(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    whole = b"".join(framed(bytes((byte,))) for byte in wire.frame(REFUSED) + b"raw")
    theirs.sendall(framed(b"noise", stream=2) + whole)
    assert stream.message(5, Refused) == REFUSED
    assert stream.take(3, time.monotonic() + 5) == b"raw"
    assert "noise" in stream.diagnostics()


@pytest.mark.parametrize(
    "data",
    [
        framed(b"\xff\xff\xff\xff"),
        framed((5).to_bytes(4, "big") + b"hello"),
        framed(wire.frame(REFUSED)[:-1] + b"x"),
        framed(wire.frame(Again())),
        framed(sent(REFUSED.value() | {"reason": 1})),
        framed(sent(REFUSED.value() | {"more": b"x"})),
        framed(sent({"event": "Refused"})),
        framed((3).to_bytes(4, "big") + b"i1e"),
        framed(b"\0"),
        b"",
    ],
)
def test_garbage_closes(ends: tuple[Stream, socket.socket], data: bytes) -> None:
    stream, theirs = ends
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedError):
        stream.message(5, Refused)


def test_a_bug_on_the_other_side_is_told(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    theirs.sendall(framed(wire.frame(Broken(story=b"left out\n  cell.c:7"))))
    with pytest.raises(BrokenError, match=r"left out\n  cell\.c:7"):
        stream.message(5, Refused)


def test_a_program_that_speaks_another_version_is_not_listened_to(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    theirs.sendall(framed(wire.frame(READY)))
    assert stream.greeting(5) == READY
    theirs.sendall(framed(sent(READY.value() | {"version": VERSION + 1})))
    with pytest.raises(ClosedError, match="speaks version"):
        stream.greeting(5)


def test_a_message_has_all_its_fields_and_no_other() -> None:
    order = Order(
        argv=[b"x"],
        words=[],
        env=[b"A=b"],
        script=b"",
        input=1,
        last=0,
        live=0,
        talks=0,
        limits=BOUNDS,
        outputs=NOTHING,
    )
    assert parse(wire.decode(wire.encode(order.value())), Order) == order
    assert order.limits.stack == BOUNDS.stack
    for wrong in (
        BOUNDS.fields() | {"new": 1},
        dict(list(BOUNDS.fields().items())[1:]),
        BOUNDS.fields() | {"time": b""},
    ):
        with pytest.raises(ValueError, match=r"fields|no number"):
            Bounds(**wrong)  # type: ignore[arg-type]


def test_silence_is_bounded(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    with pytest.raises(ClosedError, match="does not answer"):
        stream.message(0.3, Refused)
    with pytest.raises(ClosedError, match="does not answer"):
        stream.send([b"x" * 10**8], 0.3)


def test_the_callers_event_ends_a_wait(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    threading.Timer(0.2, stream.cancelled.set).start()
    with pytest.raises(RunCancelledError):
        stream.message(20, Refused)


def test_a_message_that_was_on_its_way_then_is_read_afterwards(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    whole = wire.frame(Refused(reason=b"no room"))
    for first in (2, 4, len(whole) - 1):
        theirs.sendall(framed(whole[:first]))
        stream.cancelled.clear()
        threading.Timer(0.1, stream.cancelled.set).start()
        with pytest.raises(RunCancelledError):
            stream.message(20, Refused)
        theirs.sendall(framed(whole[first:]))
        with stream.heedless():
            assert stream.message(20, Refused) == Refused(reason=b"no room")
        assert stream.cancelled.is_set()


def test_last_words_are_short_and_escaped(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    theirs.sendall(framed(b"x" * 10000 + b"\x1b[31m\nTraceback", stream=2))
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedError) as caught:
        stream.message(5, Refused)
    assert "Traceback" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        ([], []),
        ([0, 0], []),
        ([1, 2, 3], [6]),
        ([65536], [65536]),
        ([65536, 1], [65536, 1]),
        ([1, 65537, 1, 2], [1, 65537, 3]),
        ([40_000, 40_000, 20_000], [40_000, 60_000]),
        ([1] * 70_000, [65536, 70_000 - 65536]),
    ],
)
def test_what_is_small_is_sent_at_once(sizes: list[int], pieces: list[int]) -> None:
    parts = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    joined = list(stream._joined(parts))
    assert [len(piece) for piece in joined] == pieces
    assert b"".join(joined) == b"".join(parts)
