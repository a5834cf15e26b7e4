"""What compile.sh left, outside of any container: an archive that supervisors make and lay, and nobody else reads."""

from __future__ import annotations

from spoold.host.spill import Spill
from spoold.model.ids import Private


class Archive(Spill):
    """The bytes of one archive, none until it is received. ``room`` is the bytes of memory that laying it leaves taken.

    What has no room in memory lies in the directory ``scratch``, "" the host's own.
    """

    def __init__(self, scratch: str) -> None:
        super().__init__(scratch, Private.SCRATCH)
        self.room = 0
