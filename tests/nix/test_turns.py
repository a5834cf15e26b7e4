"""Builds that hang in Nix's sandbox, and builds of others, through the builder."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from spoold.actors.builder import Builder
from spoold.config import BuilderSettings, Settings, SpoolSettings
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.submission import Dependencies
from spoold.nix.build import NixBuilder
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from tests.waiting import until

pytestmark = pytest.mark.nix
SHELL = '{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { shellHook = "# %s"; packages = [ %s ]; }\n'
HANGS = '(pkgs.runCommand "hangs-%s" { } "sleep 600")'


def test_hanging_builds_delay_no_other(nix_builder: NixBuilder, nix_settings: Settings, tmp_path: Path) -> None:
    layout.create(str(tmp_path))
    settings = msgspec.structs.replace(
        nix_settings, spool=SpoolSettings(path=str(tmp_path)), builder=BuilderSettings(patience=1, slow=2)
    )
    builds, builder = BuildStore(settings), Builder(settings, NixBuilder(settings))
    builder.start()
    try:
        stamp = str(time.time_ns())
        pin = nix_builder.prepare().nixpkgs["default"]

        def file(name: str, client: int, packages: str = "") -> None:
            builds.uses.note(name, client)
            expression = SHELL % (f"{stamp}-{name}", packages)
            builds.request(Dependencies(build_id=name, expression=expression, nixpkgs=pin))

        hostile = {f"hostile-{number}" for number in range(6)}
        for name in hostile:
            file(name, 1, HANGS % f"{stamp}-{name}")
        builder.step()
        for name in ("honest-0", "honest-1"):
            file(name, 2)

        def finished() -> set[str]:
            builder.step()
            return set(builds.finished())

        until(lambda: finished() == {"honest-0", "honest-1"}, lambda: str(builds.finished()))
    finally:
        builder.stop()
    assert all(record.result.shell for name in builds.finished() if (record := builds.result(name)))
    assert set(builds.queue.entries(State.NEW)) == {Entry(name, 1) for name in hostile}, "no build is lost"
    assert builds.queue.entries(State.BUILDING) == []
