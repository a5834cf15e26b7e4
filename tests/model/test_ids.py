"""Names are told apart exactly as the spec says."""

from __future__ import annotations

import pytest

from spoold.model import ids
from spoold.model.ids import Entry


@pytest.mark.parametrize("name", ["a.json", "A-1_b.c.json", "x" * 128 + ".json", "1.json", "a.json.json"])
def test_names_of_submissions(name: str) -> None:
    assert ids.submission_id(name) == name.removesuffix(".json")


@pytest.mark.parametrize("name", ["a.b-c@01234567", "1000.a@x2345678", f"{'x' * 128}@{'Z' * 32}"])
def test_names_that_nobody_can_take_first(name: str) -> None:
    id_ = name.partition("@")[0]
    assert ids.submission_id(f"{name}.json") == ids.cancelled_id(f"{name}.cancel") == id_
    assert not ids.is_id(name)
    for ending in (".json", ".cancel", ".response.json", ".refused.json"):
        assert ids.parse_entry(f"{name}{ending}") is None
        assert ids.parse_result(f"{name}{ending}") is None
        assert ids.kept_for(f"{name}{ending}") is None
    made = ids.unguessable(id_)
    assert made != ids.unguessable(id_)
    assert ids.submission_id(f"{made}.json") == id_


NO_SUBMISSIONS = [
    *("a", "a@1234567.json", f"a@{'x' * 33}.json", "a@1000-9999.json", "a@0-123456.json", "a@12345678@12345678.json"),
    *("@12345678.json", "a.cancel@12345678.json", "a@1234567é.json", "a@12345678.response.json", ".json", ".a.json"),
    *("-a.json", "a b.json", "a@2.json", "a~.json", "a/b.json", "x" * 129 + ".json", "a.response.json"),
    *("a.cancel.json", "a.outputs.json", "a.refused.json", "a.JSON", "a.json\n", "é.json", "a.json~"),
]


@pytest.mark.parametrize("name", NO_SUBMISSIONS)
def test_names_that_are_no_submissions(name: str) -> None:
    assert ids.submission_id(name) is None


@pytest.mark.parametrize("name", [".a.json.x7", "a.json.tmp", "a.json~", "a.json.part", ".nfs0001"])
def test_uploads_in_progress(name: str) -> None:
    assert ids.is_upload_in_progress(name)


NAMES = {
    Entry("a", 1): "a.json",
    Entry("a.b-c", 3): "a.b-c@3.json",
    Entry("x" * 128, 12): f"{'x' * 128}@12.json",
    Entry("a", 1, 0): "a@0-1.json",
    Entry("1000.a", 2, 1000): "1000.a@1000-2.json",
    Entry("a-1", ids.CANCEL, 4294967295): "a-1@4294967295-9999.json",
}


@pytest.mark.parametrize("entry", NAMES)
def test_names_of_entries_are_read_back(entry: Entry) -> None:
    assert ids.new_name(entry) == NAMES[entry]
    assert ids.parse_entry(ids.new_name(entry)) == entry
    assert ids.parse_entry(ids.claimed_name(entry)) == entry
    assert ids.parse_result(ids.result_name(entry)) == entry


def test_parts_of_names_tell_what_the_whole_tells() -> None:
    for entry, name in NAMES.items():
        assert ids.first_part(name) == entry.id
        others = [other for other, theirs in NAMES.items() if ids.owner_part(theirs) == ids.owner_part(name)]
        assert {other.owner for other in others} == {entry.owner}


@pytest.mark.parametrize(
    "name",
    [
        "a@0.json",
        "a@01.json",
        "a@x.json",
        "a@1@2.json",
        "a.lock",
        "a@99999.json",
        "a@1000-0.json",
        "a@01000-1.json",
        "a@1000-.json",
        "a@-1.json",
        "a@1000-1-1.json",
        "a@12345678901-1.json",
        "a@1000-01234567.refused.json",
    ],
)
def test_names_that_are_no_entries(name: str) -> None:
    assert ids.parse_entry(name) is None


def test_build_ids_depend_on_each_part_and_nothing_runs_together() -> None:
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "d"), ("x", "b", "c"), ("a", "b", "c", "d")]
    assert len({ids.build_id(*part) for part in parts}) == len(parts)
    assert ids.build_id("a", "b", "c") == ids.build_id("a", "b", "c")


@pytest.mark.parametrize(
    ("id_", "uid"), [("1000.a", 1000), ("0.a.b", 0), ("1000", None), ("01.a", None), ("a.1.b", None)]
)
def test_whose_an_id_is_by_its_beginning(id_: str, uid: int | None) -> None:
    assert ids.owner_of(id_) == uid
