"""Binary caches: which ones there are, in which order they are asked, and how Nix is told about them.

Theory of operation: the settings name caches by their URLs. The part of a URL after "?" is Nix's own syntax. Nix asks
caches in the order of their priority, lowest number first. The number is in the cache's nix-cache-info or in its URL,
and 0 where it is in neither. Among equals the order is ours. A directory on this host is the quickest, so it comes
first unless its URL gives another priority.

A cache may be away, slow or broken. Nix then gives up after some seconds. It leaves out a cache that it cannot open,
but it ends when a cache fails later on. In that case the caller asks again, and only the caches that work
(:mod:`spoold.nix.fetch`). A password in a URL is shown to nobody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spoold.config import NixSettings
from spoold.model.errors import OperatorError
from spoold.nix import imports

FIRST = 0  # the priority of directories. Caches over HTTP usually have 30 or more
CONNECT = 10  # seconds for a connection to be made
STALLED = 30  # seconds without a byte after which a download is given up
ATTEMPTS = 4  # tries of one download, with Nix's own pauses between them
AT_ONCE = 16  # paths that are fetched at once
_LOCAL = ("file://", "/")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def urls(settings: NixSettings) -> list[str]:
    """Return the URLs of the caches as Nix is to ask them: the operator's imports, then those of the settings."""
    first = imports.caches(Path(settings.state).absolute())
    first += [_first(url) for url in settings.substituters if is_local(url)]
    return first + [url for url in settings.substituters if not is_local(url)]


def _first(url: str) -> str:
    path = url.partition("?")[0]
    if url.startswith("/") and os.path.isfile(f"{path}/nix-cache-info"):
        url = f"file://{url}"  # to Nix a plain path is a store with a database
    return url if "priority=" in url else f"{url}{'&' if '?' in url else '?'}priority={FIRST}"


def is_local(url: str) -> bool:
    """Tell whether a cache is a directory of this host."""
    return url.startswith(_LOCAL)


def files(settings: NixSettings, asked: Sequence[str]) -> list[str]:
    """Return the paths of this host that Nix reads to ask these caches: caches that are directories, and the netrc.

    The netrc is needed only for caches of other hosts. Raises :class:`OperatorError` where it cannot be read.
    """
    local = [url.partition("?")[0].removeprefix("file://") for url in asked if is_local(url)]
    found = [path for path in local if os.path.isdir(path)]
    if not settings.netrc or all(map(is_local, asked)):
        return found
    if not (os.path.isfile(settings.netrc) and os.access(settings.netrc, os.R_OK)):
        raise OperatorError(
            f"nix.netrc: the builder cannot read {settings.netrc}: let it read that file, or mend the setting"
        )
    return [*found, settings.netrc]


def named(settings: NixSettings) -> str:
    """Return the names of this host's caches for a message."""
    return ", ".join(shown(url) for url in settings.substituters) or "it has none"


def shown(url: str) -> str:
    """Return the part of a cache's URL that may be shown, without a password or Nix's own parameters."""
    return without_passwords(url.partition("?")[0])


def without_passwords(text: str) -> str:
    """Return ``text`` without the names and passwords in its URLs."""
    return _PASSWORD.sub("", text)


def asking(argv: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the Nix command ``argv`` so that it asks the caches ``asked``, and soon gives up on slow ones."""
    chosen = {
        "substituters": " ".join(asked),
        "connect-timeout": str(CONNECT),
        "stalled-download-timeout": str(STALLED),
        "download-attempts": str(ATTEMPTS),
        "max-jobs": str(AT_ONCE),  # a store path, unlike a derivation, can only be fetched and never be built
    }
    return _with(argv, chosen)


def with_netrc(argv: Sequence[str], settings: NixSettings) -> list[str]:
    """Return the Nix command ``argv`` with the netrc of the settings, where they name one."""
    return _with(argv, {"netrc-file": settings.netrc} if settings.netrc else {})


def _with(argv: Sequence[str], options: Mapping[str, str]) -> list[str]:
    return [argv[0], *(word for name, value in options.items() for word in ("--option", name, value)), *argv[1:]]
