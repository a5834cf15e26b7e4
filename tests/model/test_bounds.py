"""Every bound of a request is in the spec's table, and the code enforces exactly that bound."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from spoold.config import SpoolSettings
from spoold.model import arguments, asked_cases, asked_paths, dropped
from spoold.model.dropped import read_request
from spoold.model.errors import ClientError
from tests.engines import REPOSITORY

SPEC = (REPOSITORY / "spool-layout.md").read_text()
TABLE = SPEC.split("\n### Bounds\n")[1].split("\n## ")[0].split("\n### ")[0]
RUN = {"name": "run.sh", "content": ""}


def read(**keys: object) -> None:
    data = json.dumps({"files": [RUN], **keys}).encode()
    read_request(data, max_files=SpoolSettings().max_files, pins=frozenset({"default"}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module in (dropped, arguments, asked_cases, asked_paths)
        for name in vars(module)
        if name.startswith("MAX_")
    ],
)
def test_each_bound_of_the_program_is_in_the_table(module: ModuleType, name: str) -> None:
    assert f" {getattr(module, name)} " in TABLE.replace(",", " ")


def test_the_bound_of_strings_is_in_the_table() -> None:
    with pytest.raises(ClientError) as caught:
        read_request(b"[" + b'"",' * 200_000 + b'""]', max_files=1000, pins=frozenset())
    assert f"more than {8 * 1000 + 145608} keys" in str(caught.value)
    assert "`max_files` + 145608 |" in TABLE


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"files": [RUN, {"name": "x" * 255, "content": ""}]}, {"files": [RUN, {"name": "x" * 256, "content": ""}]}),
        (
            {"files": [RUN, {"name": "x" * 250 + "/" + "y/" * 30 + "z" * 255, "content": ""}]},
            {"files": [RUN, {"name": "/".join(["x" * 204] * 5) + "y", "content": ""}]},
        ),
        (
            {"files": [RUN, {"name": "a/" * 32 + "b", "content": ""}]},
            {"files": [RUN, {"name": "a/" * 33 + "b", "content": ""}]},
        ),
        ({"args": ["x" * 131071]}, {"args": ["x" * 131072]}),
        ({"env": {"A": "x" * 131069}}, {"env": {"A": "x" * 131070}}),
        ({"args": ["x" * (131072 - 64)] * 7 + ["x" * (131072 - 64)]}, {"args": ["x" * (131072 - 64)] * 8 + [""]}),
        ({"args": [""] * 4096}, {"args": [""] * 4097}),
        ({"files": [RUN, {"name": "cutor.nix", "content": "x" * 1048576}]}, {
            "files": [RUN, {"name": "cutor.nix", "content": "x" * 1048577}]}),
        ({"files": [RUN] + [{"name": f"{n}", "content": ""} for n in range(999)]}, {
            "files": [RUN] + [{"name": f"{n}", "content": ""} for n in range(1000)]}),
        ({"priority": 100}, {"priority": 101}),
        ({"outputs": [{"path": "*"}] * 16}, {"outputs": [{"path": "*"}] * 17}),
        ({"outputs": [{"path": "a" * 254 + "*"}]}, {"outputs": [{"path": "a" * 256}]}),
        ({"outputs": [{"path": "*/" * 32 + "*"}]}, {"outputs": [{"path": "*/" * 33 + "*"}]}),
        ({"limits": {"run": {"memory": 1 << 64}}}, {"limits": {"run": {"memory": -(1 << 64)}}}),
        ({"limits": {"run": {"time": 1e308}}}, {"limits": {"run": {"time": 10**309}}}),
    ],
)  # fmt: skip
def test_a_bound_is_kept_to_the_one(good: dict[str, object], bad: dict[str, object]) -> None:
    read(**good)
    with pytest.raises(ClientError):
        read(**bad)
