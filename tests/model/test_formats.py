"""Stored objects are read leniently up to the newest format that this version knows. Requests are read strictly."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from spoold.model import formats
from spoold.model.dropped import read_request
from spoold.model.errors import ClientError, NewerFormatError
from spoold.model.formats import Stored
from spoold.model.job import Runtime
from spoold.model.response import Response
from spoold.model.submission import Dependencies, File, LimitRequests, Origin, Request, Submission
from tests.structs import structs_in

ORIGIN = Origin(uid=1, gid=2, sha256="0" * 64, arrival=3.5)
SUBMISSION = Submission(
    Submission_id="a",
    Request=Request(files=[File(name="run.sh", content="echo")], limits=LimitRequests()),
    Response=Response(),
    Spool=ORIGIN,
)


def with_unknown_keys(value: Any) -> Any:
    """Return plain JSON data with one more key in each object."""
    if isinstance(value, dict):
        return {key: with_unknown_keys(part) for key, part in value.items()} | {"later": {"a": [1, None]}}
    return [with_unknown_keys(part) for part in value] if isinstance(value, list) else value


def test_what_is_written_says_its_format_first() -> None:
    written = formats.encode(SUBMISSION)
    assert next(iter(json.loads(written))) == "format"
    assert json.loads(written)["format"] == Submission.NEWEST
    read = formats.decode(written, Submission, "x")
    assert msgspec.structs.replace(read, format=1) == SUBMISSION


def test_without_a_number_it_is_the_first_format() -> None:
    plain = json.loads(formats.encode(SUBMISSION))
    del plain["format"]
    assert formats.decode(json.dumps(plain).encode(), Submission, "x").format == 1


def test_unknown_keys_are_ignored_at_any_depth() -> None:
    plain = json.loads(formats.encode(SUBMISSION))
    plain["Request"]["limits"] = {"run": {"time": 2}}
    read = formats.decode(json.dumps(with_unknown_keys(plain)).encode(), Submission, "x")
    assert read.Request is not None
    assert read.Request.files == [File(name="run.sh", content="echo")]
    assert read.Request.limits.run is not None
    assert read.Request.limits.run.time == 2
    assert read.Spool == ORIGIN


@pytest.mark.parametrize("also", [{}, {"Request": 7}, {"Spool": {"uid": "root"}}])
def test_a_higher_number_is_not_for_this_reader(also: dict[str, object]) -> None:
    plain = json.loads(formats.encode(SUBMISSION)) | also | {"format": Submission.NEWEST + 1}
    with pytest.raises(NewerFormatError, match=r"/spool/new/a\.json .* format 7, .* up to 6.* upgrade") as raised:
        formats.decode(json.dumps(plain).encode(), Submission, "/spool/new/a.json")
    assert (raised.value.path, raised.value.format) == ("/spool/new/a.json", 7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"\xff"',
        b'{"format": 3',
        b'{"format": "3"}',
        b'{"format": true}',
        b'{"format": 3.5}',
        b'{"format": 2, "build_id": 1}',
        b'{"build_id": "\xff"}',
        b'{"later": ' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_damaged_and_not_newer(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        formats.decode(data, Dependencies, "x")


def test_what_this_version_does_not_need_is_no_obstacle() -> None:
    """In the first format the runtime had a Python, which ran the supervisor."""
    path = f"/nix/store/{'0' * 32}-bash"
    known = {"system": "x86_64-linux", "bash": path, "coreutils": path, "nixpkgs": {}, "format": 1}
    read = formats.decode(json.dumps(known | {"python": "x", "store": "x", "more": 1}).encode(), Runtime, "x")
    assert read.bash == path


@pytest.mark.parametrize("kind", Stored.__subclasses__())
def test_nothing_in_a_stored_object_refuses_unknown_keys(kind: type[Stored]) -> None:
    assert not any(part.__struct_config__.forbid_unknown_fields for part in structs_in(kind))


@pytest.mark.parametrize(
    ("key", "request_"),
    [
        ("format", {"format": 2}),
        ("format", {"format": 1}),
        ("color", {"color": "red"}),
        ("mode", {"files": [{"name": "run.sh", "content": "", "mode": 7}]}),
        ("speed", {"limits": {"speed": 1}}),
        ("threads", {"limits": {"run": {"threads": 1}}}),
        ("threads", {"limits": {"dependencies": {"threads": 1}}}),
    ],
)
def test_a_request_with_an_unknown_key_is_refused_by_its_name(key: str, request_: dict[str, object]) -> None:
    whole = {"files": [{"name": "run.sh", "content": "echo"}]} | request_
    with pytest.raises(ClientError, match=rf"(^|\.){key}: there is no such key"):
        read_request(json.dumps(whole).encode(), max_files=10, pins=frozenset({"default"}))
