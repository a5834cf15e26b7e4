"""OUT/sources: what Nix finds in its store instead of fetching it, and what the lock says of each."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from distribution import Index, MakeError, Wanted, run, sha256_file

BUSYBOX = "busybox-static"


def store_name(name: str) -> str:
    """Return a name with the characters that Nix allows in a store path."""
    return re.sub(r"%3a|[^A-Za-z0-9+._-]", "-", name)


def wanted(index: Index, names: Iterable[str]) -> list[Wanted]:
    """Return what has to be downloaded for packages that apt knows."""
    return [
        Wanted(name, index.field(name, "Version"), index.field(name, "SHA256"), int(index.field(name, "Size") or 0))
        for name in names
    ]


def described(index: Index, name: str) -> dict[str, str | int]:
    """Return what the lock says of a package that is fetched on demand: its .deb is the source."""
    return {
        "version": index.field(name, "Version"),
        "file": store_name(os.path.basename(index.field(name, "Filename"))),
        "sha256": index.field(name, "SHA256"),
        "size": int(index.field(name, "Size") or 0),
    }


def add(index: Index, name: str, deb: Path, sources: Path) -> dict[str, str | int]:
    """Put a package that is fetched at once into OUT/sources, and return what the lock says of it."""
    said = described(index, name)
    if name == BUSYBOX:
        return said | _add_busybox(deb, index.field(name, "Version"), sources)
    return said | _add_archive(deb, str(said["file"]), sources)


def place(source: Path, target: Path) -> None:
    """Put a file of the cache into a directory, where it is seen once it is whole."""
    private = target.with_name(f".{target.name}")
    private.unlink(missing_ok=True)
    try:
        os.link(source, private)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, private)
    private.rename(target)


def members(deb: Path) -> list[str]:
    """Return the names in the ar archive that a .deb is."""
    names = []
    with deb.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise MakeError(f"{deb} is not a Debian package: remove it and try again")
        while len(header := stream.read(60)) == 60:
            names.append(header[:16].decode("ascii").strip().rstrip("/"))
            size = int(header[48:58])
            stream.seek(size + size % 2, os.SEEK_CUR)
    return names


def _add_archive(deb: Path, name: str, sources: Path) -> dict[str, str | int]:
    """Normally the .deb itself goes in, with the sum that the distribution signed.

    The builder's busybox cannot unpack zstd (Ubuntu), so there it is the archive inside, unpacked, with a sum of our
    own.
    """
    if any(member in ("data.tar.xz", "data.tar.gz") for member in members(deb)):
        place(deb, sources / name)
        return {}
    name = name.removesuffix(".deb") + ".tar"
    with (sources / name).open("wb") as stream:
        if subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=stream, check=False).returncode != 0:
            raise MakeError(f"dpkg-deb cannot unpack {name}: remove {deb} and try again")
    return {"file": name, "sha256": sha256_file(sources / name)}


def _add_busybox(deb: Path, version: str, sources: Path) -> dict[str, str | int]:
    """The program that runs the builders: a directory, since a flat file in the store is never executable."""
    name = store_name(f"busybox-{version}")
    scratch = sources / "scratch"
    run("dpkg-deb", "-x", str(deb), str(scratch))
    program = next((at for at in (scratch / "bin/busybox", scratch / "usr/bin/busybox") if at.is_file()), None)
    if program is None:
        raise MakeError("there is no bin/busybox in Debian's busybox-static")
    target = sources / name / "bin" / "busybox"
    target.parent.mkdir(parents=True)
    shutil.copyfile(program, target)
    target.chmod(0o555)
    shutil.rmtree(scratch)
    return {"file": name, "sha256": hashlib.sha256(nar(sources / name)).hexdigest()}


def nar(path: Path) -> bytes:
    """Return a Nix archive of the path, whose sha256 names a directory in the store."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value + b"\0" * (-len(value) % 8)

    def words(*values: str) -> bytes:
        return b"".join(text(value.encode()) for value in values)

    def node(at: Path) -> bytes:
        if at.is_dir():
            entries = (
                words("entry", "(", "name", child.name, "node") + node(child) + words(")")
                for child in sorted(at.iterdir(), key=lambda child: child.name.encode())
            )
            return words("(", "type", "directory") + b"".join(entries) + words(")")
        executable = words("executable", "") if os.access(at, os.X_OK) else b""
        return words("(", "type", "regular") + executable + words("contents") + text(at.read_bytes()) + words(")")

    return words("nix-archive-1") + node(path)
