"""The stand-in for an impossible name is safe everywhere, and no other answer has the same name."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.model import ids, misnamed

SHA256 = "0123456789abcdef" * 4
LONG = "é" * 127

CALLED = {
    "hw (1).json": "hw%20%281%29",
    "hw (1)": "hw%20%281%29",
    "hw%20(1).json": "hw%2520%281%29",
    "hw .json": "hw%20",
    "hw%20.json": "hw%2520",
    "übung.json": "%C3%BCbung",
    "HW.JSON": "HW.JSON",
    f"{'x' * 140}.json": "x" * 140,
    f"{'x' * 200}": "x" * 200,
    f"{'x' * 201}": f"{'x' * 100}~{hashlib.sha256(b'x' * 201).hexdigest()}",
    "-x.json": "-x",
    "job.response.json": "job.response",
    "x.refused.json": "x.refused",
    "homework.zip": "homework.zip",
    "a@1000-01234567.refused.json": "a%401000-01234567.refused",
    "a\nb\x1b[2J.json": "a%0Ab%1B%5B2J",
    "\udcff.json": "%FF",
    LONG: f"{'%C3%A9' * 16}%C3%~{hashlib.sha256(LONG.encode()).hexdigest()}",
    "hw (1).cancel": "hw%20%281%29.cancel",
    "a b~c": "a%20b%7Ec",
}


@pytest.mark.parametrize("name", CALLED)
def test_what_stands_for_a_name(name: str) -> None:
    assert misnamed.stem(name) == CALLED[name]
    first, own = misnamed.refusal_names(name, 1000, SHA256)
    assert first == f"{CALLED[name]}.refused.json"
    assert own.startswith(f"{CALLED[name]}@1000-{SHA256[:8]}")
    assert (ids.kept_for(first), ids.kept_for(own)) == (None, 1000)


def test_a_name_that_begins_with_a_uid_is_that_users() -> None:
    assert len(misnamed.refusal_names("1000.hw (1).json", 1000, SHA256)) == 2
    assert misnamed.refusal_names("1000.hw (1).json", 2000, SHA256) == ["1000.hw%20%281%29@2000-01234567.refused.json"]


BYTES = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 0x2F} & set(name))
NAMES = st.one_of(
    BYTES.map(lambda name: name.decode(errors="surrogateescape")),
    st.from_regex(r"[a-z0-9.@~%-]{1,60}(\.(json|refused|response|cancel|JSON)){0,3}", fullmatch=True),
)


@given(name=NAMES, other=NAMES, uid=st.integers(0, 2**32 - 2))
def test_no_other_answer_is_called_like_a_refusal(name: str, other: str, uid: int) -> None:
    if ids.submission_id(name) or ids.cancelled_id(name) or ids.is_upload_in_progress(name):
        return
    names = misnamed.refusal_names(name, uid, SHA256)
    for each in names:
        assert re.fullmatch(r"[A-Za-z0-9._%~@-]{1,255}", each)
        assert len(each) <= 255
        assert ids.is_refusal(each)
        assert ids.submission_id(each) is None or "@" in each, "no id ends so"
        entry = ids.parse_entry(each)
        assert entry is None or not ids.is_id(entry.id)
        of_an_id = re.fullmatch(r"([^@]*)@[0-9]+-[0-9a-f]{8}\.refused\.json", each)
        assert of_an_id is None or not ids.is_id(of_an_id[1])
    if misnamed.stem(other) == misnamed.stem(name):
        assert name.removesuffix(".json") == other.removesuffix(".json")


@given(name=NAMES, uid=st.sampled_from([0, 1000]))
def test_what_is_suggested_is_right_and_what_is_said_can_be_printed(name: str, uid: int) -> None:
    good = misnamed.suggested(name, uid)
    id_ = ids.cancelled_id(good) if name.lower().endswith(".cancel") else ids.submission_id(good)
    assert id_ is not None
    assert ids.may_use(id_, uid)
    assert misnamed.reason(name, uid).isprintable()


SAID = {
    "hw (1).json": ("it has ' ' '(' ')'", "hw-1.json"),
    "übung.json": ("it has 'ü'", "ubung.json"),
    "HW.JSON": ("it ends in .JSON", "HW.json"),
    f"{'x' * 140}.json": ("the id in it has 140 characters", f"{'x' * 100}.json"),
    "-x.json": ("it does not begin with a letter or digit", "x.json"),
    "job.response.json": ("the id in it ends in .response", "job-response.json"),
    "homework.zip": ("it does not end in .json", "homework.json"),
    "a@1.json": ("the part after @ has to be 8 to 32 letters, digits and _", "a.json"),
    "a\n\x1b\udcff.json": (r"it has '\n' '\x1b' '\xff'", "a.json"),
    "作业.json": ("it has", "job.json"),
    "1000.a b.json": ("it has ' '", "1000-a-b.json"),
    "hw (1).cancel": ("it has ' ' '(' ')'", "hw-1.cancel"),
    "x.CANCEL": ("it ends in .CANCEL. A cancel is a file", "x.cancel"),
    "hw.json.gz": ("it does not end in .json", "hw.json"),
    "hw.json.swp": ("it does not end in .json", "hw.json"),
    "hw.json. ": ("it does not end in .json, it has ' '", "hw.json"),
    "1 2 3#(4)!5?.json": ("it has ' ' '!' '#' '(' ')' ...", "1-2-3-4-5.json"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_wrong_with_a_name(name: str) -> None:
    wrong, good = SAID[name]
    said = misnamed.reason(name, 2000)
    assert f"is not a name for a submission: {wrong}" in said
    assert said.endswith(f"for example {good}")
