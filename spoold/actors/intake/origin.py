"""Where a dropped file came from: its owner, and the digest of its bytes."""

from __future__ import annotations

import hashlib

from spoold.host import strangers
from spoold.model.submission import Origin


def origin_of(dropped: strangers.Dropped, arrival: float, most: int) -> Origin:
    """Return the owner, the digest and the arrival of a dropped thing.

    If it is no file, the digest is that of its kind in place of the bytes. A file of more than ``most`` bytes is not
    whole: only the first ``most`` + 1 bytes were read. Nor is a file with a second name, which was not read.
    """
    is_file = dropped.kind == "file"
    return Origin(
        uid=dropped.uid,
        gid=dropped.gid,
        sha256=hashlib.sha256(dropped.data if is_file else dropped.kind.encode()).hexdigest(),
        arrival=arrival,
        whole=is_file and dropped.links == 1 and len(dropped.data) <= most,
    )
