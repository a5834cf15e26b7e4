"""The directories of the Nix state: who owns them, and how they are made.

Theory of operation: the engine mounts the store into every sandbox, by its path and as root. So root owns every
directory above the store and above Nix's own state, and only root can change what is in these. Then nobody else can put
something in the store's place. The builder owns the store itself, Nix's own state, and a room of its own.

Where one user runs all daemons, that user owns all directories. They are closed to everybody else.

In an earlier version the builder owned everything, and the contents of its room lay at the top. ``create`` changes
that. It goes from the top down, and changes each directory through a descriptor that follows no link. So it only
changes directories below ones that nobody else can change any more.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spoold.host import accounts, strangers, userns
from spoold.model.errors import OperatorError
from spoold.nix import imports

GROUP, BUILDER = "spoold", "spoold-builder"
ROOM = "builder"
# Names that an earlier version kept at the top.
MOVED = (
    *("tmp", "etc", "pins", "template", "template-with-nix"),
    *("host-nix.json", "store.lock", "turnstile.lock"),
)


class Place(NamedTuple):
    """A directory of the state, with its owner, group and mode where the daemons run as several users."""

    path: str
    owner: str
    group: str
    mode: int
    holds: str


PLACES = (
    Place(".", "root", GROUP, 0o710, "the state: nobody but the daemons can enter it"),
    Place("nix", "root", "root", 0o711, "the root of a chroot store, as Nix calls it"),
    Place("nix/nix", "root", "root", 0o711, "what is /nix inside"),
    Place("nix/nix/store", BUILDER, userns.BUILD_GROUP, 0o1771, "the store: can be entered, not listed"),
    Place("nix/nix/var", BUILDER, GROUP, 0o755, "Nix's own state: the database, the roots"),
    Place(imports.DIRECTORY, "root", GROUP, 0o750, "what the operator imported, for the builder to take from"),
    Place(ROOM, BUILDER, GROUP, 0o700, "what the builder keeps beside it: work in progress, memories, locks"),
)


def owners_for(state: str) -> dict[str, tuple[int, int]] | None:
    """Return the uid and gid of each place where several users share the state, or None where one user owns it.

    A state is shared where root makes it on a host that has the users, or where the builder's own user has made its
    store. Callers that are not root always get None.
    """
    found = accounts.find(GROUP, [BUILDER])
    builds = accounts.gid_of(userns.BUILD_GROUP)
    if os.geteuid() != 0 or found is None or builds is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(Path(state, "nix/nix/store")).st_uid not in (found.uids[BUILDER], 0):
            return None
        if os.lstat(Path(state, "nix/nix/store")).st_uid == 0 and os.listdir(Path(state, "nix/nix/store")):
            return None  # the store of a builder that root runs
    uids = {"root": 0, BUILDER: found.uids[BUILDER]}
    gids = {"root": 0, GROUP: found.gid, userns.BUILD_GROUP: builds}
    return {place.path: (uids[place.owner], gids[place.group]) for place in PLACES}


def create(state: str, owners: dict[str, tuple[int, int]] | None = None) -> list[str]:
    """Make the missing directories. With ``owners``, also set the owner and mode of each. Return the changed paths.

    Raises :class:`OperatorError` where something other than a directory has the name of one.
    """
    changed = []
    for place in PLACES:
        path = os.path.normpath(os.path.join(state, place.path))
        if not os.path.lexists(path):
            with contextlib.suppress(FileExistsError):  # another daemon that starts now made it
                os.makedirs(path, mode=0o700)
                if owners is None and place.path != ".":
                    os.chmod(path, place.mode)
                changed.append(path)
        try:
            with strangers.directory_itself(path, follow=place.path == ".") as itself:
                if owners is not None and _mend(itself, *owners[place.path], place.mode):
                    changed.append(path)
        except NotADirectoryError as error:
            what = "a symbolic link" if os.path.islink(path) else "no directory"
            raise OperatorError(f"{path} is {what}: remove it, then run `spoolctl init` as root") from error
    changed += _move(state)
    return sorted(set(changed))


def _mend(itself: str, uid: int, gid: int, mode: int) -> bool:
    found = os.stat(itself)
    wrong = (found.st_uid, found.st_gid) != (uid, gid)
    if wrong:
        os.chown(itself, uid, gid)
    if wrong or stat.S_IMODE(found.st_mode) != mode:
        os.chmod(itself, mode)
        return True
    return False


def _move(state: str) -> list[str]:
    """Move the files that an earlier version kept at the top into the builder's room. A rename follows no link."""
    moved = []
    for name in MOVED:
        path, target = os.path.join(state, name), os.path.join(state, ROOM, name)
        if os.path.lexists(path):
            with contextlib.suppress(OSError):  # there is one already, which is newer
                os.rename(path, target)
                moved.append(target)
    return moved


def was_taken_over(state: str, changed: Sequence[str]) -> bool:
    """Tell whether :func:`create`, which returned ``changed``, took over the state of an earlier version."""
    return any(os.path.dirname(path) == os.path.join(state, ROOM) for path in changed)


def examine(state: str) -> list[str]:
    """Return in words what is wrong with the places of a shared state."""
    owners = owners_for(state)
    wrong = []
    for place in PLACES if owners else ():
        path = os.path.normpath(os.path.join(state, place.path))
        wanted = owners[place.path] if owners else (0, 0)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            wrong.append(f"{path} is missing")
            continue
        if not stat.S_ISDIR(found.st_mode) or (found.st_uid, found.st_gid) != wanted:
            wrong.append(f"{path} is not {place.owner}:{place.group}'s")
        elif stat.S_IMODE(found.st_mode) & ~place.mode:
            wrong.append(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, not {place.mode:04o}")
    return wrong
