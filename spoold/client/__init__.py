"""A client library: submits programs to a spool, waits for what comes of them, and fetches their files.

    from spoold.client import Spool, program

    with Spool("ssh://judge/var/spool/spoold") as spool:
        requests = (program({"run.sh": f"echo $(({n} * {n}))"}) for n in range(1000))
        for response in spool.map(requests, bound=50):
            print(response.run.stdout_data.decode(), end="")

A spool is a directory, be it an NFS mount, or ``ssh://[user@]host[:port]/path``; ``ssh://host`` alone is its gateway.
:class:`Spool` has all that there is, :class:`AsyncSpool` the same for asyncio.

Theory of operation. It uses what spool-layout.md promises to clients (section 11), and nothing else of spoold: this
package imports the standard library and msgspec. So it is a wheel of its own, ``spoold-client``, and the rest of spoold
stands on it. What is imported here is imported when it is used first, since a command that shows one response should
not wait for asyncio.
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


if not TYPE_CHECKING:  # for whom a name that is not there is an error

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
