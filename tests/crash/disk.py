"""A disk that loses power: which trees may be on it after a part of a list of operations.

Durable are a file's bytes, owner, mode and list up to its last fsync, and the names in a directory up to the last fsync
of that directory. A symbolic link is durable together with its text. Any other change may be there or not, in any
combination, with one exception: the removal of a rename's old name is never there without the new name
(spool-layout.md, "Durability"). So a rename may be there, not there, or half there, with both names. A file whose bytes
were not synced has none of them, or half.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from spoold.host import acl
from tests.crash.operations import Operation

WITHOUT_EFFECT = {"utime", "open", "mkdir", "chmod"}  # on names that exist already; chmod is for directories only


class File(NamedTuple):
    """A file's content and owner. ``link`` is the target of a symbolic link."""

    data: bytes = b""
    mode: int = 0o600
    link: str = ""
    uid: int = os.geteuid()
    access: bytes | None = None


class Change(NamedTuple):
    """One change that the disk may have or not. ``half`` marks the part of ``number`` that needs the other part."""

    number: int
    directory: str  # its fsync makes the change durable; "" for the bytes of a file
    name: str
    inode: int
    operation: Operation
    half: bool = False


Tree = dict[str, int]  # inodes by path


class Disk:
    """A spool at the beginning of the recording, with everything durable."""

    def __init__(self, root: Path) -> None:
        self.directories: list[str] = []
        self.tree: Tree = {}
        self.files: dict[int, File] = {}
        for path in sorted(root.rglob("*")):
            below = str(path.relative_to(root))
            if path.is_dir() and not path.is_symlink():
                self.directories.append(below)
            else:
                self.tree[below] = path.lstat().st_ino
                self.files[path.lstat().st_ino] = look(path)
        self.modes = {each: stat.S_IMODE((root / each).stat().st_mode) for each in self.directories}


def look(path: Path) -> File:
    """Return the file at ``path``."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return File(link=os.readlink(path), uid=found.st_uid)
    return File(path.read_bytes(), stat.S_IMODE(found.st_mode), uid=found.st_uid, access=acl.of(str(path)))


def changes_of(number: int, operation: Operation) -> list[Change]:
    """Return the changes that an operation makes. A rename changes two directories."""

    def name(path: str, inode: int, *, half: bool = False) -> Change:
        return Change(number, os.path.dirname(path), path, inode, operation, half)

    match operation.kind:
        case "open" | "symlink" if operation.is_new:
            return [name(operation.path, operation.inode)]
        case "link":
            return [name(operation.target, operation.inode)]
        case "unlink":
            return [name(operation.path, 0)]
        case "rename":
            return [name(operation.target, operation.inode), name(operation.path, 0, half=True)]
        case "write" | "fchmod" | "fchown" | "setxattr":
            return [Change(number, "", operation.path, operation.inode, operation)]
    assert operation.kind in WITHOUT_EFFECT, f"the disk has no rule for {operation}"
    return []


class Power:
    """The operations of one run so far, as the disk has them: some durable, the others pending."""

    def __init__(self, disk: Disk) -> None:
        self.tree = dict(disk.tree)
        self.files = dict(disk.files)
        self.pending: list[Change] = []

    def add(self, number: int, operation: Operation) -> None:
        """Add one more operation."""
        if operation.kind in {"fsync", "fdatasync"}:
            self._sync(operation)
        elif operation.kind == "drop":
            self.pending = [change for change in self.pending if change.name != operation.path]
            self.tree[operation.path] = operation.inode
            self.files[operation.inode] = operation.data
        else:
            if operation.kind == "symlink":
                self.files[operation.inode] = File(link=operation.data)
            self.pending += changes_of(number, operation)

    def _sync(self, operation: Operation) -> None:
        def is_durable(change: Change) -> bool:
            if change.directory == "":
                return change.inode == operation.inode
            return change.directory == operation.path

        removed = {change.number for change in self.pending if change.half and is_durable(change)}
        durable = [
            change for change in self.pending if is_durable(change) or (change.number in removed and not change.half)
        ]
        self.pending = [change for change in self.pending if change not in durable]
        apply(self.tree, self.files, durable)

    def outcomes(self, lost: int) -> Iterator[tuple[list[Change], Tree, dict[int, File]]]:
        """Return each tree that the disk may have now, and the changes that it has lost.

        Up to ``lost`` pending changes are lost, or all but up to ``lost``.
        """
        everything = range(len(self.pending))
        for count in range(min(lost, len(self.pending)) + 1):
            for chosen in itertools.combinations(everything, count):
                for gone in ({*chosen}, {*everything} - {*chosen}):
                    yield [self.pending[each] for each in sorted(gone)], *self._without(gone)

    def _without(self, gone: Iterable[int]) -> tuple[Tree, dict[int, File]]:
        lost = {self.pending[number] for number in gone}
        news = {change.number for change in lost if change.directory and not change.half}
        kept = [c for c in self.pending if c not in lost and not (c.half and c.number in news)]
        tree, files = dict(self.tree), dict(self.files)
        apply(tree, files, kept)
        return tree, files


def apply(tree: Tree, files: dict[int, File], changes: Iterable[Change]) -> None:
    """Apply changes in order."""
    for change in changes:
        operation = change.operation
        if change.directory:
            if change.inode:
                tree[change.name] = change.inode
                files.setdefault(change.inode, File())
            else:
                tree.pop(change.name, None)
            continue
        file = files.get(change.inode, File())
        if operation.kind == "write":
            file = file._replace(data=file.data + operation.data)
        elif operation.kind == "fchmod":
            file = file._replace(mode=operation.data[0])
        elif operation.kind == "fchown":
            file = file._replace(uid=operation.data[0])
        elif operation.kind == "setxattr":
            file = file._replace(mode=acl.MODE, access=operation.data[1])
        files[change.inode] = file


def key(tree: Tree, files: dict[int, File], ignored: tuple[str, ...]) -> frozenset[object]:
    """Return a key that differs between trees. It ignores names that begin or end with one of ``ignored``."""
    numbers: dict[int, int] = {}
    found = []
    for path, inode in sorted(tree.items()):
        if not path.startswith(ignored) and not path.endswith(ignored):
            file = files[inode]
            found.append((path, len(file.data), file.mode, file.link, numbers.setdefault(inode, len(numbers))))
    return frozenset(found)


def make(root: Path, disk: Disk, tree: Tree, files: dict[int, File]) -> None:
    """Make a tree at ``root``, in place of the one that is there."""
    _empty(root, set(disk.directories))
    for directory in disk.directories:
        (root / directory).mkdir(exist_ok=True)
        (root / directory).chmod(disk.modes[directory])
    made: dict[int, Path] = {}
    for path, inode in tree.items():
        if inode in made:
            os.link(made[inode], root / path, follow_symlinks=False)
            continue
        made[inode] = root / path
        made[inode].parent.mkdir(exist_ok=True)  # an executor that comes back would make its own again
        file = files[inode]
        if file.link:
            (root / path).symlink_to(file.link)
        else:
            (root / path).write_bytes(file.data)
            (root / path).chmod(file.mode)
            if file.access is not None:
                os.setxattr(root / path, acl.NAME, file.access)
        if file.uid != os.geteuid():
            os.lchown(root / path, file.uid, file.uid)


def _empty(root: Path, kept: set[str]) -> None:
    """Remove all files, and all directories except those that are made again."""
    for directory, others, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(f"{directory}/{name}")
        for name in others:
            path = f"{directory}/{name}"
            if os.path.islink(path):
                os.unlink(path)
            elif os.path.relpath(path, root) not in kept:
                os.rmdir(path)
