"""Evidence: what several judges ask about a file, from names that can be looked at any time.

Spec: spool-layout.md, "Check and repair".
"""

from __future__ import annotations

import os

from spoold.host import fsops
from spoold.model import ids
from spoold.model.states import State
from spoold.spool.queue import Queue
from spoold.spool.recovery import ABANDONED
from spoold.spool.store import Spool


def is_young(spool: Spool, path: str) -> bool:
    """Tell whether someone may be about to use the file at ``path``, below the spool's root, or it is gone."""
    changed = fsops.mtime(os.path.join(spool.root, path))
    return changed is None or spool.clock.file_system() - changed < ABANDONED


def is_answered(queue: Queue, id_: str) -> bool:
    """Tell whether there is a response, or a result that becomes one; that one goes when the response is there."""
    response = queue.path(State.DONE, ids.response_name(id_))
    return fsops.exists(response) or id_ in queue.results.waiting() or fsops.exists(response)
