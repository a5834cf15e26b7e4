"""Find refusals of names as the spec tells clients to: by a digest of the name, the uid and the content's digest."""

from __future__ import annotations

import os

from msgspec import UNSET

from spoold.cli import reading
from spoold.client.directory import Directory
from spoold.model import misnamed
from spoold.model.response import Response


def of_name(root: object, name: str, uid: int, sha256: str) -> Response | None:
    """Return the refusal of a file with this name, owner and content, or None."""
    for each in misnamed.refusal_names(name, uid, sha256):
        found = reading.read_own(os.path.join(str(root), "done", each))
        if found and found.request_sha256 in (sha256, UNSET) and found.uid in (uid, UNSET):
            return found
    return None


def look(root: object, name: str) -> Response | None:
    """Return what `spoolctl status` shows for a name in the spool ``root``."""
    return reading.look(Directory(str(root)), name)
