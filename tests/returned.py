"""Returned files as a stand-in collects them, and how tests read them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from spoold.host.spill import Spill
from spoold.model.outputs import Found, Returned, Wanted, matched_as, missing


def stands_for(pattern: list[str], name: list[str]) -> bool:
    """Tell whether the parts of a pattern match the parts of a name, by plain recursion."""
    if not pattern or not name:
        return pattern == name
    if pattern[0] == "**":
        return any(stands_for(pattern[1:], name[at:]) for at in range(len(name)))
    part = re.escape(pattern[0]).replace(r"\*", ".*")
    return bool(re.fullmatch(part, name[0])) and stands_for(pattern[1:], name[1:])


def of_directory(directory: Path, wanted: Wanted, contents: Spill | None = None) -> Returned:
    """Return the wanted files below ``directory``. ``contents`` may already have the contents of other runs."""
    contents = Spill("", "") if contents is None else contents
    files: list[Found] = []
    matched, left_out, before = 0, 0, contents.size
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        matches = [stands_for(matched_as(each.path).split("/"), name.split("/")) for each in wanted.outputs]
        if not any(matches) or path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        if len(files) == wanted.files or contents.size - before + size > wanted.total:
            left_out += 1
            continue
        matched |= sum(1 << at for at, match in enumerate(matches) if match)
        data, digest = path.read_bytes(), hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(Found(name, len(data), digest, path.stat().st_mode & 0o777, contents.size))
        contents.add(data)
    notes = [f"run.outputs: {left_out} left out"] if left_out else []
    return Returned(files, contents, missing(wanted.outputs, matched), notes)


def contents(returned: Returned | None) -> dict[str, bytes]:
    """Return the contents of returned files by name. Each must have the digest and the size that the response tells."""
    assert returned is not None
    found = {}
    for file in returned.files:
        found[file.name] = b"".join(returned.contents.pieces(file.at, file.size))
        assert (len(found[file.name]), hashlib.sha256(found[file.name]).hexdigest()) == (file.size, file.sha256)
    returned.contents.close()
    return found


def made(*files: bytes) -> Returned:
    """Return returned files with the names ``0``, ``1`` and so on."""
    kept, found = Spill("", ""), []
    for number, data in enumerate(files):
        found.append(Found(str(number), len(data), hashlib.sha256(data).hexdigest(), 0o644, kept.size))
        kept.add(data)
    return Returned(found, kept, [], [])
