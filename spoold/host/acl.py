"""POSIX access control lists: who may read a file beside its owner.

The kernel takes a list as the extended attribute ``NAME`` (linux/posix_acl_xattr.h): the number 2, then tag, rights and
id of each entry, little endian, sorted by tag and id. Once a list is set, the group bits of the mode are the list's
mask, which bounds what the groups and the named users get. A later chmod would take away what the list gives. So code
that sets a list sets no mode.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection

NAME = "system.posix_acl_access"
NO_LIST = {errno.ENODATA, errno.EOPNOTSUPP}
MODE = 0o640  # of a file with a list of readers, as stat(2) shows it
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_READ, _WRITE = 4, 2
_NO_ID = 0xFFFFFFFF
_ENTRY = struct.Struct("<HHI")


def readers(users: Collection[int], groups: Collection[int] = (), *, own_group: bool) -> bytes:
    """Return a list that lets these uids and gids read a file, and with ``own_group`` also the file's own group.

    The file's owner may read and write it. Nobody else may do anything with it.
    """
    entries = [
        (_USER_OBJ, _READ | _WRITE, _NO_ID),
        *((_USER, _READ, uid) for uid in sorted(set(users))),
        (_GROUP_OBJ, _READ if own_group else 0, _NO_ID),
        *((_GROUP, _READ, gid) for gid in sorted(set(groups))),
        (_MASK, _READ, _NO_ID),
        (_OTHER, 0, _NO_ID),
    ]
    return struct.pack("<I", 2) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def give(descriptor: int, data: bytes) -> None:
    """Give an open file of ours the list ``data``.

    Raises OSError: EOPNOTSUPP where the file system keeps no lists, EINVAL for an id that this user namespace lacks.
    """
    os.setxattr(descriptor, NAME, data)


def users(access: bytes) -> set[int]:
    """Return the uids that a list names."""
    return {ident for tag, _, ident in _ENTRY.iter_unpack(access[4:]) if tag == _USER}


def of(path: str) -> bytes | None:
    """Return the list of a file, None where it has none; raise OSError where that cannot be seen."""
    try:
        return os.getxattr(path, NAME, follow_symlinks=False)
    except OSError as error:
        if error.errno in NO_LIST:
            return None
        raise
