"""A person's own record of their submissions."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spoold import client
from spoold.cli import homes, record
from spoold.cli.record import Record


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "spoold"


def ids(record: Record) -> list[str]:
    return [entry.id for entry in record.entries()]


def test_what_was_submitted_is_told_newest_first() -> None:
    ours = Record("/srv/spool")
    assert ours.entries() == []
    assert all(ours.add(id_, f"{id_} é.py") for id_ in ("a", "b", "a", "c"))
    assert ids(ours) == ["c", "a", "b"]
    assert ours.entries()[0].name == "c é.py"
    assert ours.add("d", os.fsdecode(b"caf\xe9\n.py"))
    assert ours.entries()[0].name == "caf\\xe9\\n.py"
    assert ours.entries()[0].at >= ours.entries()[1].at > 0


def test_nobody_makes_the_home_of_users_who_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", homes.NOWHERE)
    ours = Record("/srv/spool")
    assert not ours.add("a", "a.py")
    assert not ours.can_add()
    assert ours.entries() == []
    assert not os.path.lexists(homes.NOWHERE)


def test_each_spool_has_its_own(tmp_path: Path) -> None:
    places = [str(tmp_path / "a"), str(tmp_path / "a%2Fb"), f"{tmp_path}/a/b", "ssh://h/a", "ssh://h/b", "x" * 3000]
    for place in places:
        Record(place).add(f"id{places.index(place)}", "")
    assert [ids(Record(place)) for place in places] == [[f"id{at}"] for at in range(len(places))]


def test_a_spool_is_the_same_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("spool")
    paths = {Record(each).path for each in ("spool", "spool/", f"{tmp_path}/./spool", "link")}
    assert paths == {Record(client.Spool(tmp_path / "spool")).path}
    assert Record("ssh://host/spool/").path == Record("ssh://host/spool").path


def test_a_line_that_is_none_is_ignored_and_spoils_no_other() -> None:
    ours = Record("/srv/spool")
    ours.add("a", "")
    with open(ours.path, "ab") as file:
        file.write(b'{"id": "../x", "at": 0}\n[1]\nnull\n{"id": "late", "at": "x"}\n\xff\n{"id": "to')
    ours.add("b", "")
    assert ids(ours) == ["b", "a"]


def test_it_stays_within_its_bound_and_keeps_the_newer(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(record, "MOST", 2000)
    ours = Record("/srv/spool")
    for number in range(200):
        ours.add(f"id-{number}", "name")
        assert os.path.getsize(ours.path) <= 2000 + 200
    assert ids(ours)[:5] == [f"id-{number}" for number in range(199, 194, -1)]
    assert len(os.listdir(state)) == 1


def test_several_processes_add_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds even while the record is shortened. No entry is lost that is newer than those that are kept."""
    code = (
        "import sys; from spoold.cli import record; record.MOST = 4000\n"
        "for number in range(100): assert record.Record('/srv/spool').add(f'{sys.argv[1]}-{number}', 'x')"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abcd"]
    assert [process.wait() for process in started] == [0] * 4
    found = ids(Record("/srv/spool"))
    assert len(found) >= 20
    for name in "abcd":
        numbers = [int(id_[2:]) for id_ in found if id_.startswith(f"{name}-")]
        assert numbers == list(range(99, 99 - len(numbers), -1))


def test_a_file_that_was_replaced_while_one_waited_for_it_is_left() -> None:
    ours = Record("/srv/spool")
    ours.add("a", "")
    code = "from spoold.cli import record; assert record.Record('/srv/spool').add('late', '')"
    with open(ours.path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        adds = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 100
        while not re.search(rf"-> FLOCK .* {adds.pid} ", Path("/proc/locks").read_text()):
            assert adds.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        Path(f"{ours.path}.new").write_text('{"id": "b"}\n')
        os.rename(f"{ours.path}.new", ours.path)
    assert adds.wait() == 0
    assert ids(ours) == ["late", "b"]


def test_no_submission_fails_for_want_of_a_record(state: Path) -> None:
    state.parent.write_text("in the way")
    assert Record("/srv/spool").add("a", "") is False


def test_nobody_else_reads_it(state: Path) -> None:
    Record("/srv/spool").add("a", "")
    assert state.stat().st_mode & 0o077 == 0
    assert next(state.iterdir()).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("said", ["", "relative"])
def test_it_is_in_the_home_where_nothing_else_is_said(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_STATE_HOME", said)
    assert record.place() == "/home/ada/.local/state/spoold"


@pytest.mark.parametrize("home", ["", "relative", None])
def test_a_user_without_a_home_gets_none_elsewhere(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty $HOME would be /. A user whom no passwd(5) has would get a directory called ~ in the current one."""
    monkeypatch.delenv("XDG_STATE_HOME")
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "getuid", lambda: 1 << 30)
    assert record.place() == "/nonexistent/.local/state/spoold"
