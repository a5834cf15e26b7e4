"""The file of exported environments: a tar with a binary cache of Nix's, and a list of what it is for.

Spec: spool-layout.md, "Environments from another host". It has ``environments.json`` and what Nix calls a binary cache:
``nix-cache-info``, ``HASH.narinfo`` for each store path, with its signatures, and ``nar/HASH.nar.zst``, its content.

Nobody has to trust the list: an importing host evaluates the expressions as it does any client's, and takes from the
cache what is signed. So nothing but the store paths is signed. Both ways a file is a stranger's: what is packed was
made by the builder, and what is unpacked may be from anywhere.
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
MOST = 64 << 20  # bytes of the list, and of each other file but contents
_NARINFO = re.compile(r"[0-9a-z]{32}\.narinfo")
_NAR = re.compile(r"nar/[0-9a-z]{52}\.nar(\.[a-z0-9]{1,8})?")
_SIGNED = re.compile(r"^Sig: ([^:\n]*):", re.MULTILINE)


def pack(file: BinaryIO, environments: Environments, cache: Path, sign: Callable[[Path], None], scratch: Path) -> None:
    """Write the environments and the binary cache ``cache``, which is a stranger's, to a file.

    ``sign`` signs a binary cache in a directory of one's own, which is made in ``scratch`` and has no contents.
    """
    own = scratch / "signed"
    own.mkdir()
    for name in sorted(os.listdir(cache)):
        if name == INFO or _NARINFO.fullmatch(name):
            (own / name).write_bytes(_read(cache / name))
    sign(own)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, LIST, encode(environments))
        for path in sorted(path for path in own.iterdir() if path.is_file()):  # Nix makes empty directories beside
            _add(tar, path.name, path.read_bytes())
        for name in sorted(os.listdir(cache / NARS)):
            if _NAR.fullmatch(f"{NARS}/{name}"):
                with _opened(cache / NARS / name) as content:
                    _add_open(tar, f"{NARS}/{name}", content)


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(MOST)


def _opened(path: Path) -> BinaryIO:
    """Open a file of a stranger's directory: a regular one, not through a link."""
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
    """Write the binary cache of a stranger's file into ``directory``, which is there; return what it is for.

    Raises :class:`ClientError` where it is no such file, and :class:`NewerFormatError`.
    """
    (directory / NARS).mkdir()
    environments = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None or not _is_known(member.name):
                    raise ClientError(f"{member.name!a} is nothing that an export has")
                if member.name == LIST:
                    environments = decode(content.read(MOST), Environments, LIST)
                    continue
                with open(directory / member.name, "xb") as target:
                    while part := content.read(1 << 20):
                        target.write(part)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise ClientError(f"no file of `spoolctl deps export`, or a part of one: {error}") from error
    except msgspec.DecodeError as error:
        raise ClientError(f"{LIST} cannot be read: {error}") from error
    if environments is None:
        raise ClientError(f"no file of `spoolctl deps export`: {LIST} is missing")
    return environments


def _is_known(name: str) -> bool:
    return name in (LIST, INFO) or bool(_NARINFO.fullmatch(name) or _NAR.fullmatch(name))


def signers(directory: Path) -> set[str]:
    """Return the names of the keys that signed something in an unpacked cache, as it says itself."""
    return {name for path in directory.glob("*.narinfo") for name in _SIGNED.findall(path.read_text(errors="replace"))}
