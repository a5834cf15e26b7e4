"""Choose what the plain run of the tests leaves out, so that it stays short. ``contrib/test --all`` leaves out nothing.

A variant of a test may run in several set-ups: with each engine, in each mode, as root and as a unit. The plain run
tries it in one of them. The variant's name chooses the set-up, so each set-up gets its share, the same each time. A
test of few variants runs in all set-ups, unless it is marked ``alike``: it asks nothing that its set-up could answer in
another way. The mark may name the set-up, such as the one in which the test does most. Attacks, limits and walls are
never marked. A test that the command line names by itself (``FILE::TEST``) always runs.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict

import pytest

from tests import engines

SETUPS = {"engine_at", "engine", "mode", "served", "setup"}  # parameters
FEW = 4  # variants


def choose(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests that this run leaves out. A test that asks Docker itself runs with Docker only, in every run."""
    left_out = [item for item in items if _of_oci(item) and "docker_host" in getattr(item, "fixturenames", ())]
    if os.environ.get("SPOOLD_TEST_LONG") or any("::" in word for word in config.args):
        return left_out
    left_out += [item for item in items if item.get_closest_marker("long")]
    left_out += [item for item in items if _of_oci(item) and not item.get_closest_marker("engines")]
    return left_out + _in_other_setups([item for item in items if item not in set(left_out)])


def _of_oci(item: pytest.Item) -> bool:
    return _parameters(item).get("engine_at") == engines.OCI


def _in_other_setups(items: list[pytest.Item]) -> list[pytest.Item]:
    tests: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if _parameters(item).keys() & SETUPS:
            tests[item.nodeid.partition("[")[0]][_variant(item)].append(item)
    left_out = []
    for test, variants in tests.items():
        for name, same in variants.items():
            alike = same[0].get_closest_marker("alike")
            if len(variants) > FEW or alike:
                wanted = [item for item in same if alike and _has(item, alike.args)] or same
                key = name if len(variants) > FEW else f"{test} {name}"
                kept = wanted[zlib.crc32(key.encode()) % len(wanted)]
                left_out += [item for item in same if item is not kept]
    return left_out


def _has(item: pytest.Item, setups: tuple[object, ...]) -> bool:
    return any(value in setups for value in _parameters(item).values())


def _variant(item: pytest.Item) -> str:
    """Return the test's parameters without its set-up."""
    ids = item.nodeid.partition("[")[2].removesuffix("]")
    for name, value in _parameters(item).items():
        if name in SETUPS and isinstance(value, str):
            ids = "-".join(f"-{ids}-".split(f"-{value}-", 1)).strip("-")
    return ids


def _parameters(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}
