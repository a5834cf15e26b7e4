"""Directories in which builders on one store work. None is taken for the remains of a killed builder."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold.config import NixSettings
from spoold.nix.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(NixSettings(state=str(tmp_path)))
    made.prepare()
    return made


def noting(act: Callable[..., Any], store: Store, alone: list[bool]) -> Callable[..., Any]:
    """Return ``act`` with a note for each call: whether others on the store cannot lock directories meanwhile."""
    lock = fcntl.flock

    def noted(*words: Any, **named: Any) -> Any:
        directory = os.open(store.temporary, os.O_RDONLY | os.O_DIRECTORY)
        try:
            lock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone.append(True)
        else:
            alone.append(False)
        finally:
            os.close(directory)
        return act(*words, **named)

    return noted


def test_a_directory_that_is_just_made_is_locked_before_others_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unlocked new directory would look abandoned to a builder that starts then, and its maker would fail."""
    alone: list[bool] = []
    monkeypatch.setattr(tempfile, "mkdtemp", noting(tempfile.mkdtemp, store, alone))
    with store.workspace() as path:
        store.prepare()
        assert path.is_dir()
    assert alone == [True]


def test_a_directory_that_was_left_is_locked_while_nobody_makes_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.temporary / "left").mkdir()
    alone: list[bool] = []
    monkeypatch.setattr(fcntl, "flock", noting(fcntl.flock, store, alone))
    store.prepare()
    assert not list(store.temporary.iterdir())
    assert alone[-1] is True
