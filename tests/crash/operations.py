"""Every operation that changes a spool, observed on its way into the kernel.

The functions of ``os`` that change files are wrapped, wherever they are called from. An audit hook sees what Python
opens, renames, links or removes in any other way (``open()``, ``shutil``), and reports operations that were not
wrapped. So a new kind of operation in spoold is either counted or makes the tests fail. Operations of clients are not
counted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple
from unittest import mock

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
BY_PATH = ("unlink", "remove", "mkdir", "rmdir", "utime", "chmod", "chown", "truncate")
BY_TWO_PATHS = ("rename", "replace", "link")
BY_DESCRIPTOR = ("write", "fsync", "fdatasync", "fchmod", "fchown", "ftruncate", "setxattr")
AUDITED = {
    f"os.{name}"
    for name in ("rename", "link", "symlink", "remove", "mkdir", "rmdir", "utime", "chmod", "chown", "truncate")
} | {"open"}


class Operation(NamedTuple):
    """One operation. Paths are below the spool's root, ``inode`` is the file's, ``data`` is written.

    For a new symbolic link, ``path`` is its own path and ``data`` is its text.
    """

    kind: str
    path: str
    target: str = ""
    inode: int = 0
    data: Any = None
    is_new: bool = False  # open, symlink: nothing had that name

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" {self.target}" if self.target else "")


class Watcher:
    """A watcher is told of each operation. Tests override its methods. ``before`` may end the process, or raise."""

    def before(self, operation: Operation) -> None:
        """Handle an operation that is about to happen."""

    def after(self, operation: Operation) -> None:
        """Handle an operation that has happened."""

    def dropped(self, path: str) -> None:
        """Handle a client's new file, or anything else that it put there."""


class _Watched:
    """The current watch. A process has one at a time."""

    root = ""
    watcher: Watcher | None = None
    paths: ClassVar[dict[int, str]] = {}  # by descriptor
    inside = 0  # more than 0: a wrapper handles the current operation
    unknown: ClassVar[list[str]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _Watched.watcher is None or _Watched.inside or event not in AUDITED:
        return
    named = arguments[1 if event == "os.symlink" else 0]
    path = os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) else ""
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return
    if path.startswith(_Watched.root):
        _Watched.unknown.append(f"{event} {path}")


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(root: str, watcher: Watcher) -> Iterator[None]:
    """Tell ``watcher`` of the operations below ``root`` in the block. Fail if one came by an unknown way."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(_Watched, root=root, watcher=watcher, paths={}, inside=0, unknown=[]))
        for name in (*BY_PATH, *BY_TWO_PATHS):
            stack.enter_context(mock.patch.object(os, name, _by_path(getattr(os, name), name)))
        for name in BY_DESCRIPTOR:
            stack.enter_context(mock.patch.object(os, name, _by_descriptor(getattr(os, name), name)))
        stack.enter_context(mock.patch.object(os, "symlink", _linking(os.symlink)))
        stack.enter_context(mock.patch.object(os, "open", _opening(os.open)))
        stack.enter_context(mock.patch.object(os, "close", _closing(os.close)))
        yield
        assert not _Watched.unknown, f"not by a function that is wrapped: {_Watched.unknown}"


@contextlib.contextmanager
def by_a_client() -> Iterator[None]:
    """Don't count operations in the block."""
    _Watched.inside += 1
    try:
        yield
    finally:
        _Watched.inside -= 1


def tell_of_drop(path: str) -> None:
    """Tell the watcher that a client put something at ``path``, which is below the root."""
    if _Watched.watcher is not None:
        _Watched.watcher.dropped(path)


def _below(path: Any) -> str | None:
    """Return ``path`` below the root, or None if it is elsewhere or not counted."""
    if _Watched.inside or not isinstance(path, (str, bytes, os.PathLike)):
        return None
    text = os.path.normpath(os.fsdecode(path))
    return os.path.relpath(text, _Watched.root) if text.startswith(_Watched.root) else None


def _inode(path: Any) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _do(operation: Operation, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    watcher = _Watched.watcher
    assert watcher is not None
    watcher.before(operation)
    with by_a_client():
        result = real(*arguments, **options)
    watcher.after(operation)
    return result


def _by_path(real: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        below = _below(path)
        if below is None:
            return real(path, *arguments, **options)
        target = (_below(arguments[0]) or "") if kind in BY_TWO_PATHS else ""
        kinds = {"remove": "unlink", "replace": "rename"}
        operation = Operation(kinds.get(kind, kind), below, target, _inode(path), arguments)
        return _do(operation, real, path, *arguments, **options)

    return call


def _linking(real: Callable[..., None]) -> Callable[..., None]:
    def call(text: str, path: Any, *arguments: Any, **options: Any) -> None:
        below = _below(path)
        if below is None:
            real(text, path, *arguments, **options)
            return
        watcher = _Watched.watcher
        assert watcher is not None
        operation = Operation("symlink", below, data=text, is_new=True)
        watcher.before(operation)
        with by_a_client():
            real(text, path, *arguments, **options)
        watcher.after(operation._replace(inode=_inode(path)))

    return call


def _by_descriptor(real: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def call(descriptor: int, *arguments: Any) -> Any:
        path = _Watched.paths.get(descriptor)
        if path is None or _Watched.inside:
            return real(descriptor, *arguments)
        data = bytes(arguments[0]) if kind == "write" else arguments
        return _do(Operation(kind, path, "", os.fstat(descriptor).st_ino, data), real, descriptor, *arguments)

    return call


def _opening(real: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        below = _below(path)
        if below is None:
            return real(path, flags, *arguments, **options)
        if not flags & WRITING:
            descriptor = real(path, flags, *arguments, **options)
        else:
            watcher = _Watched.watcher
            assert watcher is not None
            operation = Operation("open", below, is_new=not os.path.lexists(path))
            watcher.before(operation)
            with by_a_client():
                descriptor = real(path, flags, *arguments, **options)
            _Watched.paths[descriptor] = below
            watcher.after(operation._replace(inode=os.fstat(descriptor).st_ino))
        _Watched.paths[descriptor] = below
        return descriptor

    return call


def _closing(real: Callable[[int], None]) -> Callable[[int], None]:
    def call(descriptor: int) -> None:
        _Watched.paths.pop(descriptor, None)
        real(descriptor)

    return call
