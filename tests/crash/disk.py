"""A disk that loses power: which trees may be found on it after some of a list of operations.

What is durable: the bytes, owner, mode and list of a file up to its last fsync; the names in a directory up to the last
fsync of that directory. A symbolic link comes with its text. Anything else may be there or not, in any combination,
with one exception: the removal of a rename's old name is never there without the new name (spool-layout.md,
"Durability"), so a rename is there, or not, or half: both names. A file whose bytes were not synced has none of them,
or half.
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

WITHOUT_EFFECT = {"utime", "open", "mkdir", "chmod"}  # of names that are there already; chmod: of directories only


class File(NamedTuple):
    """What is in a file, and whose it is; ``link`` is where a symbolic link points to."""

    data: bytes = b""
    mode: int = 0o600
    link: str = ""
    uid: int = os.geteuid()
    access: bytes | None = None


class Change(NamedTuple):
    """One change that the disk may have, or not. ``half`` marks a part of ``number`` that needs the other one."""

    number: int
    directory: str  # whose fsync makes it durable; "" for the bytes of a file
    name: str
    inode: int
    operation: Operation
    half: bool = False


Tree = dict[str, int]  # inodes by path


class Disk:
    """A spool as it was when the recording began, all of it durable, and the operations since."""

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
    """Return what is at ``path``."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return File(link=os.readlink(path), uid=found.st_uid)
    return File(path.read_bytes(), stat.S_IMODE(found.st_mode), uid=found.st_uid, access=acl.of(str(path)))


def changes_of(number: int, operation: Operation) -> list[Change]:
    """Return what an operation changes: a rename changes two directories."""

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
    assert operation.kind in WITHOUT_EFFECT, f"the disk knows of no {operation}"
    return []


class Power:
    """The operations of one run so far, as the disk has them: some durable, the others pending."""

    def __init__(self, disk: Disk) -> None:
        self.tree = dict(disk.tree)
        self.files = dict(disk.files)
        self.pending: list[Change] = []

    def add(self, number: int, operation: Operation) -> None:
        """Take one more operation in."""
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
        """Return the trees that the disk may have now, and what is lost in each.

        Up to ``lost`` pending changes are lost, or all but as many.
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
    """Do changes in their order."""
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
    """Return what tells trees apart, but for names that end or begin with one of ``ignored``."""
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
        made[inode].parent.mkdir(exist_ok=True)  # an executor that comes back makes its own anew
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
    """Remove all files, and all directories but those that are made again."""
    for directory, others, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(f"{directory}/{name}")
        for name in others:
            path = f"{directory}/{name}"
            if os.path.islink(path):
                os.unlink(path)
            elif os.path.relpath(path, root) not in kept:
                os.rmdir(path)
