"""A proxy of the operator's network, which this proxy goes through where the environment names one.

The variables are the usual ones (http_proxy, https_proxy, all_proxy, no_proxy), set in a drop-in of the unit. The
operator's proxy alone decides what it connects to: names are resolved there, and only there can addresses be checked.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from spoold.model.hosts import Host, parse


def of(host: Host, scheme: str) -> Host | None:
    """Return the proxy through which ``host`` is reached, by the environment, or None where it names none.

    Raises :class:`ValueError` where the environment names something other than an HTTP proxy.
    """
    proxies = getproxies_environment()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(f"{host.name}:{host.port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or "@" in parts.netloc:
        raise ValueError(f"{url!r}: write the proxy as http://HOST:PORT")
    found = parse(parts.netloc)
    return found._replace(port=found.port or 80)
