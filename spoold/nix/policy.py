"""The policy on what may be built. It is checked before any builder of a client's derivations runs.

Theory of operation: Nix tells which derivations it would build (``--dry-run``). Each is read from the store, where it
cannot change any more. It is refused when it asks for something that builds here do not get: the host's environment or
file system, work outside the build sandbox, or the network. Only fixed-output derivations may get network, where the
operator allows the host (``sources``).

Nix's own sandbox would stop most of this too. The policy gives a clear message, and is a second wall.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

from spoold.model.errors import ClientError
from spoold.model.hosts import Host
from spoold.nix import sources
from spoold.nix.store import Store

LARGEST = 32 * 1024**2  # bytes of one derivation
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[()]', re.DOTALL)
_BRACKETS = {"(": "[", ")": "]"}
_FORBIDDEN = {
    "__noChroot": "asks to be built outside the sandbox",
    "__impure": "asks for an impure build",
    "__contentAddressed": "asks for an experimental kind of output",
}
IMPURE = "impureEnvVars"
# Variables of Nix's environment here, and those that Nix sets for a builder or reads itself. A builder that asks for
# other variables gets those of the proxy. All others are empty.
OURS = frozenset(
    {
        *("HOME", "PATH", "PWD", "TERM", "TMPDIR", "TMP", "TEMP", "TEMPDIR", "LD_PRELOAD", "LD_LIBRARY_PATH"),
        *("NIX_CONF_DIR", "NIX_USER_CONF_FILES", "NIX_CONFIG", "NIX_STATE_DIR", "NIX_STORE_DIR", "NIX_LOG_DIR"),
        *("NIX_DATA_DIR", "NIX_LOCALSTATE_DIR", "NIX_REMOTE", "NIX_PATH", "NIX_STORE", "NIX_BUILD_TOP"),
        *("NIX_BUILD_CORES", "NIX_LOG_FD"),
    }
)
FETCHURL = "builtin:fetchurl"


class UnavailableError(ClientError):
    """A path that is needed is in no binary cache, and must not be downloaded."""


# A package that the operator's nixpkgs lists but has not fetched has its name in this attribute, see
# contrib/nixpkgs-debian.
_ON_DEMAND = "fetchedAs"
_ATTRIBUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")


class Output(msgspec.Struct, frozen=True, array_like=True):
    """An output of a derivation. ``algorithm`` is empty unless a hash fixes the content beforehand."""

    name: str
    path: str
    algorithm: str
    digest: str


class Derivation(msgspec.Struct, frozen=True, array_like=True):
    """A derivation file."""

    outputs: list[Output]
    derivations: list[tuple[str, list[str]]]
    sources: list[str]
    system: str
    builder: str
    arguments: list[str]
    environment: list[tuple[str, str]]

    def attributes(self) -> dict[str, object]:
        """Return the attributes, structured or not. Raises :class:`ClientError` where structured ones are no object."""
        plain: dict[str, object] = dict(self.environment)
        structured = plain.get("__json")
        if not isinstance(structured, str):
            return plain
        try:
            loaded = json.loads(structured)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"a derivation has a __json that is not JSON: {error}") from error
        if not isinstance(loaded, dict):
            raise ClientError("a derivation has a __json that is not an object")
        return loaded

    @property
    def is_fixed(self) -> bool:
        """Tell whether a hash fixes the derivation's content beforehand."""
        return any(output.algorithm for output in self.outputs)


def read(store: Store, path: str) -> Derivation:
    """Read a derivation from the store. Raises :class:`ClientError` where it is too large."""
    file = store.on_disk(path)
    if file.stat().st_size > LARGEST:
        raise ClientError(f"the derivation {name_of(path)} has more than {LARGEST} bytes, which is too large")
    return parse(file.read_bytes().decode("utf-8", "surrogateescape"))


def parse(text: str) -> Derivation:
    """Parse the ATerm of a derivation. It becomes JSON when square brackets replace the round ones."""
    body = _TOKENS.sub(lambda match: _BRACKETS.get(match.group(), match.group()), text.removeprefix("Derive"))
    return msgspec.convert(json.loads(body, strict=False), Derivation)


def check(store: Store, derivations: Sequence[str]) -> None:
    """Raise :class:`ClientError` for the first of ``derivations`` that must not be built."""
    for path in derivations:
        derivation, name = read(store, path), name_of(path)
        attributes = derivation.attributes()
        for attribute, what in _FORBIDDEN.items():
            if attributes.get(attribute) not in (None, "", False, []):
                raise ClientError(f"{name} {what} ({attribute}), which is not allowed here")
        _check_variables(derivation, name)
        if derivation.builder.startswith("builtin:") and not (derivation.is_fixed and derivation.builder == FETCHURL):
            raise ClientError(f"{name} needs {derivation.builder}, which runs outside the build sandbox")
        if derivation.is_fixed:
            refusal = sources.refusal(name, hosts_of(store, derivation), store.settings)
            if refusal:
                hint = _on_demand(store, derivations)
                raise UnavailableError(f"{refusal}. {hint}" if hint else refusal)


def hosts_of(store: Store, derivation: Derivation) -> list[Host]:
    """Return the hosts that a fixed-output derivation names, including those of its mirrors."""
    mirrors: dict[str, object] = {}
    for path, _ in derivation.derivations:
        if name_of(path) == sources.MIRRORS:
            mirrors |= read(store, path).attributes()
    return sources.hosts(derivation.attributes(), mirrors)


def _check_variables(derivation: Derivation, name: str) -> None:
    wanted = sources.words(derivation.attributes().get(IMPURE))
    if wanted and not derivation.is_fixed:
        raise ClientError(
            f"{name} asks for variables of the host's environment ({IMPURE}). Only a download that is pinned by a "
            "hash may have variables"
        )
    if ours := sorted(OURS.intersection(wanted)):
        raise ClientError(
            f"{name} asks for {', '.join(ours)} of the host's environment ({IMPURE}). A download may ask for the "
            "variables of the proxy, such as http_proxy"
        )


def _on_demand(store: Store, derivations: Sequence[str]) -> str:
    """Return how the operator can fetch the Debian packages among ``derivations``, or "" where there are none."""
    found = {str(read(store, path).attributes().get(_ON_DEMAND, "")) for path in derivations}
    names = sorted(name for name in found if _ATTRIBUTE.fullmatch(name))
    if not names:
        return ""
    return (
        f"The operator fetches it with `spoold-nixpkgs-debian --with {','.join(names)} DIRECTORY`, where "
        "DIRECTORY is that of the nixpkgs. From then on it can be used"
    )


def name_of(path: str) -> str:
    """Return the name in a store path: the part after the hash, without ``.drv``."""
    return path.rpartition("/")[2][33:].removesuffix(".drv")
