"""Evidence: the questions about a file that several judges ask, answered from names that can be looked at any time.

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
    """Tell whether the file at ``path``, below the spool's root, is gone or so young that someone may still use it."""
    changed = fsops.mtime(os.path.join(spool.root, path))
    return changed is None or spool.clock.file_system() - changed < ABANDONED


def is_answered(queue: Queue, id_: str) -> bool:
    """Tell whether there is a response, or a result that becomes one. A result goes once the response is there."""
    response = queue.path(State.DONE, ids.response_name(id_))
    return fsops.exists(response) or id_ in queue.results.waiting() or fsops.exists(response)
