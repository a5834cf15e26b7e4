"""The root of all sandboxes: empty directories to mount on, the program of its root, and what a C library reads.

Jobs run programs of the Nix store, which is mounted. ``/usr/bin/env``, and ``sh`` and ``bash`` in ``/bin`` and
``/usr/bin``, are links into the store. So are the two places where programs look for time zones. ``/etc`` has what a C
library reads, see ``sandbox.etc``. Root runs one program, see ``sandbox.program``.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from importlib import resources

from spoold.model.job import Runtime
from spoold.sandbox import etc, program
from spoold.sandbox.facts import ETC, KEPT, LINE
from spoold.sandbox.orders import ENTER, ZONES

DIRECTORIES = (
    *("bin", "dev", "etc", "nix", "nix/store", "proc", "sys", "usr", "usr/bin", "usr/share", "job", "spoold"),
    KEPT.lstrip("/"),
    LINE.lstrip("/"),
)


def archive(runtime: Runtime, kept: str = "") -> bytes:
    """Return the root as a tar; the same input gives the same bytes. See ``program`` for the directory ``kept``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in DIRECTORIES:
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)  # runc gives a tmpfs the mode of the directory it covers
        for name, target in _links(runtime):
            _add(tar, name, tarfile.SYMTYPE, 0o777, link=target)
        for name, content in etc.files():
            _file(tar, f"etc/{name}", content)
            if name in ETC:
                _file(tar, f"{KEPT.lstrip('/')}/{name}", content)
        with (resources.files("spoold.sandbox") / "enter.sh").open("rb") as file:
            _file(tar, ENTER.lstrip("/"), file.read())
        # Where the engine remaps users, the porter's root does not own these files. So everybody who can enter the
        # directory may run the program.
        _add(tar, os.path.dirname(program.IN_IMAGE).lstrip("/"), tarfile.DIRTYPE, 0o700)
        _file(tar, program.IN_IMAGE.lstrip("/"), program.content(kept), 0o555)
    return buffer.getvalue()


def _links(runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield the names of links, and what they lead to."""
    for name in ("bin/sh", "bin/bash", "usr/bin/sh", "usr/bin/bash"):
        yield name, f"{runtime.bash}/bin/bash"
    yield "usr/bin/env", f"{runtime.coreutils}/bin/env"
    yield "etc/mtab", "/proc/mounts"  # some engines add this link
    if runtime.tzdata:
        yield ZONES.lstrip("/"), f"{runtime.tzdata}/share/zoneinfo"
        yield "usr/share/zoneinfo", f"{runtime.tzdata}/share/zoneinfo"


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    _add(tar, name, tarfile.REGTYPE, mode, content=content)


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, *, content: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content))
