"""The packages of a shell that its author named, to be shown to people."""

from __future__ import annotations

import re
import sqlite3

from spoold.model.response import Package
from spoold.nix import policy
from spoold.nix.store import CLOSURE, Store

# mkShell puts `packages` among the native inputs.
INPUTS = (
    "buildInputs",
    "nativeBuildInputs",
    "propagatedBuildInputs",
    "propagatedNativeBuildInputs",
    "depsBuildBuild",
    "depsBuildTarget",
    "depsHostHost",
    "depsTargetTarget",
)
_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+")
_VERSION = re.compile(r"-(?=[^A-Za-z])")


def of_shell(store: Store, derivation: str) -> list[Package]:
    """Return the direct inputs of the shell that ``derivation`` captures, sorted by name."""
    attributes = policy.read(store, derivation).attributes()
    paths = {path for name in INPUTS for path in _PATH.findall(str(attributes.get(name, "")))}
    with store.database() as database:
        found = [_package(database, path) for path in paths]
    return sorted(found, key=lambda package: (package.name, package.version, package.path))


def _package(database: sqlite3.Connection, path: str) -> Package:
    name, version = split(policy.name_of(path))
    size = sum(row[1] or 0 for row in database.execute(CLOSURE, [path]))
    return Package(name=name, version=version, path=path, closure_size=size)


def split(name: str) -> tuple[str, str]:
    """Return name and version. As in Nix, the version starts after the first dash that no letter follows."""
    parts = _VERSION.split(name, maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else (name, "")
