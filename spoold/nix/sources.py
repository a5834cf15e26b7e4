"""The hosts from which a fixed-output derivation is downloaded, as far as its attributes tell, and messages about them.

nixpkgs' fetchers have their URLs in ``url`` or ``urls``. A URL ``mirror://SITE/…`` stands for each of the servers that
the derivation ``mirrors-list`` names for that site. ``hashedMirrors`` in that derivation names servers that are asked
first. Other fetchers have no such attributes, so only an attempt shows which hosts they ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spoold.config import NixSettings
from spoold.model.hosts import Host, Hosts, of_url
from spoold.model.response import Outcome
from spoold.nix import caches
from spoold.proxy.order import Ended, Passage, Report, Trouble

MIRRORS = "mirrors-list"
HASHED = "hashedMirrors"
SHOWN = 3  # hosts that a message names


def words(value: object) -> list[str]:
    """Return the words of an attribute that is a list of words, or a text that holds them."""
    if isinstance(value, str):
        return value.split()
    return [str(each) for each in value] if isinstance(value, list) else []


def hosts(attributes: Mapping[str, object], mirrors: Mapping[str, object]) -> list[Host]:
    """Return the hosts from which the derivation with these ``attributes`` downloads, in the order of its URLs."""
    found: dict[Host, None] = {}
    for url in words(attributes.get("url")) + words(attributes.get("urls")):
        site, _, _ = url.removeprefix("mirror://").partition("/")
        for each in words(mirrors.get(site)) if url.startswith("mirror://") else [url]:
            if host := of_url(each):
                found[host] = None
    if found:
        found |= {host: None for each in words(mirrors.get(HASHED)) if (host := of_url(each))}
    return list(found)


def refusal(name: str, wanted: Sequence[Host], settings: NixSettings) -> str:
    """Return why ``name`` must not be downloaded from the hosts ``wanted``, or "" where that may be tried."""
    listed = Hosts(settings.fetch)
    if any(listed.allows(host) for host in wanted) or (listed and not wanted):
        return ""
    whence = _any_of(wanted) if wanted else "the network"
    what = "which `[nix] fetch` does not allow" if wanted else "and `[nix] fetch` allows no host"
    return (
        f"{name} is in no binary cache of this host ({caches.named(settings)}); it would be downloaded from {whence}, "
        f"{what}: ask the operator of this host"
    )


def _any_of(wanted: Sequence[Host]) -> str:
    names = list(dict.fromkeys(map(str, wanted)))
    more = [f"{len(names) - SHOWN} others"] if len(names) > SHOWN else []
    return " or ".join([*names[:SHOWN], *more])


def _all_of(names: Sequence[str]) -> str:
    return " and ".join(names[:SHOWN])


def trouble(report: Report, text: str) -> str:
    """Return the proxy's troubles that ``text`` does not name, as further lines for it."""
    return "".join(f"\n{each.said}" for each in report.passages if each.trouble and each.said not in text)


def away(report: Report) -> str:
    """Return which server was away, where no server delivered anything, else ""."""
    delivered = any(not each.trouble and (each.status < 400 and each.received) for each in report.passages)
    failed = [each.said for each in report.passages if each.trouble is Trouble.AWAY]
    return "" if delivered or not failed else failed[-1]


def judged(name: str, wanted: Sequence[Host], report: Report) -> tuple[Outcome, str]:
    """Return the outcome of a failed download, and a note for the client, "" where there is none."""
    if report.ended is Ended.BYTES:
        return Outcome.OUTPUT_LIMIT, f"{name}: the download took more than {report.bytes} bytes"
    if report.ended is Ended.TIME:
        return Outcome.TIME_LIMIT, f"{name}: the download took more than {report.time:g} s"
    return Outcome.NONZERO_EXIT, _note(name, wanted, report.passages)


def _note(name: str, wanted: Sequence[Host], passages: Sequence[Passage]) -> str:
    known = {str(host) for host in wanted}
    refused = list(dict.fromkeys(each.host for each in passages if each.trouble is Trouble.UNLISTED))
    reached = list(dict.fromkeys(each.host for each in passages if each.host in known and not each.trouble))
    others: list[str] = []
    if reached:  # so the hosts beside it that its URLs name, such as mirrors, are not why it failed
        others = [host for host in refused if host in known]
        refused = [host for host in refused if host not in known]
    if refused:
        whence = "" if known.issuperset(refused) else ", by a redirect or of its own accord"
        return (
            f"{name} would be downloaded from {_all_of(refused)}{whence}, which `[nix] fetch` does not allow: ask the "
            "operator of this host"
        )
    for each in passages:
        if each.trouble in (Trouble.INSIDE, Trouble.MALFORMED, Trouble.CROWDED):
            return f"{name}: the download was not let through: {each.said}"
        if each.status >= 400:
            return f"{name}: {each.host} answers {each.status} for {each.target[:200]}"
    if others:
        return (
            f"{name}: {_all_of(reached)} was reached, and the lines above say why that was not enough. It may come "
            f"from {_all_of(others)} too, which `[nix] fetch` does not allow"
        )
    if not passages:
        return (
            f"{name} asked for no download. Its builder reaches the network only through the proxy that http_proxy, "
            "https_proxy and all_proxy name. It has these variables if impureEnvVars asks for them"
        )
    return ""
