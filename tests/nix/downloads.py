"""Derivations that download from a server on loopback, and settings that allow that, for several modules of tests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import msgspec

from spoold.config import Settings
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.web import Web

LOOPBACK = ["127.0.0.0/8", "::1/128"]
CURL = "curl --silent --show-error --fail --location --output $out $url"
# The same with bash alone, for stores that have no other program yet.
BY_BASH = """
  [ "$http_proxy" = http://127.0.0.1:3128 ] || exit 1
  exec 3<>/dev/tcp/127.0.0.1/3128; printf "GET $url HTTP/1.0\\r\\n\\r\\n" >&3
  while read -r line <&3 && [ ${#line} -gt 1 ]; do :; done; cat <&3 > $out"""
SOURCE = """derivation {
    name = "NAME"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; args = [ "-c" ''SCRIPT'' ];
    PATH = "${pkgs.coreutils}/bin:TOOLS"; url = "URL"; at = "NOW";
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "HASH";
    impureEnvVars = [ "http_proxy" "https_proxy" "all_proxy" "ftp_proxy" "no_proxy" "NIX_CURL_FLAGS" MORE ];
  }"""


def source(
    url: str,
    content: bytes | None = None,
    *,
    script: str = CURL,
    name: str = "source",
    more: str = "",
    tools: str = "${pkgs.curl}/bin",
) -> str:
    """Return a derivation that downloads ``content``, by its hash. By default no server has the content."""
    now = str(time.time_ns())
    digest = hashlib.sha256(now.encode() if content is None else content).hexdigest()
    text = SOURCE.replace("NAME", name).replace("SCRIPT", script.replace("${", "''${")).replace("URL", url)
    return text.replace("HASH", digest).replace("NOW", now).replace("MORE", more).replace("TOOLS", tools)


def content(server: Web, path: str = "/x") -> bytes:
    """Put new content on a server at a path, and return it."""
    made = f"content {time.time_ns()}".encode()
    server.has(path, made)
    return made


def shell(*sources: str, more: str = "") -> str:
    """Return a shell with these sources in its variables S0, S1, ..."""
    return room.SHELL % (more + " ".join(f"S{number} = {each};" for number, each in enumerate(sources)))


def allowing(settings: Settings, *hosts: str, inside: Sequence[str] = LOOPBACK, **limits: float) -> Settings:
    """Return settings that allow downloads from ``hosts``."""
    nix = msgspec.structs.replace(settings.nix, fetch=list(hosts), fetch_inside=list(inside))
    bounds = msgspec.structs.replace(settings.builder.limits, **limits)
    return msgspec.structs.replace(settings, nix=nix, builder=msgspec.structs.replace(settings.builder, limits=bounds))


Allow = Callable[..., NixBuilder]


def at(server: Web, path: str = "/x") -> str:
    return f"http://localhost:{server.port}{path}"


def failed(result: BuildResult, outcome: Outcome = Outcome.NONZERO_EXIT) -> str:
    """Return the client's message for a build that failed with this outcome."""
    assert result.shell == ""
    assert result.phase.outcome is outcome, result.phase
    return result.phase.stderr
