"""Builds that failed: they are forgotten after a while, so that they can be tried again.

The log of a build is as long as its clients want. So each result is read once, and what was read counts until its file
changes. A result that cannot be read is kept in quarantine and forgotten. The next client who wants the build gets it
built again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from spoold.host import attributes, fsops
from spoold.host.attributes import Identity
from spoold.host.log import Log
from spoold.model.errors import NewerFormatError
from spoold.model.states import Role
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool

log = Log(Role.HEALTH)


class Judged(NamedTuple):
    """A build's result: the identity of its file, and when the build ended where it failed.

    ``failed`` is infinite where the result is not to be forgotten.
    """

    file: Identity
    failed: float = math.inf  # on the file system's clock


class Failures:
    """Looks for failed builds among the results. Results of a ``newer`` version are noted, and stay."""

    def __init__(self, spool: Spool, builds: BuildStore, newer: LeftAlone) -> None:
        self._spool, self._builds, self._newer = spool, builds, newer
        self._judged: dict[str, Judged] = {}  # results that need no second look

    def step(self, memory: float, patience: float) -> None:
        """Forget builds that failed more than ``memory`` seconds ago.

        Where reading takes longer than ``patience`` seconds, the next steps read the other results.
        """
        began, latest = self._spool.clock.monotonic(), self._spool.clock.file_system()
        judged: dict[str, Judged] = {}
        read = 0
        for build_id in self._builds.finished():
            seen, before = attributes.identity(self._builds.result_path(build_id)), self._judged.get(build_id)
            if before and before.file == seen:
                judged[build_id] = before
            elif seen and (not read or self._spool.clock.monotonic() - began <= patience):
                read += 1
                self._judge(build_id, seen, judged)
        self._judged = judged
        latest -= memory
        self._builds.forget({build_id for build_id, each in judged.items() if each.failed < latest})

    def _judge(self, build_id: str, seen: Identity, judged: dict[str, Judged]) -> None:
        try:
            record = self._builds.result(build_id)
        except NewerFormatError as error:
            self._newer.meet(error)
            judged[build_id] = Judged(seen)
            return
        if record is None:
            self._set_aside_result(build_id, self._builds.result_path(build_id))
        elif record.result.shell:
            judged[build_id] = Judged(seen)
        else:
            judged[build_id] = Judged(seen, record.finished)

    def _set_aside_result(self, build_id: str, path: str) -> None:
        """Keep a result that cannot be read in quarantine, and forget the build, so that it can be built again."""
        try:
            data = fsops.read(path, self._builds.most)
        except fsops.OddFileError as error:
            log.error("the result of a build is not a sound file; set aside, it will be built again", error=error)
            fsops.move(path, self._spool.queue.path("quarantine", f"{build_id}@build.bytes"))
            self._builds.forget({build_id})
            return
        if data is not None:
            log.error("the result of a build cannot be read; set aside, it will be built again", build=build_id)
            self._spool.set_aside(build_id, data, "the result of a build that cannot be read", suffix="@build")
            self._builds.forget({build_id})
