"""Pins: every kind of location, each added once."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import threading
from pathlib import Path

import pytest

from spoold.config import NixSettings
from spoold.model.errors import OperatorError
from spoold.nix import nixpkgs
from spoold.nix.build import NixBuilder
from spoold.nix.store import Store

pytestmark = pytest.mark.nix


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    store = Store(NixSettings(state=str(tmp_path / "state")))
    store.prepare()
    return store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return an empty nixpkgs with two sources."""
    tree = tmp_path / "tree"
    (tree / "sources" / "unpacked").mkdir(parents=True)
    (tree / "default.nix").write_text("{ }")
    (tree / "sources" / "a-1.tar").write_text("a")
    (tree / "sources" / "unpacked" / "b").write_text("b")
    (tree / ".git").mkdir()
    return tree


def test_a_directory_and_its_sources(store: Store, tree: Path) -> None:
    path = nixpkgs.add(store, "default", str(tree))
    assert path.endswith("-nixpkgs")
    assert sorted(entry.name for entry in store.on_disk(path).iterdir()) == ["default.nix"]
    assert store.roots.directory.joinpath("pins/default").readlink() == Path(path)
    roots = {link.name[33:]: link.readlink() for link in store.roots.directory.joinpath("sources").iterdir()}
    assert store.on_disk(str(roots["a-1.tar"])).read_text() == "a"
    assert store.on_disk(str(roots["unpacked"])).joinpath("b").read_text() == "b"


def test_what_was_fetched_since_is_added_and_kept(store: Store, tree: Path) -> None:
    path = nixpkgs.add(store, "default", str(tree))
    assert not nixpkgs.add_fetched(store, [str(tree), "https://example.org/nixpkgs.tar.gz"])
    (tree / "sources" / "later-1.deb").write_text("later")
    (tree / "sources" / ".coming-1.deb").write_text("half")
    assert nixpkgs.add_fetched(store, [str(tree)])
    roots = {link.name[33:]: link.readlink() for link in store.roots.directory.joinpath("sources").iterdir()}
    assert store.on_disk(str(roots["later-1.deb"])).read_text() == "later"
    assert set(roots) == {"a-1.tar", "unpacked", "later-1.deb"}
    assert not nixpkgs.add_fetched(store, [str(tree)])
    assert nixpkgs.add(store, "default", str(tree)) == path


def test_sources_are_where_a_fetcher_looks(store: Store, tree: Path) -> None:
    nixpkgs.add(store, "default", str(tree))
    expression = """derivation { name = "a-1.tar"; system = "x"; builder = "x"; outputHashMode = "flat";
        outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "a"; }"""
    argv = ["nix-instantiate", "--eval", "--json", "-E", f"({expression}).outPath"]
    assert store.valid([store.ask(argv).strip().strip('"')])


def again(store: Store, location: str) -> str:
    """Add a known location again. This runs no program of Nix's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "run", lambda *_, **__: pytest.fail("the location was not remembered"))
        return nixpkgs.add(store, "default", location)


def test_again_is_quick_and_a_change_is_seen(store: Store, tree: Path) -> None:
    first = nixpkgs.add(store, "default", str(tree))
    assert again(store, str(tree)) == first
    (tree / "default.nix").write_text("{ changed = 1; }")
    second = nixpkgs.add(store, "default", str(tree))
    assert second != first
    assert store.roots.directory.joinpath("pins/default").readlink() == Path(second)


def test_a_collection_leaves_what_is_rooted(store: Store, tree: Path) -> None:
    path = nixpkgs.add(store, "default", str(tree))
    store.ask(["nix-store", "--gc"])
    assert store.valid([path, *(str(link.readlink()) for link in store.roots.directory.joinpath("sources").iterdir())])


def test_what_a_collection_took_is_added_again(store: Store, tree: Path) -> None:
    path = nixpkgs.add(store, "default", str(tree))
    store.roots.directory.joinpath("pins/default").unlink()
    store.ask(["nix-store", "--gc"])
    assert not store.valid([path])
    assert nixpkgs.add(store, "default", str(tree)) == path
    assert store.valid([path])


@pytest.mark.parametrize(("suffix", "scheme"), [("gz", ""), ("xz", ""), ("gz", "file://")])
def test_a_tarball(store: Store, tree: Path, suffix: str, scheme: str) -> None:
    tarball = f"{tree}.tar.{suffix}"
    subprocess.run(["tar", "--exclude=.git", "-caf", tarball, "-C", tree.parent, "tree"], check=True)
    path = nixpkgs.add(store, "default", scheme + tarball)
    assert store.on_disk(path).joinpath("default.nix").read_text() == "{ }"
    assert len(list(store.roots.directory.joinpath("sources").iterdir())) == 2
    assert again(store, scheme + tarball) == path


def test_a_tarball_with_a_repository(store: Store, tree: Path) -> None:
    """Older versions of Nix take it. The others unpack into a repository of their own, where no file has that name."""
    subprocess.run(["tar", "-caf", f"{tree}.tar.gz", "-C", tree.parent, "tree"], check=True)
    try:
        path = nixpkgs.add(store, "default", f"{tree}.tar.gz")
    except OperatorError as error:
        assert "Make it with tar --exclude=.git" in str(error)  # noqa: PT017 - or it is taken
    else:
        assert store.on_disk(path).joinpath("default.nix").read_text() == "{ }"


def test_a_url(store: Store, tree: Path) -> None:
    """A URL is fetched once, and again only when it changes."""
    tarball = tree.with_name("x.tar.gz")
    subprocess.run(["tar", "--exclude=.git", "-caf", tarball, "-C", tree.parent, "tree"], check=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tree.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.tar.gz"
        path = nixpkgs.add(store, "default", url)
        server.shutdown()
    assert store.on_disk(path).joinpath("default.nix").read_text() == "{ }"
    assert nixpkgs.add(store, "default", url) == path


def test_a_store_path(store: Store, tree: Path) -> None:
    path = nixpkgs.add(store, "default", str(tree))
    assert nixpkgs.add(store, "second", path) == path
    assert store.roots.directory.joinpath("pins/second").readlink() == Path(path)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/no/such/place", "there is no /no/such/place"),
        ("/nix/store/00000000000000000000000000000000-nixpkgs", "is not in the store"),
        ("EMPTY", "has no default.nix"),
        ("file:///no/such/file.tar.gz", "cannot add file:///no/such/file.tar.gz"),
    ],
)
def test_a_bad_location_is_explained(store: Store, tmp_path: Path, location: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperatorError, match=said) as raised:
        nixpkgs.add(store, "mine", location.replace("EMPTY", str(tmp_path / "empty")))
    assert "nixpkgs.mine" in str(raised.value)


def test_two_pins(nix_builder: NixBuilder, tree: Path) -> None:
    """A second pin is only another search path. The runtime comes from the default pin."""
    os.utime(tree)
    path = nixpkgs.add(nix_builder.store, "other", str(tree))
    assert path != nix_builder.prepare().nixpkgs["default"]
