"""Find the answer to a file whose name is no submission's name, and explain why nothing is known of a name."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

from spoold.cli.reading import read_own, why_not_taken
from spoold.model import ids, misnamed
from spoold.model.misnamed import shown
from spoold.model.response import Response
from spoold.model.states import State

__all__ = ["refused_name", "shown", "why_unknown"]

LARGE = 1 << 26  # bytes; a larger file in the current directory is not hashed, as hardly any spool takes such files


def refused_name(spool: str, name: str) -> Response | None:
    """Return the refusal of a file whose name is no submission's name; None where nothing is known of the file.

    ``name`` is the name of the file, with or without ``.json``, or the part of it that names its answer in ``done/``.
    The first file that is refused under a name has an answer named after it alone. The answers to later ones also
    contain a digest of the file. So those are looked for if a file of that name is in the current directory, or if we
    may list ``done/``.
    """
    done = os.path.join(spool, State.DONE)
    found = (read_own(os.path.join(done, each)) for each in _refusals(done, name))
    return next((each for each in found if each), None)


def _refusals(done: str, name: str) -> Iterator[str]:
    """Yield names in ``done/`` that the answer may have."""
    asks, files = os.geteuid(), (name, f"{name}.json")
    for file in files:
        for digest in _digest_of_file_here(file):
            yield misnamed.refusal_names(file, asks, digest)[-1]
    stems = dict.fromkeys(map(misnamed.stem, files), "")
    # the user may also name the refusal itself, with or without its ending
    stems[name.removesuffix(".refused.json")] = ""
    yield from (each for each in (f"{stem}.refused.json" for stem in stems) if ids.is_refusal(each))
    with contextlib.suppress(OSError):
        others = [each for each in os.listdir(done) if each.partition("@")[0] in stems and ids.is_refusal(each)]
        yield from sorted(others, key=lambda each: ids.kept_for(each) != asks)


def _digest_of_file_here(name: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        if "/" not in name and os.path.isfile(name) and os.path.getsize(name) <= LARGE:
            with open(name, "rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest()


def why_unknown(spool: str, id_: str) -> str:
    """Return why there is nothing to see of an id, or of a file whose name is no submission's. ``spool`` may be ""."""
    for name in (f"{id_}.json", id_) if spool else ():
        path = os.path.join(spool, "incoming", name)
        if "/" in name or not name.strip(".") or not os.path.lexists(path):
            continue
        if ids.is_upload_in_progress(name):
            return f"{path} has the name of an upload in progress, so intake ignores it: rename it when it is whole"
        if ids.submission_id(name):
            return why_not_taken(path)
        return f"{path} does not have the name of a submission, so it is refused once it no longer changes"
    if spool and (hidden := _why_refusal_is_hidden(spool, id_)):
        return hidden
    return "nothing is known of it (yet): there is no submission of that id, or it is still arriving"


def _why_refusal_is_hidden(spool: str, name: str) -> str:
    """Return how to find a file's answer where another user's file of that name was refused before; "" otherwise."""
    called, done = misnamed.stem(name), os.path.join(spool, State.DONE)
    if not os.path.lexists(os.path.join(done, f"{called}.refused.json")):
        return ""
    digits = misnamed.digits_in(called)
    return (
        "another user's file of that name was refused. To ask about yours, go to the directory where it lies, and "
        f"use the name that it has there. Its answer is {done}/{called}@<uid>-<the first {digits} digits of its "
        "SHA-256>.refused.json"
    )
