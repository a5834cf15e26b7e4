"""Submissions in ``building/`` that wait for a build that is nowhere: neither filed, under way, nor finished.

An entry is as large as its client likes, so each is read once, and the builds that it waits for are remembered. They
are read again when the entry's file has changed, or the runtime, which says what a pin stands for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from spoold.host import attributes
from spoold.host.attributes import Identity
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.plan import builds_of
from spoold.model.states import State
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.store import Spool


class Needed(NamedTuple):
    """The builds that an entry waits for (none: there can be none), and the files that this was read from."""

    runtime: Identity | None
    file: Identity | None
    builds: tuple[str, ...]


class Unbuilt:
    """Looks for such submissions. Entries and builds of a ``newer`` version are noted, and are never among them."""

    def __init__(self, spool: Spool, builds: BuildStore, newer: LeftAlone) -> None:
        self._spool, self._builds, self._newer = spool, builds, newer
        self._build_ids: dict[Entry, Needed] = {}  # the builds that entries wait for
        self._looked_up_to = 0

    def among(self, entries: list[Entry], patience: float) -> Iterator[Entry]:
        """Yield those of ``entries`` whose build is nowhere.

        Where that takes longer than ``patience`` seconds, the caller's work included, the next calls go on with the
        others. Only entries among ``entries`` are remembered.
        """
        runtime = attributes.identity(self._builds.runtime.path)
        known, self._build_ids = self._build_ids, {}
        missing: dict[str, bool] = {}  # for builds looked at in this call: many entries wait for one build
        began, at = self._spool.clock.monotonic(), self._looked_up_to % max(1, len(entries))
        for number, entry in enumerate(entries[at:] + entries[:at]):
            if number and self._spool.clock.monotonic() - began > patience:
                if entry in known:
                    self._build_ids[entry] = known[entry]
                continue
            self._looked_up_to = at + number + 1
            needed, file = known.get(entry), attributes.identity(self._spool.queue.entry_path(State.BUILDING, entry))
            if needed and (needed.runtime, needed.file) == (runtime, file):
                self._build_ids[entry] = needed
            if self._has_no_build(entry, runtime, file, missing):
                yield entry

    def _has_no_build(
        self,
        entry: Entry,
        provided: Identity | None,
        file: Identity | None,
        missing: dict[str, bool],
    ) -> bool:
        try:
            if entry not in self._build_ids:
                runtime = self._builds.runtime.read()
                if runtime is None:
                    return False
                request = self._spool.read(State.BUILDING, entry).Request
                builds = builds_of(request, runtime) if request else {}
                self._build_ids[entry] = Needed(provided, file, tuple(map(sys.intern, builds)))
            needed = self._build_ids[entry].builds
            for build_id in needed:
                if build_id not in missing:
                    missing[build_id] = self._builds.look(build_id) == "missing"
            return not needed or any(missing[build_id] for build_id in needed)
        except LeaseLostError:
            return False
        except NewerFormatError as error:  # of the runtime, the entry, or the build's result
            self._newer.meet(error)
            return False
        except msgspec.DecodeError:
            return True
