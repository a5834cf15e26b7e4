"""Pins: the nixpkgs that the operator offers, each as a store path of its own.

Theory of operation: a location (a directory, a tarball, a URL, or a store path) becomes a store path ``…-nixpkgs`` with
a root, once. The result is remembered with a fingerprint of the location. For a directory or a file the fingerprint is
made of names, sizes and times. So a daemon that starts again only looks at them, and copies nothing.

A tree with a ``sources/`` directory carries sources that cannot be fetched without network. The tree is added without
that directory. Each entry of the directory is added as a fixed-output path, flat for a file and recursive for a
directory. The nixpkgs' own fetchers look there first. The operator may fetch more into ``sources/`` at any time. The
tree stays the same then, and so do the ids of builds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from spoold.host import proc
from spoold.model.errors import OperatorError
from spoold.model.job import BuildLimits
from spoold.nix import asking, door, imports, sources
from spoold.nix.store import LOGICAL, Store
from spoold.proxy.order import Order, Purpose

FETCH = proc.Bounds(wall=1800)
ADD = proc.Bounds(wall=600)
LIMITS = BuildLimits()
BATCH = 500  # file names on one command line
REPOSITORY = "invalid name for a tree entry - .git"  # as Nix 2.34 says it, which unpacks into a repository of its own
NO_REPOSITORY = "\nThis version of Nix takes no tarball that has a .git in it. Make it with tar --exclude=.git"
HASH = 33  # characters of the hash in a store path's name, with the dash after it
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+")

_ADD_TREE = """{ path }: builtins.path {
  path = path;
  name = "nixpkgs";
  filter = name: type: name != path + "/sources" && name != path + "/.git";
}"""
_FETCH = """{ url }: builtins.fetchTarball { inherit url; name = "nixpkgs"; }"""


class Pin(msgspec.Struct, frozen=True):
    """The result of adding a location: the store path of the tree, and those of its sources."""

    fingerprint: str
    path: str
    sources: list[str]


def add_all(store: Store, locations: dict[str, str]) -> dict[str, str]:
    """Add the pins at ``locations``, and return their store paths by name. All other pins lose their roots.

    Raises :class:`OperatorError` where a location cannot be added.
    """
    pins = {name: _add(store, name, location) for name, location in locations.items()}
    store.roots.keep_only("pins", pins)
    store.roots.keep_only("sources", {os.path.basename(path) for pin in pins.values() for path in pin.sources})
    memories = {_memory(store, location) for location in locations.values()}
    for memory in (store.room / "pins").iterdir():
        if memory not in memories:
            memory.unlink(missing_ok=True)
    return {name: pin.path for name, pin in pins.items()}


def add_fetched(store: Store, locations: Iterable[str]) -> bool:
    """Add the sources that the operator put into these pins after they were added. Tell whether there are any."""
    known = {name[HASH:] for name in store.roots.targets("sources")}
    fetched = []
    for location in locations:
        directory = Path(location) / "sources"
        if directory.is_dir():
            fetched += _add_sources(store, directory, known)
    for path in fetched:
        store.roots.add(f"sources/{os.path.basename(path)}", path)
    return bool(fetched)


def add(store: Store, name: str, location: str) -> str:
    """Return the store path of the nixpkgs at ``location``. Add it first when it is new or has changed.

    Raises :class:`OperatorError` where it cannot be added.
    """
    return _add(store, name, location).path


def _add(store: Store, name: str, location: str) -> Pin:
    memory = _memory(store, location)
    fingerprint = _fingerprint(name, location)
    pin = _remembered(memory, fingerprint)
    if pin is None or not store.valid([pin.path, *pin.sources]):
        pin = _added(store, name, location, fingerprint)
        memory.parent.mkdir(exist_ok=True)
        memory.write_bytes(msgspec.json.encode(pin))
    store.roots.add(f"pins/{name}", pin.path)
    for path in pin.sources:
        store.roots.add(f"sources/{os.path.basename(path)}", path)
    return pin


def _memory(store: Store, location: str) -> Path:
    return store.room / "pins" / f"{hashlib.sha256(location.encode()).hexdigest()[:16]}.json"


def _remembered(memory: Path, fingerprint: str) -> Pin | None:
    try:
        pin = msgspec.json.decode(memory.read_bytes(), type=Pin)
    except (OSError, msgspec.DecodeError):
        return None
    return pin if pin.fingerprint == fingerprint else None


def _added(store: Store, name: str, location: str, fingerprint: str) -> Pin:
    if _STORE_PATH.fullmatch(location):
        if not store.valid([location]) and not _is_imported(store, location):
            raise OperatorError(f"nixpkgs.{name}: {location} is not in the store {store.root}")
        return Pin(fingerprint, location, [])
    if not os.path.isdir(location):
        url = location if _URL.match(location) else f"file://{os.path.abspath(location)}"
        fetched = _evaluated(store, name, _FETCH, {"url": url}, FETCH)
        tree = store.on_disk(fetched)
        if not (tree / "sources").is_dir():
            return Pin(fingerprint, fetched, [])
        return Pin(fingerprint, _add_tree(store, name, tree), _add_sources(store, tree / "sources"))
    tree = Path(location).resolve()
    return Pin(fingerprint, _add_tree(store, name, tree), _add_sources(store, tree / "sources"))


def _is_imported(store: Store, path: str) -> bool:
    """Take a store path from the operator's imports. Tell whether it is in the store now."""
    if brought := imports.caches(store.state):
        store.run(["nix-store", "--option", "substituters", " ".join(brought), "--realise", path], ADD)
    return store.valid([path])


def _add_tree(store: Store, name: str, tree: Path) -> str:
    if not (tree / "default.nix").is_file():
        raise OperatorError(f"nixpkgs.{name}: {tree} has no default.nix: name the top directory of a nixpkgs")
    return _evaluated(store, name, _ADD_TREE, {"path": str(tree)}, ADD)


def _evaluated(store: Store, name: str, expression: str, arguments: dict[str, str], bounds: proc.Bounds) -> str:
    """Evaluate an expression of our own, without restrictions, since the operator may name any location."""
    argv = ["nix-instantiate", "--eval", "--json", "--read-write-mode", "--option", "restrict-eval", "false"]
    argv += ["--option", "tarball-ttl", "0"]
    for key, value in arguments.items():
        argv += ["--argstr", key, value]
    location = next(iter(arguments.values()))
    path = location.removeprefix("file://")
    readable = [path] if os.path.exists(path) else []
    argv += ["-E", expression]
    if path == location and not readable:
        order = Order(build="pin", what=name, bytes=LIMITS.output, time=bounds.wall, purpose=Purpose.PIN)
        fetch = door.Fetch(order, LIMITS, pins=[location])
        finished = asking.run(store, [location], argv, bounds, fetch)
    else:
        fetch, finished = None, store.run(argv, bounds, readable=readable)
    if not finished.ok:
        text = finished.stderr.data.decode(errors="replace").strip()
        text += sources.trouble(fetch.report, text) if fetch and fetch.report else ""
        text += NO_REPOSITORY if REPOSITORY in text else ""
        raise OperatorError(f"nixpkgs.{name}: cannot add {location}: {text or finished.limit}")
    return msgspec.json.decode(finished.stdout.data, type=str)


def _add_sources(store: Store, directory: Path, known: Collection[str] = ()) -> list[str]:
    """Add each entry of ``sources/`` whose name is not ``known``, under the name and hash that a fetcher would use."""
    if not directory.is_dir():
        return []
    # A name with a leading dot is that of a file that is still being written.
    entries = sorted(entry for entry in directory.iterdir() if entry.name not in known and entry.name[0] != ".")
    files = [str(entry) for entry in entries if entry.is_file()]
    trees = [str(entry) for entry in entries if entry.is_dir()]
    added: list[str] = []
    for options, names in (([], files), (["--recursive"], trees)):
        for start in range(0, len(names), BATCH):
            argv = ["nix-store", "--add-fixed", *options, "sha256", *names[start : start + BATCH]]
            added += store.ask(argv, ADD, readable=[str(directory)]).split()
    return [path for path in added if path.startswith(LOGICAL)]


def _fingerprint(name: str, location: str) -> str:
    """Return a digest that changes with the state of ``location``, without reading the contents of files."""
    digest = hashlib.sha256(location.encode())
    if _URL.match(location) or _STORE_PATH.fullmatch(location):
        return digest.hexdigest()
    if not os.path.exists(location):
        raise OperatorError(
            f"nixpkgs.{name}: there is no {location}: name a directory, a tarball, a URL or a store path"
        )
    _digest_entry(digest, location, os.stat(location))
    for directory, _, files in _walk(location):
        for file in sorted(files):
            path = os.path.join(directory, file)
            _digest_entry(digest, path, os.lstat(path))
    return digest.hexdigest()


def _walk(location: str) -> list[tuple[str, list[str], list[str]]]:
    found = []
    for directory, names, files in os.walk(location):
        names[:] = sorted(entry for entry in names if entry != ".git")
        found.append((directory, names, files))
    return found


def _digest_entry(digest: hashlib._Hash, path: str, status: os.stat_result) -> None:
    digest.update(
        f"{path}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
    )
