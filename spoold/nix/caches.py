"""Binary caches: which ones there are, in which order they are asked, and how Nix is told.

Theory of operation: the settings name caches by their URLs, and what else a URL says after "?" is Nix's own syntax.
Nix asks them in the order of their priority, a number that a cache tells of itself (nix-cache-info) or its URL does:
the lowest first, and 0 where neither does. Among equals the order is ours. A directory on this host comes before all
that do not say otherwise, since it is the quickest.

A cache may be away, slow or broken. Nix gives up after seconds then. It leaves one alone that cannot be opened, and
ends where one fails later on: so whoever asked asks again, and only those that work (:mod:`spoold.nix.fetch`). A
password in a URL is shown to nobody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spoold.config import NixSettings
from spoold.model.errors import OperatorError
from spoold.nix import imports

FIRST = 0  # the priority of directories; caches over HTTP are usually 30 or more
CONNECT = 10  # seconds
STALLED = 30  # seconds without a byte
ATTEMPTS = 4  # of one download, with pauses of Nix's own between them
AT_ONCE = 16  # paths that are fetched
_LOCAL = ("file://", "/")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def urls(settings: NixSettings) -> list[str]:
    """Return the caches as Nix is to ask them: what the operator imported, then those of the settings."""
    first = imports.caches(Path(settings.state).absolute())
    first += [_first(url) for url in settings.substituters if is_local(url)]
    return first + [url for url in settings.substituters if not is_local(url)]


def _first(url: str) -> str:
    path = url.partition("?")[0]
    if url.startswith("/") and os.path.isfile(f"{path}/nix-cache-info"):
        url = f"file://{url}"  # a path by itself is a store to Nix, with a database
    return url if "priority=" in url else f"{url}{'&' if '?' in url else '?'}priority={FIRST}"


def is_local(url: str) -> bool:
    """Tell whether a cache is a directory of this host."""
    return url.startswith(_LOCAL)


def files(settings: NixSettings, asked: Sequence[str]) -> list[str]:
    """Return what of this host's is read to ask these caches: those that are directories, and the netrc for others.

    Raises :class:`OperatorError` where the netrc cannot be read.
    """
    local = [url.partition("?")[0].removeprefix("file://") for url in asked if is_local(url)]
    found = [path for path in local if os.path.isdir(path)]
    if not settings.netrc or all(map(is_local, asked)):
        return found
    if not (os.path.isfile(settings.netrc) and os.access(settings.netrc, os.R_OK)):
        raise OperatorError(
            f"nix.netrc: {settings.netrc} is no file that the builder can read; mend that, or the setting"
        )
    return [*found, settings.netrc]


def named(settings: NixSettings) -> str:
    """Return what to call the caches of this host in a message."""
    return ", ".join(shown(url) for url in settings.substituters) or "it has none"


def shown(url: str) -> str:
    """Return what to show of a cache's URL: neither a password nor Nix's own parameters."""
    return without_passwords(url.partition("?")[0])


def without_passwords(text: str) -> str:
    """Return a text in which URLs may be, without names and passwords in these."""
    return _PASSWORD.sub("", text)


def asking(argv: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return a command of Nix's that asks the caches ``asked``, and gives up soon on what does not answer."""
    chosen = {
        "substituters": " ".join(asked),
        "connect-timeout": str(CONNECT),
        "stalled-download-timeout": str(STALLED),
        "download-attempts": str(ATTEMPTS),
        "max-jobs": str(AT_ONCE),  # what is asked for by its path can only be fetched, never be built
    }
    return _with(argv, chosen)


def with_netrc(argv: Sequence[str], settings: NixSettings) -> list[str]:
    """Return a command of Nix's with the names and passwords of the settings, where there are any."""
    return _with(argv, {"netrc-file": settings.netrc} if settings.netrc else {})


def _with(argv: Sequence[str], options: Mapping[str, str]) -> list[str]:
    return [argv[0], *(word for name, value in options.items() for word in ("--option", name, value)), *argv[1:]]
