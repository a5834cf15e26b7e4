"""What Nix says, as a client should read it.

Theory of operation: the client knows one file, ``cutor.nix``, and has never seen the host. So where the jail keeps
that file is taken out of messages, with the warnings that only concern whoever started Nix.
"""

from __future__ import annotations

import re

from spoold.model.response import Stream

_NOISE = re.compile(
    rb"^(?:warning: unable to load nss_dns backend"
    rb"|warning: you did not specify '--add-root'; .*"
    rb"|\(use '--show-trace' to show detailed location information\)"
    rb")\n",
    re.MULTILINE,
)
_SIBLING = re.compile(rb"'/w/[^']*': No such file or directory")
_ALONE = b"cutor.nix is evaluated alone: it cannot import other files of the submission\n"


def for_client(stream: Stream) -> Stream:
    """Return Nix's stderr without noise and without places that only exist in the jail."""
    text = _NOISE.sub(b"", stream.data)
    alone = _ALONE if _SIBLING.search(text) else b""
    text = text.replace(b"/w/", b"") + alone
    return Stream(text, len(text) + max(0, stream.total - len(stream.data)))


def joined(*streams: Stream) -> Stream:
    """Return one stream of several."""
    return Stream(b"".join(stream.data for stream in streams), sum(stream.total for stream in streams))


def noted(stream: Stream, note: str) -> Stream:
    """Return ``stream`` with a note of spoold's at its end."""
    line = f"spoold: {note}\n".encode()
    return joined(stream, Stream(line, len(line)))
