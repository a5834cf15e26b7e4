"""Names in the drop box beyond what one user may have are removed. Nobody else's are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spoold.actors.intake import dropbox, surplus
from spoold.host import attributes, strangers
from spoold.model.ids import Hint
from spoold.upkeep import floor
from tests.actors.test_intake import Box, needs_root

ALICE, BOB = 64_101, 64_102
pytestmark = needs_root


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Return a box that takes nothing in and whose bounds on names are small."""
    monkeypatch.setattr(dropbox, "MOST", 3)
    monkeypatch.setattr(surplus, "MOST_FILES", 6)
    monkeypatch.setattr(surplus, "MOST_OTHERS", 5)
    monkeypatch.setattr(floor.Floor, "reached", lambda _: True)
    return Box(tmp_path)


def made_later(path: Path, uid: int) -> None:
    """Give a file to a user, later than all other files there by the file system's clock."""
    last = max((each.lstat().st_ctime_ns for each in path.parent.iterdir() if each != path), default=0)
    os.chown(path, uid, uid)
    while path.stat().st_ctime_ns <= last:
        os.chown(path, uid, uid)


def drop_all(box: Box, uid: int, *names: str) -> None:
    """Drop files, each later than the one before by the file system's clock."""
    for name in names:
        made_later(box.drop(name, owner=uid), uid)


def hidden(number: int, prefix: str = ".a") -> list[str]:
    return [f"{prefix}{each:02}" for each in range(number)]


def test_the_oldest_uploads_stay(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_all(box, ALICE, *hidden(8))
    drop_all(box, BOB, *hidden(5, ".b"))
    box.step()
    assert box.names("incoming") == {*hidden(8), *hidden(5, ".b")}, "they are young"
    monkeypatch.setattr(surplus, "YOUNG", -60.0)
    box.step()
    assert box.names("incoming") == {*hidden(5), *hidden(5, ".b")}


def test_of_very_many_young_ones_go_as_well(box: Box) -> None:
    drop_all(box, ALICE, *hidden(7), "x.part", *(f"{number}~" for number in range(7)))
    drop_all(box, BOB, ".b")
    box.step()
    assert box.names("incoming") == {*hidden(7), "x.part", "0~", "1~", ".b"}


def test_names_that_are_no_submissions_count_as_what_is_answered(box: Box) -> None:
    """They are remembered like submissions, with the same bound. Uploads have a bound of their own."""
    odd = [f"odd {number:02}" for number in range(12)]
    drop_all(box, ALICE, *hidden(5), *odd[:3])
    box.step()
    drop_all(box, ALICE, *odd[3:])
    drop_all(box, BOB, "b1.json", "b 2")
    box.step()
    assert box.names("incoming") == {*hidden(5), *odd[:9], "b1.json", "b 2"}
    assert box.intake._box._seen == {*odd[:3], "b1.json", "b 2"}


def test_submissions_that_are_not_remembered_stay_up_to_a_bound(box: Box) -> None:
    names = [f"{number:02}.json" for number in range(10)] + ["10.cancel", "11.cancel"]
    drop_all(box, ALICE, *names[:3])
    box.step()
    drop_all(box, ALICE, *names[3:], ".upload")
    drop_all(box, BOB, "b1.json", "b2.json")
    box.step()
    assert box.names("incoming") == {*names[:9], ".upload", "b1.json", "b2.json"}
    assert box.intake._box._seen == {*names[:3], "b1.json", "b2.json"}


def test_whoever_has_as_many_as_may_be_makes_no_more(box: Box) -> None:
    """Their new names are removed as soon as events tell them.

    Otherwise more would arrive before a look than it removes.
    """
    drop_all(box, ALICE, *(f"{number:02}.json" for number in range(11)))
    box.step()
    assert len(box.names("incoming")) == 9
    drop_all(box, ALICE, "new.json")
    drop_all(box, BOB, *(f"b{number}.json" for number in range(4)))
    hints = [Hint("incoming", name) for name in ("new.json", *(f"b{number}.json" for number in range(4)))]
    box.intake.step(hints)
    assert "new.json" not in box.names("incoming")
    assert len(box.names("incoming")) == 9 + 4


def test_a_directory_goes_if_it_is_empty(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    for name in hidden(12):
        path = box.root / "incoming" / name
        path.mkdir()
        if name in hidden(11):
            (path / "x").touch()
        made_later(path, ALICE)
    box.step()
    assert box.names("incoming") == set(hidden(11))
    said = [record.getMessage() for record in caplog.records]
    assert sum("could not be removed" in each for each in said) <= 1


def test_it_is_said_once_for_each_person(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    drop_all(box, ALICE, *hidden(14))
    drop_all(box, BOB, *hidden(13, ".b"))
    box.step()
    drop_all(box, ALICE, *hidden(14, ".c"))
    box.step()
    said = [record.__dict__["fields"] for record in caplog.records if "beyond what one user" in record.getMessage()]
    assert {each["uid"]: each["files"] for each in said} == {ALICE: 4, BOB: 3}
    assert len(said) == 2
    assert len(box.names("incoming")) == 20


def test_what_is_anothers_by_now_stays(box: Box) -> None:
    path = box.drop("a.json", owner=BOB)
    assert not strangers.remove_of(str(path), ALICE)
    assert path.exists()
    assert strangers.remove_of(str(path), BOB)
    assert not strangers.remove_of(str(path), BOB)


@pytest.mark.usefixtures("paced")
def test_nobody_rests_from_what_goes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]  # the clock continues from the time when the box was made
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = attributes.owner

    def owner(path: str) -> attributes.Owned | None:
        now[0] += 0.01
        return real(path)

    drop_all(box, ALICE, *hidden(100))
    monkeypatch.setattr(attributes, "owner", owner)
    pause = box.intake.step()
    assert len(box.names("incoming")) == 10
    assert pause <= dropbox.REST * 0.01 * 10 * 1.01
