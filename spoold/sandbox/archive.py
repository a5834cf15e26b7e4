"""What compile.sh left, kept outside any container: an archive that only supervisors make and unpack."""

from __future__ import annotations

from spoold.host.spill import Spill
from spoold.model.ids import Private


class Archive(Spill):
    """The bytes of one archive, none until it is received. ``room`` is the bytes of memory that its files take.

    Bytes that have no room in memory lie in the directory ``scratch``. For "" that is the host's own.
    """

    def __init__(self, scratch: str) -> None:
        super().__init__(scratch, Private.SCRATCH)
        self.room = 0
