"""Ids that are made of name and content, and the secret that makes them a person's own."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.cli import stable
from spoold.client import names
from spoold.model.errors import OperatorError

KEY = b"k" * stable.SIZE


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "spoold"


@given(st.text(), st.binary(), st.integers(1, 3))
def test_every_name_and_content_has_an_id(name: str, data: bytes, attempt: int) -> None:
    id_ = stable.id_of(name, data, KEY, attempt)
    assert names.is_id(id_)
    assert names.owner_of(id_) is None, "its beginning doesn't reserve it for a uid"
    assert id_ == stable.id_of(name, data, KEY, attempt)
    assert id_ != stable.id_of(name, data + b" ", KEY, attempt)
    assert id_ != stable.id_of(f"{name} ", data, KEY, attempt)
    assert id_ != stable.id_of(name, data, b"x" * stable.SIZE, attempt)
    assert id_ != stable.id_of(name, data, KEY, attempt + 1)


def test_names_and_contents_do_not_run_into_each_other() -> None:
    assert stable.id_of("a", b"bc", KEY).rpartition("-")[2] != stable.id_of("ab", b"c", KEY).rpartition("-")[2]
    assert stable.id_of("\udcff", b"", KEY) != stable.id_of("?", b"", KEY)


def test_the_secret_is_made_once_and_is_its_owners(state: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: stable.secret(), range(32)))
    assert len(found) == 1
    assert os.listdir(state) == ["key"], "no private file is left"
    assert stat.S_IMODE((state / "key").stat().st_mode) == 0o600


def test_a_secret_that_is_none_of_ours_is_refused(state: Path, tmp_path: Path) -> None:
    state.mkdir(parents=True)
    (state / "key").write_bytes(b"short")
    with pytest.raises(OperatorError, match="remove the file"):
        stable.secret()
    (state / "key").unlink()
    (tmp_path / "other").write_bytes(KEY)
    (state / "key").symlink_to(tmp_path / "other")
    with pytest.raises(OperatorError, match="XDG_STATE_HOME"):
        stable.secret()


def test_a_home_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(OperatorError, match="XDG_STATE_HOME"):
        stable.secret()
