"""The ``spoold`` command: a child process reads the command line, and this process does what it asks for.

Reading it takes click, which is more than a megabyte that each daemon would keep for as long as it runs. So the child
loads click, tells this process what is asked for, and ends.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from spoold.cli import exits
from spoold.config import Settings
from spoold.config.file import load
from spoold.daemon import ROLES, serve
from spoold.host import journal, log, userns
from spoold.model.states import ALWAYS, Role
from spoold.spool import layout


class Asked(msgspec.Struct, kw_only=True):
    """The demand of a command line. ``executor`` has values that stand in place of those in the settings."""

    role: str  # of Role, "fetch" or "all"
    config: str | None
    spool: str | None
    log_level: str
    executor: dict[str, Any] = {}

    def settings(self) -> Settings:
        """Read the settings. Raises :class:`OperatorError` where they cannot be read."""
        settings = load(self.config)
        if self.spool is not None:
            settings = replace(settings, spool=replace(settings.spool, path=self.spool))
        if self.executor:
            settings = replace(settings, executor=replace(settings.executor, **self.executor))
        return settings


def main() -> None:
    """Run the command."""
    exits.guard(_run, "spoold")


def _run() -> None:
    asked = _asked()
    userns.at_start()  # first of all, as it drops rights
    log.set_up(level=asked.log_level, journal=journal.is_stderr())
    if asked.role == "fetch":
        from spoold.proxy import serving  # noqa: PLC0415 - the other daemons do not use it

        serving.run(asked.settings)
        return
    settings = asked.settings()
    if asked.role == "all":
        layout.create(settings.spool.path)
        serve(settings, list(ROLES if settings.scale.pools else ALWAYS), asked.settings)
    else:
        serve(settings, [Role(asked.role)], asked.settings)


def _asked() -> Asked:
    """Return what the command line asks for. The process ends where it asks for nothing, such as by ``--help``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        from spoold.cli import roles  # noqa: PLC0415 - only here, see above

        exits.run(partial(roles.command, obj=partial(_tell, writing)), "spoold")
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not told:
        sys.exit(code if code >= 0 else 128 - code)
    return msgspec.json.decode(told, type=Asked)


def _tell(descriptor: int, **asked: object) -> None:
    with open(descriptor, "wb") as pipe:
        pipe.write(msgspec.json.encode(asked))


if __name__ == "__main__":
    main()
