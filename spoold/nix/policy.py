"""What may be built: read before any builder of a client's derivation graph runs.

Theory of operation: Nix tells which derivations it would build (``--dry-run``). Each is read from the store, where it
is immutable, and refused when it asks for what a build here does not get: the network (a fixed-output derivation that
is not in the store already), the host's environment or file system, or work done outside the build sandbox.

Nix's own sandbox would stop most of this too; the point is a clear message, and a second wall.
"""

from __future__ import annotations

import json
import re

import msgspec

from spoold.model.errors import ClientError
from spoold.nix.store import Store

LARGEST = 32 * 1024**2  # bytes of one derivation
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[()]', re.DOTALL)
_BRACKETS = {"(": "[", ")": "]"}
_FORBIDDEN = {
    "__noChroot": "asks to be built outside the sandbox",
    "__impure": "asks for an impure build",
    "__contentAddressed": "asks for an experimental kind of output",
    "impureEnvVars": "asks for variables of the host's environment",
}


# A package that the operator's nixpkgs knows and has not fetched names itself so, see contrib/nixpkgs-debian.
_ON_DEMAND = "fetchedAs"
_BROUGHT = "only what the operator's nixpkgs brings along can be used"
_ATTRIBUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")


class NotFetchedError(ClientError):
    """A fixed output is not in the store. It may be there at another try, where the operator fetched it meanwhile."""


class Output(msgspec.Struct, frozen=True, array_like=True):
    """An output of a derivation; ``algorithm`` is empty unless the content is fixed beforehand."""

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
        """Return the attributes, structured or not."""
        plain: dict[str, object] = dict(self.environment)
        structured = plain.get("__json")
        if not isinstance(structured, str):
            return plain
        try:
            loaded = json.loads(structured)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"a derivation has a __json that is not JSON: {error}") from error
        if not isinstance(loaded, dict):
            raise ClientError("a derivation has a __json that is no object")
        return loaded


def read(store: Store, path: str) -> Derivation:
    """Read a derivation from the store."""
    file = store.on_disk(path)
    if file.stat().st_size > LARGEST:
        raise ClientError(f"{name_of(path)} is a derivation of more than {LARGEST} bytes")
    return parse(file.read_bytes().decode("utf-8", "surrogateescape"))


def parse(text: str) -> Derivation:
    """Parse the ATerm of a derivation: with square brackets for round ones it is JSON."""
    body = _TOKENS.sub(lambda match: _BRACKETS.get(match.group(), match.group()), text.removeprefix("Derive"))
    return msgspec.convert(json.loads(body, strict=False), Derivation)


def check(store: Store, derivations: list[str]) -> None:
    """Raise :class:`ClientError` for the first of ``derivations`` that must not be built."""
    for path in derivations:
        derivation = read(store, path)
        attributes = derivation.attributes()
        for name, what in _FORBIDDEN.items():
            if attributes.get(name) not in (None, "", False, []):
                raise ClientError(f"{name_of(path)} {what} ({name}); such derivations are not built here")
        if any(output.algorithm for output in derivation.outputs):
            source = attributes.get("url") or attributes.get("urls") or "its source"
            raise NotFetchedError(
                f"{name_of(path)} would have to be fetched from the network ({source}), and builds have none; "
                f"{_on_demand(store, derivations) or _BROUGHT}"
            )
        if derivation.builder.startswith("builtin:"):
            raise ClientError(f"{name_of(path)} needs {derivation.builder}, which runs outside the build sandbox")


def _on_demand(store: Store, derivations: list[str]) -> str:
    """Say how the operator fetches those of ``derivations`` that are packages of Debian, "" where none is."""
    found = {str(read(store, path).attributes().get(_ON_DEMAND, "")) for path in derivations}
    names = sorted(name for name in found if _ATTRIBUTE.fullmatch(name))
    if not names:
        return ""
    return (
        f"the operator of this host fetches it with `spoold-nixpkgs-debian --with {','.join(names)} DIRECTORY`, where "
        "DIRECTORY is that of the nixpkgs; it can be used from then on"
    )


def name_of(path: str) -> str:
    """Return the name in a store path: what follows the hash, without ``.drv``."""
    return path.rpartition("/")[2][33:].removesuffix(".drv")
