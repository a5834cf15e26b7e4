"""The troubles with binary caches, found in Nix's messages and put into words for clients and operators.

Theory of operation: no builder and no expression runs in the steps whose output is read here. The names of store paths
hold neither blanks nor quotes. So a line that looks like Nix's is Nix's. All the same the words decide little. The
store's database tells whether a path is there. Trouble with a cache only makes a refusal worth another try.

Where a request through a door fails, Nix only sees the proxy's answer: 502, 403, or for a tunnel anything but 200. The
proxy (:mod:`spoold.proxy`) knows the reason, so its words are used instead of Nix's.

Numbers are curl's exit codes (libcurl-errors(3)) and HTTP status codes. The texts are those of Nix 2.8 to 2.34 and of
Lix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from spoold.host import proc
from spoold.model.hosts import of_url
from spoold.nix import caches
from spoold.proxy.order import Passage, Trouble

MOST = 5  # troubles that are told
_TRANSFER = re.compile(
    r"unable to \w+ '(?P<url>[^'\n]*)': (?:HTTP error (?P<http>\d+))?(?P<said>[^\n]*?)"
    r"(?: \((?P<curl>\d+)\)(?P<more>[^\n]*))?$",
    re.MULTILINE,
)
_UNSIGNED = re.compile(r"'(?P<path>/nix/store/[^'\s]+)'(?: from '(?P<url>[^'\n]+)')?,? as it's not signed by any")
_UNSIGNED_AFTER = re.compile(r"path '(?P<path>/nix/store/[^'\s]+)' because it lacks a (?:valid )?signature")
_HASH = re.compile(
    r"hash mismatch (?:importing|in file downloaded from|in compressed NAR file)[^\n]*'(?P<what>[^'\n]+)'"
)
_SIZE = re.compile(r"size mismatch importing path '(?P<what>[^'\n]+)'")
_GONE = re.compile(r"file '(?P<file>[^'\n]+)' does not exist in binary cache(?: '(?P<url>[^'\n]+)')?")
_BROKEN = re.compile(
    r"^(?:\w+: )*(?P<said>NAR [^\n]*|non-zero padding|bad archive[^\n]*|unexpected end-of-file"
    r"|input (?:compression|decompression)[^\n]*|failed to (?:read|uncompress|decompress)[^\n]*"
    r"|[^\n]*compressed [^\n]*(?:truncated|corrupt)[^\n]*)$",
    re.MULTILINE,
)
_URL = re.compile(r"'(https?://[^'\n]+)'")
_NO_CACHE = re.compile(r"'(?P<url>[^'\n]+)' does not appear to be a binary cache")
_OTHER_STORE = re.compile(r"binary cache '(?P<url>[^'\n]+)' is for Nix stores with prefix '(?P<prefix>[^'\n]*)'")

CURL = {
    5: "the name of its proxy cannot be resolved",
    6: "its name is not known here",
    7: "nothing answers there",
    18: "it broke off",
    28: "it does not answer in time, or too slowly",
    35: "it speaks no TLS that Nix understands",
    47: "it redirects too often",
    51: "its certificate is for another host",
    52: "it hung up without an answer",
    55: "it hung up",
    56: "it hung up in the middle",
    60: "its certificate is not trusted; name the authority's in nix.certificates",
    77: "the file of certificate authorities cannot be read",
    92: "it broke off",
}
# Once the headers have come, Nix prints curl's words and not its number.
WORDS = {
    "resolve": 6,
    "connect to server": 7,
    "partial file": 18,
    "Timeout": 28,
    "receiving data": 56,
    "peer certificate": 60,
    "HTTP/2": 92,
}
HTTP = {
    401: "it wants a name and a password (HTTP 401); put them into the file that nix.netrc names",
    403: "it refuses to give it (HTTP 403); it may want a name and a password, see nix.netrc",
    404: "it does not have what it lists (HTTP 404)",
    407: "its proxy wants a name and a password (HTTP 407)",
    410: "it does not have what it lists any more (HTTP 410)",
    429: "it has been asked too often (HTTP 429)",
}
OF_PROXY = (400, 403, 502, 503)  # status codes that the proxy answers in the place of a server
TUNNEL = 56  # curl's exit code for any answer but 200 to CONNECT
UNSAID = "\nthe binary caches did not say in time what they have\n"  # our words where Nix was ended before it had any
BROKE_OFF = "what it sends breaks off, or is no archive"


def found(said: str, fetching: proc.Finished | None = None, met: Sequence[Passage] = ()) -> str:
    """Return what went wrong with which caches, or "" where nothing did.

    ``said`` is the stderr of the programs that asked. ``fetching`` tells how the fetch ended, where there was one.
    ``met`` are the passages with trouble that the proxy reported.
    """
    troubles = list(dict.fromkeys(_all(said, _Proxy(said, met))))
    if not troubles and fetching is not None and not fetching.ok:
        lines = said.strip().splitlines()
        last = "\n".join([line for line in lines if line.startswith("error")] or lines[-3:])[-1000:]
        troubles = [f"a binary cache did not deliver what it has ({caches.without_passwords(last)})"]
    more = f"; and {len(troubles) - MOST} more" if len(troubles) > MOST else ""
    return "; ".join(troubles[:MOST]) + more


class _Proxy:
    """The troubles that the proxy met on the way to caches."""

    def __init__(self, said: str, met: Sequence[Passage]) -> None:
        # A server that answers, even with 500, is left out: Nix knows as much about it.
        self._said = {each.host: each.said for each in met if each.status < 500}
        asked = {str(of_url(url)) for url in _URL.findall(said)}
        self._elsewhere = [each for each in met if each.host not in asked]

    def of(self, url: str, other: str) -> str:
        """Return the trouble on the way to ``url`` or to where that redirects, or ``other`` where there was none."""
        host = str(of_url(url))
        if said := self._said.get(host):
            return _of(url, re.sub(rf"^{re.escape(host)} ", "it ", said))
        if self._elsewhere:
            last = self._elsewhere[-1]
            if last.trouble is Trouble.UNLISTED:
                what = f"which {last.said.removeprefix(f'{last.host} ')}; name that host in one of them"
            else:
                what = f"and there: {last.said}"
            return _of(url, f"it redirects to {last.host}, {what}")
        return _of(url, other)


def _all(said: str, proxy: _Proxy) -> list[str]:
    return [
        *(_transfer(match, proxy) for match in _TRANSFER.finditer(said) if "; retrying " not in match[0]),
        *(
            proxy.of(match["url"], "it is no binary cache, or wants a name and a password, see nix.netrc")
            for match in _NO_CACHE.finditer(said)
        ),
        *(_of(match["url"], f"it is for stores in {match['prefix']}") for match in _OTHER_STORE.finditer(said)),
        *(_gone(match, proxy) for match in _GONE.finditer(said)),
        *(_unsigned(match["path"], match["url"]) for match in _UNSIGNED.finditer(said)),
        *([UNSAID.strip()] if UNSAID in said else []),
        *(_unsigned(match["path"], "") for match in _UNSIGNED_AFTER.finditer(said)),
        *(f"a binary cache gave {_last(match['what'])} with a wrong hash" for match in _HASH.finditer(said)),
        *(f"a binary cache gave {_last(match['what'])} with a wrong size" for match in _SIZE.finditer(said)),
        *(f"a binary cache is broken: {BROKE_OFF} ({match['said'].strip()})" for match in _BROKEN.finditer(said)),
    ]


def _transfer(match: re.Match[str], proxy: _Proxy) -> str:
    http, curl, rest = int(match["http"] or 0), int(match["curl"] or 0), match["said"] + (match["more"] or "")
    if "curl error" in rest:
        curl = next((number for words, number in WORDS.items() if words in rest), 0)
    failed = CURL.get(curl, rest.strip(" ()"))
    if http >= 500:
        what = f"it fails (HTTP {http})"
    elif 300 <= http < 400:
        what = f"it redirects (HTTP {http}), and there: {failed}"
    elif http >= 400:
        what = HTTP.get(http, f"it answers with HTTP {http}")
    else:
        what = failed
    if http in OF_PROXY or curl == TUNNEL or "CONNECT" in rest:
        return proxy.of(match["url"], what)
    return _of(match["url"], what)


def _gone(match: re.Match[str], proxy: _Proxy) -> str:
    what = f"it does not have {match['file']}, which it lists"
    return proxy.of(match["url"], what) if match["url"] else f"a binary cache on this host: {what}"


def _of(url: str, what: str) -> str:
    return f"the binary cache {_site(url)}: {what}"


def _site(url: str) -> str:
    """Return a name for a cache: its scheme and host, or its directory."""
    parts = urlsplit(caches.shown(url))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else parts.path


def _unsigned(path: str, url: str) -> str:
    of = f"the binary cache {_site(url)}" if url else "a binary cache"
    return f"{of}: what it has of {_last(path)} is not signed by any of nix.trusted_public_keys"


def _last(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[33:] if path.startswith("/nix/store/") else name
