"""The archive: before a sweep removes files from ``done/``, the operator's command gets them, as they were published.

Spec: spool-layout.md, "Retention". If the command fails, everything stays where it is, and the next sweep tries again.
An answer that cannot be read for the archive stays, with its entry, and delays nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from spoold.host import fsops, proc
from spoold.host.log import Log
from spoold.host.seldom import Seldom
from spoold.model.errors import SpooldError
from spoold.model.ids import Private
from spoold.model.retention import Rules
from spoold.model.states import State
from spoold.spool import answers
from spoold.spool.store import Spool
from spoold.upkeep.holdings import Item, Pause, passing_over

log = Log("retention")


class Archive:
    """Archives files of ``done/`` of one spool, a part at a time, with pauses in which its caller does other things.

    ``seldom`` logs the files that cannot be read.
    """

    def __init__(self, spool: Spool, seldom: Seldom) -> None:
        self._spool, self._seldom = spool, seldom
        self._done = spool.queue.path(State.DONE)
        self._stopped = Event()

    def stop(self) -> None:
        """End the command, where it runs."""
        self._stopped.set()

    def archived(self, old: list[Item], rules: Rules) -> Generator[Pause, None, list[Item]]:
        """Return the items that may be removed: those that were archived, or all where no archive is asked for."""
        if not rules.archive:
            return old
        going, names, taken = yield from self._take_back(old)
        if not going:
            return []
        with ThreadPoolExecutor(1, thread_name_prefix="archive") as thread:
            running = thread.submit(self._run_command, rules, "".join(f"{name}\n" for name in names).encode())
            while not running.done():
                yield Pause.WAITS
        if running.result():
            return going
        for name in taken:
            self._spool.write_anew(name)  # its owner may still fetch it
            yield Pause.WORKED
        return []

    def _take_back(self, old: list[Item]) -> Generator[Pause, None, tuple[list[Item], list[str], list[str]]]:
        """Return the items to archive, the names of their files, and the answers whose bytes were verified.

        The owner of an answer that was given away may have changed it, or may change it while it is copied. So the
        verified bytes take its place, in a file of ours. If the answer was changed, its digest is archived instead. An
        answer that cannot be read now (a lease, a mount) stays, and counts as its owner's, until it can be read.
        """
        going, names, taken = [], [], []
        for item in old:
            mine: list[str] = []
            with passing_over(os.path.join(self._done, item.file), self._seldom):
                names += yield from self._files_of(item, mine)
                going.append(item)
                taken += mine
                continue
            for file in mine:
                self._spool.write_anew(file)  # it stays, for its owner to read
        return going, names, taken

    def _files_of(self, item: Item, taken: list[str]) -> Generator[Pause, None, list[str]]:
        """Return the names to archive of an item. Add the answers that were made ours again for that to ``taken``."""
        names = [item.entry] if item.entry else []
        for file in (item.file, item.tar) if item.tar else (item.file,):
            path, name = os.path.join(self._done, file), file
            if answers.was_given_away(path):
                yield Pause.WORKED
                if self._is_taken_back(path):
                    taken.append(file)
                else:
                    log.error("an answer was changed after it was published; it is not archived", answer=file)
                    name = os.path.basename(answers.digest_of(path))
            names.append(name)
        return names

    def _is_taken_back(self, path: str) -> bool:
        """Make an answer ours again where it holds what was published. Return whether it does."""
        try:
            data = fsops.read(path, answers.length(path) or 0)
        except fsops.OddFileError:
            return False  # longer than what was published
        if data is None or answers.doubt(path, data):
            return False
        private = self._spool.queue.private(Private.ANSWER, os.path.basename(path))
        fsops.write_private(private, data)
        fsops.replace(private, path)
        return True

    def _run_command(self, rules: Rules, names: bytes) -> bool:
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        try:
            ended = proc.run(
                rules.archive,
                proc.Bounds(wall=rules.archive_timeout, stdout=4096, stderr=4096),
                env=environment,
                cwd=self._done,
                stdin=names,
                cancel=self._stopped,
            )
        except SpooldError as error:
            log.error("the archive command cannot be run; no answer is removed", error=error)
            return False
        if not ended.ok:
            said = ended.stderr.data.decode(errors="replace")[-500:]
            log.error(
                "the archive command failed; no answer is removed", exit=ended.exit_code, limit=ended.limit, said=said
            )
        return ended.ok
