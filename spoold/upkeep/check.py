"""The check: names each file of the spool that no state explains, and what is to be done about it.

Spec: spool-layout.md, "Check and repair". Each file is judged alone, by names that can be looked at any time. So the
daemons may run meanwhile. A file may only look wrong because it moved while the check looked. The second look explains
such a file. A file that a newer version of spoold wrote is named, and left alone. ``repair`` does what is to be done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial

from spoold.config import Settings
from spoold.host import fsops
from spoold.model.states import Kind, State
from spoold.spool.builds import BuildStore
from spoold.spool.layout import DIRECTORIES
from spoold.spool.store import Spool
from spoold.upkeep.judges.builds import NAMES, BuildJudge
from spoold.upkeep.judges.private import PrivateJudge
from spoold.upkeep.judges.submissions import SubmissionJudge
from spoold.upkeep.unexplained import Action, Unexplained, Verdict

PART = 256  # names between two pauses
SECOND_LOOK = 1.0  # seconds


class Check:
    """Judges the files of one ``spool``."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.spool = spool = Spool(settings, role)
        queue = BuildStore(settings).queue
        submissions, builds = SubmissionJudge(spool), BuildJudge(spool.root, queue)
        of_submission, of_build = Kind.SUBMISSION.directory, Kind.BUILD.directory
        self._judges: dict[str, Callable[[str], Verdict | None]] = {
            ".": lambda _: Verdict("not spoold's", Action.LEAVE),
            "incoming": submissions.in_incoming,
            "progress": submissions.in_progress,
            "ids": submissions.in_ids,
            "tmp": PrivateJudge(spool, spool.queue, "tmp").judge,
            "quarantine": lambda _: None,
            "builds/tmp": PrivateJudge(spool, queue, "builds/tmp").judge,
            **{directory: partial(builds.beside, directory) for directory in NAMES},
            **{of_submission(state): partial(submissions.in_state, state) for state in Kind.SUBMISSION.on_its_way},
            of_submission(State.DONE): submissions.in_done,
            **{of_build(state): partial(builds.in_state, state) for state in Kind.BUILD.on_its_way},
            of_build(State.DONE): builds.in_done,
        }

    def survey(self, without: Collection[str] = ()) -> Iterator[Unexplained | None]:
        """Yield the files that look unexplained at a first look, and None after every few names.

        The directories in ``without`` are left out.
        """
        known = {directory.path for directory in DIRECTORIES}
        for directory in DIRECTORIES:
            if directory.path in without:
                continue
            with os.scandir(os.path.join(self.spool.root, directory.path)) as entries:
                for number, entry in enumerate(entries, 1):
                    path = os.path.normpath(os.path.join(directory.path, entry.name))
                    if path not in known and (found := self.judge(path)):
                        yield found
                    if number % PART == 0:
                        yield None

    def unexplained(self) -> list[Unexplained]:
        """Return the files that no state explains, at a second look either."""
        first = [found for found in self.survey() if found]
        if first:
            time.sleep(SECOND_LOOK)
        return [again for found in first if (again := self.judge(found.path)) == found]

    def judge(self, path: str) -> Unexplained | None:
        """Tell what is wrong with one file, None where it is fine or gone.

        Users can mount a file system of their own over a name that is theirs. Such a file cannot be looked at.
        """
        directory, name = os.path.split(path)
        try:
            verdict = self._judges[directory or "."](name)
            if verdict is None or not fsops.exists(os.path.join(self.spool.root, path)):
                return None
        except OSError as error:
            verdict = Verdict(f"cannot be looked at: {error}", Action.LEAVE)
        return Unexplained(path, *verdict)
