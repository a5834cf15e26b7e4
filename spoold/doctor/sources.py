"""The doctor's check of where environments are downloaded from: binary caches, and hosts of pinned sources."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from spoold.config import NixSettings
from spoold.host import units
from spoold.model import addresses
from spoold.model.findings import Finding, Subject
from spoold.model.hosts import PORTS, entry
from spoold.nix import caches, seat
from spoold.proxy.reaching import AwayError, InsideError, resolve

WHAT = Subject("pinned sources")
UNIT = "spoold-fetch.service"


def examine(settings: NixSettings) -> Iterator[Finding]:
    """Yield the findings."""
    named = caches.named(settings)
    if not settings.fetch:
        yield WHAT.note(
            f"sources that are in no binary cache of this host ({named}) are not downloaded: [nix] fetch names no host"
        )
        return
    wrong = list(_unreachable(settings))
    yield from wrong
    if not wrong:
        hosts = ", ".join(settings.fetch)
        yield WHAT.fine(f"sources that are in no binary cache of this host ({named}) are downloaded from {hosts}")
    if seat.owner(settings) not in (None, os.geteuid()):
        yield from _proxy()


def _unreachable(settings: NixSettings) -> Iterator[Finding]:
    inside = [addresses.network(each) for each in settings.fetch_inside]
    for each in settings.fetch:
        host = entry(each)
        try:
            asyncio.run(resolve(host._replace(port=host.port or PORTS[0]), inside))
        except InsideError as error:
            remedy = "list the mirror's network in [nix] fetch_inside, or remove the host from [nix] fetch"
            yield WHAT.warning(f"{error}: nothing is downloaded from there", remedy)
        except AwayError as error:
            yield WHAT.warning(f"{error}: nothing is downloaded from there", "correct [nix] fetch, or the host's DNS")


def _proxy() -> Iterator[Finding]:
    """Check the proxy, where a unit runs it."""
    found = units.properties(UNIT, "ActiveState", "SubState")
    if found and found["SubState"] != "running":
        detail = f"{UNIT} is {found['ActiveState']} ({found['SubState']}), and nothing is downloaded without it"
        remedy = f"systemctl restart {UNIT}; after a change of [nix] fetch restart spoold-builder too"
        yield WHAT.warning(detail, remedy)
