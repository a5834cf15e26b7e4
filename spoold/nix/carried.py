"""Paths that are carried from one store to another, as a binary cache: made here for an export, checked for an import.

Theory of operation: Nix makes and checks the cache, as the store's owner. An export has no signature of this host at
first. The operator signs it, with a key that the builder never sees (:func:`sign`). An import is not trusted. It is
checked as a whole before the builder asks it for anything: all contents against their hashes, and all signatures
against the keys that the operator trusts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

import msgspec

from spoold.config import NixSettings
from spoold.host import proc, userns
from spoold.model.errors import OperatorError
from spoold.nix import seat
from spoold.nix.store import QUICK, Store

SECONDS = 3600.0  # for one copy, or one check
ABANDONED = 24 * 3600.0  # seconds after which a cache that was made for an export counts as abandoned
COMPRESSION = "zstd"
SAID = 2000  # characters of Nix's messages that are passed on
NIX = ["--option", "experimental-features", "nix-command"]


class _Question(msgspec.Struct, frozen=True):
    """A request to make a cache of ``paths``, or else to check the one in ``directory``, or with ``over`` remove it."""

    settings: NixSettings
    paths: list[str] = []
    directory: str = ""
    over: bool = False


class _Answer(msgspec.Struct, frozen=True):
    directory: str = ""
    error: str = ""


def make(settings: NixSettings, paths: list[str]) -> Path:
    """Return a directory that is a binary cache of ``paths`` and all that they refer to. The builder owns it.

    It stays until :func:`remove` removes it, or a later export does so after a day. Raises :class:`OperatorError` where
    it cannot be made.
    """
    return Path(_ask(_Question(settings, paths)))


def remove(settings: NixSettings, directory: Path) -> None:
    """Remove a directory that :func:`make` made."""
    _ask(_Question(settings, directory=str(directory), over=True))


def check(settings: NixSettings, directory: Path) -> None:
    """Raise :class:`OperatorError` unless all paths in a binary cache are whole and signed by a trusted key.

    The directory lies below the state directory. The builder owns it from then on, since Nix makes directories in a
    cache that it reads.
    """
    if os.geteuid() == 0 and (builder := seat.owner(settings)):
        os.chown(directory, builder, -1)
    _ask(_Question(settings, directory=str(directory)))


def sign(directory: Path, key: str) -> None:
    """Sign all paths in a binary cache of one's own with the secret key in the file ``key``.

    Raises :class:`OperatorError` where Nix cannot sign with it.
    """
    with tempfile.TemporaryDirectory() as home:
        argv = [proc.find("nix"), "store", "sign", *NIX, "--store", f"file://{directory}", "--key-file", key, "--all"]
        environment = {"HOME": home, "TMPDIR": home, "NIX_CONF_DIR": home, "NIX_USER_CONF_FILES": ""}
        done = proc.run(argv, QUICK, env=environment | {"NIX_STATE_DIR": f"{home}/state"})
    if not done.ok:
        raise OperatorError(f"cannot sign with {key}: {_said(done)}")


def _ask(question: _Question) -> str:
    if seat.is_taken(question.settings):
        answer = _answer(question)
    else:
        said = seat.run(question.settings, __name__, msgspec.json.encode(question), SECONDS + 60)
        answer = msgspec.json.decode(said, type=_Answer)
    if answer.error:
        raise OperatorError(answer.error)
    return answer.directory


def _answer(question: _Question) -> _Answer:
    store = Store(question.settings)
    store.prepare()  # no builder may have run yet
    if question.paths:
        return _made(store, question.paths)
    if question.over:
        shutil.rmtree(question.directory)
        return _Answer()
    return _checked(store, question.directory)


def _made(store: Store, paths: list[str]) -> _Answer:
    with store.lock.shared(Event()):
        if not store.valid(paths):
            return _Answer(error="a part of it is no longer in the store: build it again")
        directory = tempfile.mkdtemp(dir=_exports(store))
        to = f"file://{directory}?compression={COMPRESSION}"
        done = store.run(["nix", "copy", "--to", to, *paths], proc.Bounds(wall=SECONDS))
    if done.ok:
        return _Answer(directory)
    shutil.rmtree(directory)
    return _Answer(error=f"it cannot be copied: {_said(done)}")


def _exports(store: Store) -> Path:
    """Return the directory that exports are made in. Remove abandoned exports from it."""
    directory = store.room / "exports"
    directory.mkdir(exist_ok=True, mode=0o700)
    for each in directory.iterdir():
        if each.stat().st_mtime < time.time() - ABANDONED:
            shutil.rmtree(each, ignore_errors=True)
    return directory


def _checked(store: Store, directory: str) -> _Answer:
    argv = ["nix", "store", "verify", "--all", "--sigs-needed", "1", "--store", f"file://{directory}"]
    done = store.run(argv, proc.Bounds(wall=SECONDS))  # Nix sees the directory, since it is below the state
    return _Answer(error="" if done.ok else _said(done))


def _said(done: proc.Finished) -> str:
    said = done.stderr.data.decode(errors="replace").strip()
    told = [line for line in said.splitlines() if not line.startswith(("checking ", "warning: "))]
    return "\n".join(told)[-SAID:] or f"it ended by {done.limit or done.signal or done.exit_code}"


if __name__ == "__main__":
    userns.at_start()
    os.umask(0o077)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    sys.stdout.buffer.write(msgspec.json.encode(_answer(asked)))
