"""A client library: submit programs to a spool, wait for their responses, and fetch their files.

    from spoold.client import Spool, program

    with Spool("ssh://judge/var/spool/spoold") as spool:
        requests = (program({"run.sh": f"echo $(({n} * {n}))"}) for n in range(1000))
        for response in spool.map(requests, bound=50):
            print(response.run.stdout_data.decode(), end="")

A spool is a directory, which may be an NFS mount, or ``ssh://[user@]host[:port]/path``. ``ssh://host`` without a path
is the gateway of that host. :class:`Spool` offers everything; :class:`AsyncSpool` offers the same for asyncio.

Theory of operation. The library uses what spool-layout.md promises to clients (section 11), and nothing else of spoold.
It imports the standard library and msgspec only. So it is a wheel of its own, ``spoold-client``, and the rest of spoold
builds on it. Each module is imported when one of its names is first used, because a command that shows one response
should not wait for asyncio to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spoold.client.aio import AsyncSpool
    from spoold.client.errors import (
        AnswerError,
        NoSpoolError,
        RequestError,
        SpoolError,
        TimedOutError,
        UnreachableError,
    )
    from spoold.client.request import Request, file, packages, program
    from spoold.client.response import Case, Phase, Response, ReturnedFile
    from spoold.client.spool import Spool, Submission
    from spoold.client.tree import from_directory

__all__ = [
    "AnswerError",
    "AsyncSpool",
    "Case",
    "NoSpoolError",
    "Phase",
    "Request",
    "RequestError",
    "Response",
    "ReturnedFile",
    "Spool",
    "SpoolError",
    "Submission",
    "TimedOutError",
    "UnreachableError",
    "file",
    "from_directory",
    "packages",
    "program",
]
_MODULES = {
    "aio": ("AsyncSpool",),
    "errors": ("AnswerError", "NoSpoolError", "RequestError", "SpoolError", "TimedOutError", "UnreachableError"),
    "request": ("Request", "file", "packages", "program"),
    "response": ("Case", "Phase", "Response", "ReturnedFile"),
    "spool": ("Spool", "Submission"),
    "tree": ("from_directory",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # type checkers see the imports above, and report unknown names themselves

    def __getattr__(name: str) -> object:
        """Import the module of ``name`` on first use, and return what it calls ``name``."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
