"""The spools that are rows of the table, and how they are started: a mode of spoold is a line here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.deadline import Deadline
from benchmarks.places import JOURNAL, MEMORY
from benchmarks.programs import OWN, PROGRAMS, PYTHON, TRIVIAL, Program
from benchmarks.served import Served, settle
from benchmarks.ways import WORKERS, say
from spoold.config import DockerSettings, ExecutorSettings, NixSettings, Settings
from spoold.engines.oci import host
from spoold.host import groups
from spoold.model.errors import OperatorError

Changes = dict[str, dict[str, str | int]]


class Spool(NamedTuple):
    """A spool: the settings that are its own, the programs that it runs, and its place ("" or one of ``places``)."""

    changes: Changes
    programs: tuple[Program, ...]
    place: str = ""


NOTHING: Changes = {"sandbox": {"engine": "benchmarks.nothing"}}
RECYCLED: Changes = {"sandbox": {"mode": "recycled"}}
OCI_RECYCLED: Changes = {"sandbox": {"engine": "oci", "mode": "recycled"}}
OCI_SINGLE_USE: Changes = {"sandbox": {"engine": "oci", "mode": "single-use", "waiting": WORKERS}}
SPOOLS = {
    "spool-only": Spool(NOTHING, (TRIVIAL,)),
    "spool-recycled": Spool(RECYCLED, PROGRAMS),
    # Without a reserve for bursts, since we measure what can go on for ever.
    "spool-single-use": Spool({"sandbox": {"mode": "single-use", "waiting": WORKERS}}, (*PROGRAMS, OWN)),
    "spool-oci-recycled": Spool(OCI_RECYCLED, (TRIVIAL,)),
    "spool-oci-single-use": Spool(OCI_SINGLE_USE, (TRIVIAL,)),
    "spool-nix-shell": Spool({"sandbox": {"waiting": WORKERS}, "nix": {"enter": "nix-shell"}}, (TRIVIAL, PYTHON)),
    "spool-recycled-memory": Spool(RECYCLED, PROGRAMS, MEMORY),
    "spool-recycled-journal": Spool(RECYCLED, (TRIVIAL,), JOURNAL),
}
# Also measured without --quick.
MORE_SPOOLS = {
    "spool-only-memory": Spool(NOTHING, (TRIVIAL,), MEMORY),
    "spool-only-journal": Spool(NOTHING, (TRIVIAL,), JOURNAL),
}
ONLY, MAIN = "spool-only", "spool-single-use"  # MAIN: whose memory is measured, and whose daemons are killed
BURST = "spool-single-use-reserve"  # with the default settings, and so with the reserve for bursts
BURST_SPOOL = Spool({"sandbox": {"mode": "single-use"}}, (TRIVIAL,))


def possible(wanted: dict[str, Spool], deadline: Deadline) -> dict[str, Spool]:
    """Return the ``wanted`` spools whose engine can be had here; the deadline notes why the others are left out."""
    try:
        host.ids()
        host.runtimes(Settings(), groups.settle())
    except OperatorError as error:
        deadline.leave_out("rows with oci", str(error))
        return {
            name: spool for name, spool in wanted.items() if spool.changes.get("sandbox", {}).get("engine") != "oci"
        }
    return wanted


def start(
    given: argparse.Namespace, stack: ExitStack, wanted: Mapping[str, Spool], places: Mapping[str, Path]
) -> dict[str, Served]:
    """Return the ``wanted`` spools whose place exists, served until the ``stack`` ends, with all environments built."""
    settings = Settings(
        executor=ExecutorSettings(slots=WORKERS),
        docker=DockerSettings(host=given.docker),
        nix=NixSettings(state=given.state, system=f"{os.uname().machine}-linux"),
        nixpkgs={"default": given.nixpkgs},
    )
    spools = {}
    for name, spool in wanted.items():
        if spool.place and spool.place not in places:
            continue
        own = msgspec.convert(merged(msgspec.to_builtins(settings), spool.changes), Settings)
        spools[name] = Served(name, spool.programs, places.get(spool.place, given.work), own)
        stack.callback(spools[name].close)
    for served in spools.values():
        say(f"starting {served.name}")
        served.daemons.begin()
    for served in spools.values():
        served.daemons.ready()
        for program in served.programs:
            say(f"building the packages of {served.name}{program.suffix}")
            served.burst([program])
    settle(spools.values())
    return spools


def merged(base: dict[str, dict[str, object]], changes: Changes) -> dict[str, dict[str, object]]:
    """Return ``base`` with the settings of each section that ``changes`` has changed."""
    return base | {section: base[section] | values for section, values in changes.items()}
