"""Answers: responses, refusals and side files. They belong to the daemons, and their owners read them.

Spec: spool-layout.md, "The Response" and "Commit and publication". With ``[spool] answers = "acl"`` the daemon that
wrote a file still owns it, and an access control list lets the answer's owner read it. So nobody else can change it,
and writing it takes no capability. With ``"owner"`` the file is given away, for file systems that keep no lists. Then
its owner can change it. So the daemons keep a digest of its bytes beside it, and each process that acts for the
operator checks that digest. The owner can also make the file as long as they like, even without taking room on the
disk. So its length is kept too, and nobody reads more.

What fails: where an owner cannot be let in, the answer stays the daemons' own. Otherwise the submission would be run
again, for ever.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
from typing import NamedTuple

from spoold.config import SpoolSettings
from spoold.host import accounts, acl, attributes, fsops
from spoold.host.attributes import Rights
from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.ids import Private
from spoold.spool.tar import Tar

log = Log("spool")
CLOSED = 0o400  # mode of an answer that only the owner of the file may read
# Why an owner cannot be let in. EINVAL: this user namespace has no such user.
NOT_LET_IN = {errno.EOPNOTSUPP, errno.EINVAL}
NOT_GIVEN = {errno.EPERM, errno.EACCES, errno.EDQUOT, errno.EINVAL}
DIGEST = Private.DIGEST  # this ending stands in place of .json
MOST = 1 << 28  # bytes to read of an answer without a kept length: an earlier version gave it away


class Readers(NamedTuple):
    """The users and groups that may read all answers, besides the owners: uids and gids."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()


class Answers:
    """Writes the answers of one spool, as its settings say."""

    def __init__(self, settings: SpoolSettings) -> None:
        """Raise :class:`OperatorError` for a reader that this host does not know."""
        self.by_list = settings.answers == "acl"
        self.readers = _resolved(settings.readers)

    def write(self, path: str, data: bytes | Tar, owner: tuple[int, int], *, sync: bool = True) -> None:
        """Write a private file that ``owner`` (uid, gid) may read once it is public. It has no digest without ``sync``.

        The directory of ``path`` tells whether there are other daemons, which may read the file as well.
        """
        try:
            if self.by_list:
                self._write_with_list(path, data, owner[0], sync=sync)
            else:
                self._give_away(path, data, owner, sync=sync)
        except OSError as error:
            if error.errno not in (NOT_LET_IN if self.by_list else NOT_GIVEN):
                raise
            if sync:
                name = os.path.basename(path)
                said = "its owner cannot be given access: this answer stays the daemons'"
                log.warning(said, answer=name, uid=owner[0], error=error)
            fsops.write_private(path, data, mode=_own_mode(path), sync=sync)

    def _write_with_list(self, path: str, data: bytes | Tar, uid: int, *, sync: bool) -> None:
        users = {uid, *self.readers.users} - {os.geteuid()}
        if users or self.readers.groups:
            access = acl.readers(users, self.readers.groups, own_group=_is_shared(path))
            fsops.write_private(path, data, access=access, sync=sync)
        else:
            fsops.write_private(path, data, mode=_own_mode(path), sync=sync)

    def _give_away(self, path: str, data: bytes | Tar, owner: tuple[int, int], *, sync: bool) -> None:
        if sync and owner[0] != os.geteuid():
            digest = data.sha256 if isinstance(data, Tar) else hashlib.sha256(data).hexdigest()
            fsops.write_private(digest_of(path), f"{digest} {len(data)}\n".encode())
        fsops.write_private(path, data, mode=CLOSED, owner=owner, sync=sync)

    def is_fine(self, found: Rights, directory: Rights) -> bool:
        """Tell, by the answer alone, whether all is well with it: it is a daemon's, and has a list."""
        return _is_ours(found, directory) and found.access is not None and found.mode == acl.MODE

    def what_is_wrong(self, found: Rights, uid: int, directory: Rights) -> str:
        """Say why ``uid`` may be unable to read an answer, or others able to change it. "" where all is well.

        An answer that was given away, by an earlier version or under the other setting, stays as it is.
        """
        if not _is_ours(found, directory):
            given = (found.uid, found.mode) == (uid, CLOSED)
            return "" if given else "it has another owner or mode than was published, so it may have been changed"
        if found.mode not in (CLOSED, acl.MODE):
            return f"its mode is {found.mode:04o}"
        if found.access is None and uid != found.uid:
            return "its owner cannot read it"
        return ""


def _is_ours(found: Rights, directory: Rights) -> bool:
    """Tell whether a file is a daemon's: by the group if the daemons share one, else by the user who runs them all."""
    if directory.mode & stat.S_ISGID:
        return found.gid == directory.gid
    return found.uid in (directory.uid, os.geteuid())


def publish(private: str, public: str) -> None:
    """Show an answer, unless something is shown by that name. May be repeated.

    The kernel lets only the owner of a file link it. So an answer is renamed if another daemon wrote it and died, or if
    it was given away. Then it has no private name any more. Nothing is replaced: spec, "Commit and publication".
    """
    take_along(private, public)
    try:
        fsops.publish(private, public)
    except PermissionError:
        if not fsops.exists(public):
            fsops.replace(private, public)


def _resolved(readers: list[str]) -> Readers:
    """Return the readers that the setting names. Raises :class:`OperatorError` where this host has no such reader."""
    found: dict[str, set[int]] = {"user": set(), "group": set()}
    for each in readers:
        kind, _, name = each.partition(":")
        known = accounts.uid_of(name) if kind == "user" else accounts.gid_of(name)
        if known is None and not name.isdecimal():
            raise OperatorError(f"spool.readers: this host has no {kind} {name!a}: make it, or take it out")
        found[kind].add(int(name) if known is None else known)
    return Readers(frozenset(found["user"]), frozenset(found["group"]))


# -- digests


def digest_of(path: str) -> str:
    """Return the path of the digest of an answer, whether there is one or not."""
    return path.removesuffix(".json").removesuffix(".tar") + DIGEST


def take_along(private: str, public: str, *, over: bool = False) -> None:
    """Move the digest of an answer, if there is one, to where the answer goes next, before the answer goes there.

    The digest is durable there first. If another answer is public by that name, the digest of that one stays, unless
    the answer is put ``over`` it.
    """
    digest = digest_of(private)
    if not fsops.exists(digest):
        return
    if over:
        fsops.replace(digest, digest_of(public))
    elif fsops.exists(public):
        fsops.remove(digest)
    else:
        fsops.replace(digest, digest_of(public))
        fsops.sync_directory(os.path.dirname(public))  # or a loss of power could leave the answer without its digest


def forget(path: str) -> None:
    """Remove the digest of an answer that is removed, if there is one."""
    fsops.remove(digest_of(path))


def is_digest_of_nothing(path: str) -> bool:
    """Tell whether the digest ``path`` has no answer, and no entry that will have one."""
    answer = path.removesuffix(DIGEST)
    return not (fsops.exists(f"{answer}.json") or fsops.exists(f"{answer}.tar"))


def was_given_away(path: str) -> bool:
    """Tell whether an answer belongs to its owner, and has a digest of what was published."""
    found, directory = attributes.rights(path), attributes.rights(os.path.dirname(path))
    given = found is not None and directory is not None and not _is_ours(found, directory)
    return given and fsops.exists(digest_of(path))


class _Kept(NamedTuple):
    """The SHA-256 of a published answer in hexadecimal, and its length in bytes."""

    digest: bytes
    length: int


def _kept(path: str) -> _Kept | None:
    data = fsops.read(digest_of(path), 1024)
    if data is None:
        return None
    digest, _, length = data.strip().partition(b" ")
    return _Kept(digest, int(length) if length.isdigit() else MOST)


def is_published(path: str, data: bytes) -> bool | None:
    """Tell whether ``data`` was published as ``path``. None where nothing was published there.

    False where that cannot be told: the owner of an answer that was given away may keep the daemons from reading it.
    """
    try:
        if not fsops.exists(path):
            return None
        if kept := _kept(path):
            return hmac.compare_digest(kept.digest, hashlib.sha256(data).hexdigest().encode())
        return fsops.read(path, len(data)) == data
    except (PermissionError, BlockingIOError, fsops.OddFileError):
        return False


def is_ours(path: str) -> bool:
    """Tell whether an answer is a daemon's, so that nobody else can have changed it."""
    found, directory = attributes.rights(path), attributes.rights(os.path.dirname(path))
    return found is not None and directory is not None and _is_ours(found, directory)


def length(path: str) -> int | None:
    """Return how many bytes of an answer are worth reading. None where no length is kept that this process may see."""
    try:
        kept = _kept(path)
    except PermissionError:
        return None
    return kept.length if kept else None


class Doubt(NamedTuple):
    """A doubt about an answer, for the operator: whether it was changed, and what is known, in words."""

    changed: bool
    why: str


def doubt(path: str, data: bytes) -> Doubt | None:
    """Return a doubt that ``data`` was published as ``path``. None where there is none.

    Only the daemons and root have doubts. Other users cannot read the digest, and it is their own answer.
    """
    try:
        kept = _kept(path)
        found, directory = attributes.rights(path), attributes.rights(os.path.dirname(path))
    except PermissionError:
        return None
    if kept is not None:
        same = hmac.compare_digest(kept.digest, hashlib.sha256(data).hexdigest().encode())
        return None if same else Doubt(changed=True, why=f"{path} is not what was published: its owner has changed it")
    if found and directory and os.geteuid() != found.uid and not _is_ours(found, directory):
        return Doubt(changed=False, why=f"{path} belongs to its owner, who may have changed it: no digest was kept")
    return None


def _is_shared(path: str) -> bool:
    return fsops.own_mode(path) == 0o660


def _own_mode(path: str) -> int:
    """Return the mode of an answer without a list: its owner writes it, or cannot be let in."""
    return acl.MODE if _is_shared(path) else CLOSED
