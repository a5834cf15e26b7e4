"""Problem packages in a ZIP archive, which is called ``NAME.zip`` or ``NAME.kpp``.

An archive may be a stranger's. It is unpacked into a private directory: no member gets out of it, and none is larger
than what is read. Links are made after all files, so that no file is written through one. As in a package that is a
directory, a link that leads out of it is refused when it is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from spoold.cli.grading.cases import MOST_BYTES, MOST_FILES
from spoold.cli.grading.package import FILE
from spoold.cli.text import printable
from spoold.model.errors import ClientError

MOST = 4 * MOST_BYTES  # bytes of all files
LINK = 4096  # bytes of a link's target
PART = 1 << 20


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the directory of the package in an archive, which is removed afterwards.

    The package is the archive itself, or its only directory. Errors name the archive instead of that directory. Raises
    :class:`ClientError` where there is no package in it, or where it cannot be unpacked.
    """
    with tempfile.TemporaryDirectory(prefix="spoold-package-") as directory:
        top = os.path.realpath(directory)
        try:
            try:
                _unpack(path, Path(top))
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
                raise ClientError(f"{top}: it cannot be unpacked: {error}") from error
            except OSError as error:  # such as two members of one name
                raise ClientError(f"{top}: it cannot be unpacked: {error.strerror}") from error
            yield _package(Path(top))
        except ClientError as error:
            raise ClientError(str(error).replace(top, printable(str(path)))) from error


def _package(top: Path) -> Path:
    directories = [
        each for each in top.iterdir() if each.is_dir() and not each.is_symlink() and each.name[0] not in "._"
    ]
    places: list[Path] = [top, *(directories if len(directories) == 1 else ())]
    for place in places:
        if (place / FILE).is_file():
            return place
    raise ClientError(f"{top}: there is no {FILE} in it, nor in its only directory")


def _unpack(path: Path, top: Path) -> None:
    links: list[tuple[Path, str]] = []
    room = MOST
    with zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > MOST_FILES:
            raise ClientError(f"{top}: it has more than {MOST_FILES} files")
        for member in archive.infolist():
            place = _place(top, member.filename)
            if member.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(member.external_attr >> 16):
                with archive.open(member) as opened:
                    links.append((place, os.fsdecode(opened.read(LINK))))
                continue
            room = _write(archive, member, place, room)
            if room < 0:
                raise ClientError(f"{top}: it has more than {MOST >> 20} MiB when it is unpacked")
    for place, target in links:
        place.symlink_to(target)


def _place(top: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        raise ClientError(f"{top}: the name {name!a} in it leads out of it")
    return top.joinpath(*parts)


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path, room: int) -> int:
    """Write a file, and return the number of bytes that the others may have."""
    with archive.open(member) as opened, place.open("xb") as file:
        while room >= 0 and (part := opened.read(PART)):
            room -= len(part)
            file.write(part)
    if member.external_attr >> 16 & stat.S_IXUSR:
        place.chmod(0o755)
    return room
