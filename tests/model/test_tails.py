"""The end of an output tells which bytes it has, wherever it is cut."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from spoold.model.response import Response, Stream
from spoold.model.short import in_short
from spoold.model.tails import phase_so_far

TEXTS = st.text(alphabet="aé€𝄞\n", max_size=30)
NOTHING = Stream(b"", 0)


def shown(written: bytes, most: int) -> tuple[bytes, int, bool, str]:
    """Return the bytes shown of the last ``most``, where they end, whether more came before, and the encoding."""
    tail = written[-most:] if most else b""
    phase = phase_so_far(stdout=Stream(tail, len(written)), stderr=NOTHING, time=1.0)
    data = base64.b64decode(phase.stdout) if phase.stdout_encoding == "base64" else phase.stdout.encode()
    assert isinstance(phase.stdout_bytes, int)
    assert isinstance(phase.stdout_truncated, bool)
    return data, phase.stdout_bytes, phase.stdout_truncated, str(phase.stdout_encoding)


@given(TEXTS, st.integers(0, 40), st.integers(0, 40))
def test_of_a_text_whole_characters_are_shown(text: str, written: int, most: int) -> None:
    whole = text.encode()[:written]
    data, end, more, encoding = shown(whole, most)
    assert encoding == "utf8"
    assert whole[end - len(data) : end] == data
    assert len(whole) - end <= 3
    assert len(data) >= min(most, len(whole)) - 6
    assert more == (len(whole) > most)


@given(st.binary(max_size=30), st.integers(0, 40))
def test_whatever_is_written_it_is_known_which_bytes_are_shown(written: bytes, most: int) -> None:
    data, end, _, _ = shown(written, most)
    assert written[end - len(data) : end] == data
    assert len(written) - end <= 3


def test_what_begins_an_output_is_not_cut() -> None:
    data, end, more, encoding = shown(b"\x80abc", 10)
    assert (data, end, more, encoding) == (b"\x80abc", 4, False, "base64")


def test_it_stays_as_it_is_in_a_side_file() -> None:
    phase = phase_so_far(stdout=Stream(b"x" * 65536, 70000), stderr=NOTHING, time=1.0)
    assert in_short(Response(run=phase)).run == phase
