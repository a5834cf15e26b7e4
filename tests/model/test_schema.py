"""The JSON Schemas are made from the types, and an independent validator accepts every example."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner

from spoold.cli.ctl import command
from spoold.model.dropped import read_request
from spoold.model.errors import ClientError
from spoold.model.response import (
    Outcome,
    Package,
    Response,
    Status,
    Stream,
    WaitingFor,
    begun,
    finished_phase,
    moment,
)
from spoold.model.schema import KINDS, VERSIONS, Name, schema
from tests.engines import REPOSITORY
from tests.schemas import is_valid, validator

# The version and the digest of each schema. After a change of a type, raise the version in VERSIONS and write the
# digest here.
KNOWN = {
    "request": (5, "ebd3460e22df4b10"),
    "response": (4, "c5846b9ecd842910"),
}
FENCED = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "contrib" / "docs").rglob("*.md"))]
SCRIPT: dict[str, Any] = {"name": "run.sh", "content": "echo hi"}


@pytest.mark.parametrize("name", get_args(Name))
def test_a_change_of_a_schema_has_a_number(name: Name) -> None:
    digest = hashlib.sha256(json.dumps(schema(name), sort_keys=True).encode()).hexdigest()[:16]
    assert (VERSIONS[name], digest) == KNOWN[name]


@pytest.mark.parametrize("name", get_args(Name))
def test_the_command_prints_it(name: Name) -> None:
    printed = CliRunner().invoke(command, ["schema", name])
    assert json.loads(printed.output) == schema(name)
    assert printed.exit_code == 0
    assert CliRunner().invoke(command, ["schema", "another"]).exit_code == 2


@pytest.mark.parametrize("name", get_args(Name))
def test_it_has_every_key(name: Name) -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(KINDS[name])]
    assert sorted(schema(name)["properties"]) == sorted(keys)


def examples() -> list[Any]:
    """Return every request and response in the pages, and the examples' own requests."""
    found = [json.loads(text) for page in PAGES for text in FENCED.findall(page.read_text())]
    requests = (REPOSITORY / "contrib" / "docs" / "examples").rglob("request.json")
    return [each for each in (*found, *map(_loaded, requests)) if "files" in each or "Submission_id" in each]


def _loaded(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("example", examples(), ids=lambda each: each.get("Submission_id", "request"))
def test_every_example_is_valid(example: dict[str, Any]) -> None:
    if "Submission_id" in example:
        validator("response").validate(example)
        return
    try:
        read_request(json.dumps(example).encode(), max_files=1000, pins=frozenset({"default"}))
    except ClientError:
        assert not is_valid("request", example)
    else:
        validator("request").validate(example)


@pytest.mark.parametrize(
    "request_",
    [
        {"files": [SCRIPT]},
        {"files": [SCRIPT | {"encoding": "hex", "content": "00", "executable": None}], "env": None, "limits": None},
        {"files": [SCRIPT | {"name": "./run.sh"}], "limits": {"run": {"time": 0.5, "memory": 1 << 20, "stdout": None}}},
        {"kind": "list-dependencies"},
        {"kind": "build"},
        {"kind": "build", "files": [{"name": "cutor.nix", "content": "x"}]},
    ],
)
def test_what_is_accepted_is_valid(request_: dict[str, Any]) -> None:
    read_request(json.dumps(request_).encode(), max_files=1000, pins=frozenset({"default"}))
    assert is_valid("request", request_)


@pytest.mark.parametrize(
    "request_",
    [
        [],
        {},
        {"files": []},
        {"files": [{"name": "main.py", "content": ""}]},
        {"files": [{"content": ""}, SCRIPT]},
        {"files": [SCRIPT], "stdin": "x"},
        {"files": [SCRIPT], "limits": {"run": {"timeout": 1}}},
        {"files": [SCRIPT], "limits": {"run": {"time": 0}}},
        {"files": [SCRIPT], "priority": 101},
        {"files": [SCRIPT], "args": "x"},
    ],
)
def test_what_is_refused_is_not(request_: object) -> None:
    with pytest.raises(ClientError):
        read_request(json.dumps(request_).encode(), max_files=1000, pins=frozenset({"default"}))
    assert not is_valid("request", request_)


GRADER: dict[str, Any] = {
    "files": [SCRIPT, {"name": "a/"}],
    "protocol": "kattis",
    "args": ["x"],
    "limits": {"run": {"time": 1.5}, "compile": {"memory": 1 << 20}},
}
EVERYTHING: dict[str, Any] = {
    "files": [SCRIPT, {"name": "a", "content": "00", "encoding": "hex", "executable": True}, {"name": "b/"}],
    "inputs": "00",
    "inputs_encoding": "hex",
    "args": ["x"],
    "env": {"A": "x"},
    "limits": {"dependencies": {"time": 9}, "run": {"stdout": 5, "stack": 1 << 20, "on_output_limit": "end"}},
    "nixpkgs": "default",
    "progress": True,
    "priority": 3,
    "kind": "run",
    "stop_on_failure": "group",
    "outputs": [{"path": "out/*", "required": True}],
    "compare": {"by": "tokens", "case_sensitive": False, "float_absolute": 0.5, "like": "cms"},
    "cases": [
        {"name": "1", "inputs": "QQ==", "inputs_encoding": "base64", "args": [], "env": {"A": "y"}},
        {"name": "2", "limits": {"processes": 1}, "points": 2.5, "group": "g", "outputs": [{"path": "**"}]},
        {"name": "3", "expected": {"stdout": "00", "encoding": "hex", "exit_code": 3}, "hidden": True},
        {"name": "4", "compare": {"space_change_sensitive": True, "float_relative": 1}},
    ],
}
NOT_COMPARED = {
    **EVERYTHING,
    "compare": None,
    "cases": [EVERYTHING["cases"][0], EVERYTHING["cases"][2]],
}
WHOLE: list[dict[str, Any]] = [
    EVERYTHING,
    {**NOT_COMPARED, "checker": GRADER},
    {**NOT_COMPARED, "interactor": GRADER},
    {"kind": "build", "files": [{"name": "cutor.nix", "content": "x"}]},
    {"kind": "list-dependencies", "files": []},
]
OTHERS: list[Any] = [None, True, 1, -1, 0, 1.5, 1e300, 1 << 70, "", "x", "group", "end", [], {}, [1], ["x"], {"x": 1}]
# Daemons take these beside what the schema allows, see "What encoders make of it" in the spec.
AS_ENCODED: tuple[Any, ...] = ([], {})
# No schema says these: they are about the text of a value, or about several values together.
NO_SCHEMAS = re.compile(
    "no pin called|not hex|not base64|is the same file|relative path|is empty|no cases to judge|decides what is right|"
    "a build request has none|no files of a hidden case"
)


def changed(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a JSON value with one change in each place in turn, and what was put there."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: each for name, each in value.items() if name != key}, ...
            yield from (({**value, key: each}, put) for each, put in changed(part))
        yield {**value, "another": 1}, 1
    if isinstance(value, list):
        for at, part in enumerate(value):
            yield from (([*value[:at], each, *value[at + 1 :]], put) for each, put in changed(part))
    yield from ((other, other) for other in OTHERS)


@pytest.mark.parametrize(
    "whole", WHOLE, ids=lambda each: each.get("kind") + "".join(each.keys() & {"checker", "interactor"})
)
def test_a_change_anywhere_is_refused_by_both_or_by_none(whole: dict[str, Any]) -> None:
    differ = []
    for request_, put in changed(whole):
        try:
            read_request(json.dumps(request_).encode(), max_files=1000, pins=frozenset({"default"}))
            reason = ""
        except ClientError as error:
            reason = str(error)
        if is_valid("request", request_) != (reason == "") and put not in AS_ENCODED and not NO_SCHEMAS.search(reason):
            differ.append((put, reason))
    assert not differ


def test_a_response_with_every_key_is_valid() -> None:
    phase = finished_phase(
        stdout=Stream(b"\xff", 2), stderr=Stream(b"", 0), time=0.1, outcome=Outcome.OK, exit_code=None, memory=1
    )
    package = Package(name="a", version="", path=f"/nix/store/{32 * 'a'}-a", closure_size=1)
    full = Response(
        Submission_id="a",
        request_sha256="0" * 64,
        status=Status.INTERNAL_ERROR,
        reason="",
        notes=["a"],
        waiting_for=WaitingFor(build_id="a", state="queued"),
        dependencies=msgspec.structs.replace(phase, cached=True),
        compile=phase,
        packages=[package],
        uid=1,
        submitted=moment(0),
        attempt=1,
        host="a",
    )
    full = begun(full, submitted=0, built=1.5, started=3)
    validator("response").validate(json.loads(msgspec.json.encode(full)))
    assert not is_valid("response", {"Submission_id": "a", "status": "COMPLETED"})


@pytest.mark.parametrize("name", get_args(Name))
def test_patterns_are_those_of_any_language(name: Name) -> None:
    patterns = re.findall(r'"pattern": "(.*?)"', json.dumps(schema(name)))
    assert patterns
    assert not any("\\\\A" in pattern or "\\\\Z" in pattern for pattern in patterns)
