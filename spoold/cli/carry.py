"""The file of exported environments: a tar with a binary cache of Nix and a list of the environments in it.

Spec: spool-layout.md, "Environments from another host". The tar contains ``environments.json`` and the files of a Nix
binary cache: ``nix-cache-info``, and for each store path a ``HASH.narinfo`` with its signatures and a
``nar/HASH.nar.zst`` with its content.

Nobody has to trust the list. An importing host evaluates the expressions as it does for any client, and takes only
signed paths from the cache. So only the store paths are signed. Both directions handle files of strangers: the builder
made the files that are packed, and a file that is unpacked may come from anywhere.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from spoold.model.environments import Environments
from spoold.model.errors import ClientError, OperatorError
from spoold.model.formats import decode, encode

LIST = "environments.json"
INFO = "nix-cache-info"
NARS = "nar"
MOST = 64 << 20  # bytes of the list and of each other file, except the contents in nar/
_NARINFO = re.compile(r"[0-9a-z]{32}\.narinfo")
_NAR = re.compile(r"nar/[0-9a-z]{52}\.nar(\.[a-z0-9]{1,8})?")
_SIGNED = re.compile(r"^Sig: ([^:\n]*):", re.MULTILINE)


def pack(file: BinaryIO, environments: Environments, cache: Path, sign: Callable[[Path], None], scratch: Path) -> None:
    """Write the environments and the binary cache ``cache``, which is a stranger's, to a file.

    ``sign`` signs a binary cache in a directory. It gets a copy in ``scratch``, which is ours and has no nar files.
    """
    own = scratch / "signed"
    own.mkdir()
    for name in sorted(os.listdir(cache)):
        if name == INFO or _NARINFO.fullmatch(name):
            (own / name).write_bytes(_read(cache / name))
    sign(own)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, LIST, encode(environments))
        # Nix makes empty directories beside the files
        for path in sorted(path for path in own.iterdir() if path.is_file()):
            _add(tar, path.name, path.read_bytes())
        for name in sorted(os.listdir(cache / NARS)):
            if _NAR.fullmatch(f"{NARS}/{name}"):
                with _opened(cache / NARS / name) as content:
                    _add_open(tar, f"{NARS}/{name}", content)


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(MOST)


def _opened(path: Path) -> BinaryIO:
    """Open a file in a stranger's directory. It must be a regular file, and no link is followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OperatorError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _add_open(tar: tarfile.TarFile, name: str, content: BinaryIO) -> None:
    tar.addfile(_member(name, os.fstat(content.fileno()).st_size), content)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def unpack(file: BinaryIO, directory: Path) -> Environments:
    """Write the binary cache in a stranger's file to the existing ``directory``, and return the list of environments.

    Raises :class:`ClientError` where it is not an exported file, and :class:`NewerFormatError`.
    """
    (directory / NARS).mkdir()
    environments = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None or not _is_known(member.name):
                    raise ClientError(f"{member.name!a} is no file that an export has")
                if member.size > MOST and not _NAR.fullmatch(member.name):
                    raise ClientError(f"{member.name} has {member.size} bytes, and at most {MOST} are read")
                if member.name == LIST:
                    environments = decode(content.read(MOST), Environments, LIST)
                    continue
                with open(directory / member.name, "xb") as target:
                    while part := content.read(1 << 20):
                        target.write(part)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise ClientError(f"not a file of `spoolctl deps export`, or only a part of one: {error}") from error
    except msgspec.DecodeError as error:
        raise ClientError(f"{LIST} cannot be read: {error}") from error
    if environments is None:
        raise ClientError(f"not a file of `spoolctl deps export`: {LIST} is missing")
    return environments


def _is_known(name: str) -> bool:
    return name in (LIST, INFO) or bool(_NARINFO.fullmatch(name) or _NAR.fullmatch(name))


def signers(directory: Path) -> set[str]:
    """Return the names of the keys with which an unpacked cache claims to be signed."""
    return {name for path in directory.glob("*.narinfo") for name in _SIGNED.findall(path.read_text(errors="replace"))}
