"""Where a dropped file came from: whose it was, and the digest of its bytes."""

from __future__ import annotations

import hashlib

from spoold.host import strangers
from spoold.model.submission import Origin


def origin_of(dropped: strangers.Dropped, arrival: float, most: int) -> Origin:
    """Return who dropped what. Of a thing that is no file, its kind stands in for the bytes.

    Of a file of more than ``most`` bytes only the first were read, one more than that. One with a second name was not
    read.
    """
    is_file = dropped.kind == "file"
    return Origin(
        uid=dropped.uid,
        gid=dropped.gid,
        sha256=hashlib.sha256(dropped.data if is_file else dropped.kind.encode()).hexdigest(),
        arrival=arrival,
        whole=is_file and dropped.links == 1 and len(dropped.data) <= most,
    )
