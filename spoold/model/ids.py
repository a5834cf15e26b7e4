"""Names: which files are submissions, which names entries have, and how a build is identified.

Spec: spool-layout.md, "Names". An id is the stem of the client's file name. So a client that knows nothing but ``cp``
knows where the response will appear. The attempt is part of an entry's name. So if an entry is given to another worker,
the first worker holds a name that no longer exists.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, assert_never

from spoold.client import names
from spoold.model.states import State

# The client library has these, since clients need them too.
ID, RESERVED_ENDINGS = names.ID, names.RESERVED_ENDINGS
is_id, unguessable, owner_of = names.is_id, names.unguessable, names.owner_of
response_name, tar_name, refusal_name = names.response_name, names.tar_name, names.refusal_name
# The word behind the @ keeps other users from guessing a name in the drop box. It is no attempt, nor a uid and an
# attempt.
DROPPED = re.compile(r"(?P<id>[^@]*)(?:@[A-Za-z0-9_]{8,32})?\.(?P<ending>json|cancel)")
OWNER = r"(?:(?P<owner>0|[1-9][0-9]{0,9})-)?"  # builds have none, nor have submissions of earlier versions
ENTRY = re.compile(rf"(?P<id>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}})(?:@{OWNER}(?P<attempt>[1-9][0-9]{{0,3}}))?\.json")
RESULT = re.compile(rf"(?P<id>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}})@{OWNER}(?P<attempt>[0-9]{{1,4}})\.response\.json")
NO_ID = r"(?:[A-Za-z0-9._%-]{1,200}|[A-Za-z0-9._%-]{100}~[0-9a-f]{64})"  # stands for a name that is no submission's
REFUSAL = re.compile(rf"{NO_ID}(?:@(?:0|[1-9][0-9]{{0,9}})-(?:[0-9a-f]{{8}}){{1,2}})?\.refused\.json")
OF_USER = re.compile(r".*@(?P<uid>0|[1-9][0-9]{0,9})-[0-9a-f]+\.(refused\.json|bytes|reason|directory)")
TRIAL = re.compile(r"doctor-[0-9]+(\.probe)?")
CANCEL = 9999  # the attempt of a cancel: above all others, so that no worker has it, and its result counts


class Entry(NamedTuple):
    """An entry of the spool, as its name tells it. The attempt is 1 where the name has none.

    ``owner`` is the uid of the submission's owner. It is None for builds, which have no owner. It is also None where
    the name does not tell the owner: in ``done/``, and for submissions that an earlier version of spoold accepted.
    """

    id: str
    attempt: int
    owner: int | None = None


class Private(StrEnum):
    """Endings of names in ``tmp/``: of files that are written there, and then shown elsewhere under another name."""

    ENTRY = ".accept.json"
    ID = ".id.json"
    ANSWER = ".private.json"
    PROGRESS = ".progress.json"
    REFUSAL = ".refused.json"
    DIGEST = ".sha256"
    REQUEUED = ".requeue.json"
    ORDER = ".order.json"
    REPORT = ".report.json"
    NOTE = ".note.json"
    WISH = ".cancel"
    SCRATCH = ".scratch"
    OUTPUTS = ".outputs.tar"


FORMER = ("pins.json", "pins.result.json", "runtime.json")  # private names of earlier versions, left by a kill


class Kept(StrEnum):
    """Endings of names in ``tmp/``: of files that a process keeps there, for itself or for others to look at."""

    PROBE = ".probe"
    LOCK = ".lock"
    HELD = ".held"
    HOST = ".host"
    COUNT = ".count"
    USAGE = ".usage"
    STORE = ".store"
    POOLS = ".pools"


class Hint(NamedTuple):
    """A change that was seen: a name in a directory of the spool. It is verified like anything else."""

    directory: str
    name: str


def submission_id(name: str) -> str | None:
    """Return the id that a file dropped under ``name`` asks for, or None where the name is not a submission's."""
    return _dropped_id(name, "json")


def cancelled_id(name: str) -> str | None:
    """Return the id that a file dropped under ``name`` asks to cancel, or None where the file is no cancel."""
    return _dropped_id(name, "cancel")


@lru_cache(maxsize=256)  # several functions look at each name, one after the other
def _dropped_id(name: str, ending: str) -> str | None:
    match = DROPPED.fullmatch(name)
    return match["id"] if match and match["ending"] == ending and is_id(match["id"]) else None


def may_use(id_: str, uid: int) -> bool:
    """Tell whether a user may use an id: by its beginning, it belongs to nobody or to this user."""
    return owner_of(id_) in (None, uid)


def is_upload_in_progress(name: str) -> bool:
    """Tell whether clients or file systems give this name to an unfinished file. Such a file is never reported."""
    return name.startswith(".") or name.endswith((".tmp", "~", ".part"))


def parse_entry(name: str) -> Entry | None:
    """Return the entry that a file name in a state directory stands for, or None."""
    match = ENTRY.fullmatch(name)
    return Entry(match["id"], int(match["attempt"] or 1), _owner(match)) if match else None


def first_part(name: str) -> str:
    """Return the part of an entry's name that is its id, without a check of the name. It takes a tenth of the time."""
    id_, told, _ = name.partition("@")
    return id_ if told else name.removesuffix(".json")


def owner_part(name: str) -> str:
    """Return the part of an entry's name that tells its owner, without a check. Equal parts tell the same owner."""
    return name.partition("@")[2].partition("-")[0]


def parse_result(name: str) -> Entry | None:
    """Return the entry whose result has this name in ``tmp/``, or None. Attempt 0 is a refusal, made by intake."""
    match = RESULT.fullmatch(name)
    return Entry(match["id"], int(match["attempt"]), _owner(match)) if match else None


def _owner(match: re.Match[str]) -> int | None:
    return None if match["owner"] is None else int(match["owner"])


def entry_name(state: State, entry: Entry) -> str:
    """Return the name of an entry while it is in ``state``."""
    match state:
        case State.NEW:
            return new_name(entry)
        case State.BUILDING | State.RUNNING:
            return claimed_name(entry)
        case State.DONE:
            return done_name(entry.id)
        case _:
            assert_never(state)


def new_name(entry: Entry) -> str:
    """Return the name in ``new/``. The first attempt of an entry without an owner has the plain id."""
    return f"{entry.id}.json" if entry.owner is None and entry.attempt == 1 else claimed_name(entry)


def claimed_name(entry: Entry) -> str:
    """Return the name in ``building/`` and ``running/``."""
    return f"{_of_attempt(entry)}.json"


def result_name(entry: Entry) -> str:
    """Return the name in ``tmp/`` of an attempt's result that is not yet published."""
    return f"{_of_attempt(entry)}.response.json"


def private_tar_name(entry: Entry) -> str:
    """Return the name in ``tmp/`` of the returned files of an attempt. They are there before the attempt's result."""
    return f"{_of_attempt(entry)}{Private.OUTPUTS}"


def result_beside(name: str) -> str | None:
    """Return the name of the result to which returned files in ``tmp/`` belong. None for any other name."""
    return name.removesuffix(Private.OUTPUTS) + response_name("") if name.endswith(Private.OUTPUTS) else None


def _of_attempt(entry: Entry) -> str:
    owner = "" if entry.owner is None else f"{entry.owner}-"
    return f"{entry.id}@{owner}{entry.attempt}"


def is_trial(name: str) -> bool:
    """Tell whether a name in ``tmp/`` or ``done/`` belongs to a trial of the doctor, which takes seconds."""
    return TRIAL.fullmatch(name) is not None


def is_private(name: str) -> bool:
    """Tell whether a name in ``tmp/`` is of a file that is shown elsewhere later. Results have a rule of their own."""
    return (name.endswith(tuple(Private)) or name in FORMER) and not parse_result(name)


def done_name(id_: str) -> str:
    """Return the name in ``done/`` of a finished entry."""
    return f"{id_}.json"


def kept_for(name: str) -> int | None:
    """Return the uid in the name of a refusal in ``done/`` or of a file in ``quarantine/``. None where it has none."""
    match = OF_USER.fullmatch(name)
    return int(match["uid"]) if match else None


def is_refusal(name: str) -> bool:
    """Tell whether a name in ``done/`` is of the answer to a file whose id or name could not be used."""
    return REFUSAL.fullmatch(name) is not None


def build_id(expression: str, nixpkgs: str, system: str, nix: str = "") -> str:
    """Return the id of a build: 64 hex digits over the expression, the store path of the pin, and the system.

    ``nix`` is the store path of the Nix that sets up environments in the sandbox, "" where they are captured.
    """
    digest = hashlib.sha256()
    for part in (expression, nixpkgs, system, *([nix] if nix else [])):
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()
