"""The state of a phase that still runs, with the ends of its outputs.

Spec: spool-layout.md, "Output on the way". The end of an output is cut out of a text, so it may begin and end within a
character. A client that follows the output has to know which bytes it has. So a part of a character at the end is not
counted yet.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from spoold.model.response import Phase, Stream, cut_at_character, encode_stream

MOST_REST = 3  # bytes that a character in UTF-8 has after its first one


def phase_so_far(
    *,
    stdout: Stream,
    stderr: Stream,
    time: float,
    cpu_time: float | UnsetType = UNSET,
    memory: int | UnsetType = UNSET,
) -> Phase:
    """Make the record of a running phase, without an outcome. The ``data`` of each stream are its last bytes."""
    out, out_encoding, out_end = _shown(stdout)
    err, err_encoding, err_end = _shown(stderr)
    return Phase(
        stdout=out,
        stderr=err,
        time=round(time, 6),
        cpu_time=cpu_time if cpu_time is UNSET else round(cpu_time, 6),
        memory=memory,
        stdout_bytes=out_end,
        stdout_truncated=stdout.total > len(stdout.data),
        stdout_encoding=out_encoding,
        stderr_bytes=err_end,
        stderr_truncated=stderr.total > len(stderr.data),
        stderr_encoding=err_encoding,
    )


def _shown(stream: Stream) -> tuple[str, str, int]:
    """Return the end of an output as text, its encoding, and how many bytes were written up to where the text ends."""
    data = stream.data
    at = 0
    while stream.total > len(data) and at < min(MOST_REST, len(data)) and data[at] & 0xC0 == 0x80:
        at += 1
    whole = cut_at_character(data)
    text, encoding = encode_stream(whole[at:])
    if encoding == "utf8":
        return text, encoding, stream.total - (len(data) - len(whole))
    return *encode_stream(data), stream.total
