"""The doctor's check of where environments are downloaded from: binary caches, and hosts of pinned sources."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from spoold.config import NixSettings
from spoold.host import units
from spoold.model import addresses
from spoold.model.findings import Finding, Subject
from spoold.model.hosts import PORTS, entry, of_url
from spoold.nix import caches, seat
from spoold.proxy import rules
from spoold.proxy.reaching import AwayError, InsideError, connect, resolve

WHAT = Subject("pinned sources")
CACHES = Subject("binary caches")
UNIT = "spoold-fetch.service"
ANSWER_TIME = 10.0  # seconds for a cache to accept a connection
TRUSTED = "trusted="  # in the URL of a cache whose paths need no signature


def examine(settings: NixSettings) -> Iterator[Finding]:
    """Yield the findings."""
    if settings.substituters:
        yield from _caches(settings)
    yield from _sources(settings)


def _caches(settings: NixSettings) -> Iterator[Finding]:
    wrong = False
    for url in settings.substituters:
        if said := _fault(url):
            wrong = True
            remedy = "mend it, or correct [nix] substituters; until then builds go on without it"
            yield CACHES.warning(f"{caches.shown(url)}: {said}", remedy)
    if not settings.trusted_public_keys and not all(TRUSTED in url for url in settings.substituters):
        wrong = True
        yield CACHES.warning(
            "[nix] trusted_public_keys names no key, so nothing that is signed is taken from them",
            "put the public keys of these caches there",
        )
    if not wrong:
        yield CACHES.fine(caches.named(settings))


def _fault(url: str) -> str:
    """Return what is wrong with a cache, as far as it can be seen from here, or ""."""
    if caches.is_local(url):
        path = url.partition("?")[0].removeprefix("file://")
        return "" if os.path.isdir(path) else "there is no such directory"
    host = of_url(url) if rules.is_http(url) else None
    if host is None or _has_proxy():
        return ""

    async def reach() -> None:
        async with asyncio.timeout(ANSWER_TIME):
            (await connect(host, addresses.ANYWHERE)).close()

    try:
        asyncio.run(reach())
    except TimeoutError:
        return f"it accepts no connection within {ANSWER_TIME:g} s"
    except AwayError as error:
        return str(error)
    return ""


def _has_proxy() -> bool:
    """Tell whether a proxy of the operator's network is named to the unit. Only from there can hosts be looked at."""
    return "_proxy=" in units.properties(UNIT, "Environment").get("Environment", "").lower()


def _sources(settings: NixSettings) -> Iterator[Finding]:
    named = caches.named(settings)
    if not settings.fetch:
        yield WHAT.note(
            f"sources that are in no binary cache of this host ({named}) are not downloaded: [nix] fetch names no host"
        )
        return
    wrong = [] if _has_proxy() else list(_unreachable(settings))
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
