"""Lay out what an earlier version of spoold left on disk: a spool, a Nix state directory, an image.

``tests/fixtures/format-1`` was made by the daemons of the commit b9df14b, the last one whose objects carry no format.
Never change it: a test that stops passing on it has found a version that cannot be upgraded.

Git keeps no empty directories, owners and times. So a tree is one JSON object that maps each path to its entry: a
``directory``, a ``link``, or a file with this ``text``, and its mode. ``age`` is the seconds since its mtime, negative
where that lies ahead. ``owner`` is the client where the entry belongs to the client. ``group`` is the build group where
the entry has that group. Texts and paths contain ``@UID@`` and ``@GID@`` for the client, ``@STATE@`` for the Nix state
directory and ``@NOW-seconds@`` for a time.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
TIME = re.compile(r"@NOW-(\d+)@")
CLIENT = (4711, 4712) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def spool(root: Path, *, state: Path = Path("/var/lib/spoold"), version: str = "format-1") -> Path:
    """Lay out the spool below ``root`` for one user that runs all daemons. Its runtime names ``state``.

    The client is another user where this process can give files away, and the same user elsewhere.
    """
    _lay_out(_listing(version, "spool"), root, state, group=None)
    return root


def nix_state(state: Path, *, group: int | None, version: str = "format-1") -> Path:
    """Lay out the Nix state directory at ``state``: its directories, links and small files, with an empty store.

    ``group`` is the gid of the build group, None for a builder that has none. This process owns all of it. The
    databases are empty files. A test that needs a store that Nix can read makes one with that version.
    """
    listing = _listing(version, "nix-state")
    if group is None:
        listing["nix/nix/store"] = {"mode": "0711", "directory": True}
    _lay_out(listing, state, state, group)
    return state


def image_tags(version: str = "format-1") -> list[str]:
    """Return the names of the images that the executor's engine holds."""
    tags: list[str] = _listing(version, "image")["tags"]
    return tags


def image_root(version: str = "format-1") -> bytes:
    """Return a tar with the entries of the image's root.

    Its files are empty, because the fixture has only their digests.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for found in _listing(version, "image")["root"]:
            entry = tarfile.TarInfo(found["name"])
            entry.mode = int(found["mode"], 8)
            entry.linkname = found.get("link", "")
            entry.type = _kind(found)
            tar.addfile(entry)
    return buffer.getvalue()


def _kind(found: dict[str, Any]) -> bytes:
    if "link" in found:
        return tarfile.SYMTYPE
    return tarfile.DIRTYPE if "directory" in found else tarfile.REGTYPE


def _listing(version: str, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / version / f"{name}.json").read_bytes())
    return loaded


def _lay_out(listing: dict[str, dict[str, Any]], root: Path, state: Path, group: int | None) -> None:
    now = time.time()
    for name, found in listing.items():  # a directory comes before its entries
        path = root / _filled(name, state, now)
        if "link" in found:
            path.symlink_to(found["link"])
            continue
        if "directory" in found:
            path.mkdir(parents=name == ".", exist_ok=name == ".")
        else:
            path.write_text(_filled(found["text"], state, now))
        if found.get("owner") == "client":
            os.chown(path, *CLIENT)
        if found.get("group") == "build" and group is not None:
            os.chown(path, -1, group)
        path.chmod(int(found["mode"], 8))
        if "age" in found:
            os.utime(path, (now - found["age"],) * 2)


def _filled(text: str, state: Path, now: float) -> str:
    for word, value in (("@UID@", CLIENT[0]), ("@GID@", CLIENT[1]), ("@STATE@", state)):
        text = text.replace(word, str(value))
    return TIME.sub(lambda match: f"{now - int(match[1]):.3f}", text)
