"""The rules for each purpose, made from the settings."""

from __future__ import annotations

from collections.abc import Iterable

from spoold.config import NixSettings
from spoold.model.hosts import of_url
from spoold.model.job import BuildLimits
from spoold.proxy.order import Purpose, Rules

ANYWHERE = ["0.0.0.0/0", "::/0"]  # for purposes where no client chooses what is fetched
PIN_TIME = 1800.0  # seconds for a whole nixpkgs
SAID = 256 * 1024**2  # bytes that caches may send to list what they have


def of(purpose: Purpose, settings: NixSettings, pins: Iterable[str], limits: BuildLimits) -> Rules:
    """Return the rules for ``purpose``. ``pins`` are the locations of the operator's pins."""
    if purpose is Purpose.SOURCE:
        return Rules(
            hosts=settings.fetch,
            inside=settings.fetch_inside,
            setting="`[nix] fetch`",
            bytes=limits.fetch_bytes,
            time=limits.fetch_time,
        )
    if purpose is Purpose.CACHE:
        named: Iterable[str] = settings.substituters
        setting, time = "`[nix] substituters` or `[nix] fetch`", limits.time
    else:
        named = pins
        setting, time = "`[nixpkgs]` or `[nix] fetch`", PIN_TIME
    hosts = [*settings.fetch, *_hosts(named)]  # the named hosts may redirect to hosts in settings.fetch
    return Rules(hosts=hosts, inside=ANYWHERE, setting=setting, bytes=most(limits), time=time)


def most(limits: BuildLimits) -> int:
    """Return how many bytes may come from binary caches in one call."""
    return limits.output + SAID


def any_at_all(settings: NixSettings, pins: Iterable[str]) -> bool:
    """Tell whether there is any host to let through."""
    return bool(settings.fetch or _hosts(settings.substituters) or _hosts(pins))


def _hosts(urls: Iterable[str]) -> list[str]:
    """Return the hosts of the HTTP and HTTPS URLs among ``urls``."""
    return [host.authority for url in urls if is_http(url) and (host := of_url(url))]


def is_http(url: str) -> bool:
    """Tell whether a URL is one that a forward proxy takes."""
    return url.startswith(("http://", "https://"))
