"""Binary caches and pins that are URLs: Nix reaches them through a door, and nothing here has the host's network."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from spoold.model.errors import CacheError, OperatorError
from spoold.nix import confine, nixpkgs
from spoold.nix.build import NixBuilder
from tests import web
from tests.nix import room
from tests.nix.cache import make_authority, serving
from tests.nix.downloads import at, shell, source
from tests.nix.room import Copy
from tests.nix.test_substitute import asking, cache
from tests.web import Web

pytestmark = pytest.mark.nix

FIXED = """derivation { name = "fixed"; system = builtins.currentSystem; builder = "/bin/sh"; url = "https://a.example/x";
  outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "TEXT"; }"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Yield a directory and the URL at which it is served."""
    directory = tmp_path / "served"
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield directory, f"http://localhost:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a program would get the host's network."""
    trusted = confine.trusted

    def without(*arguments: Any, network: bool = False, **more: Any) -> list[str]:
        assert not network
        return trusted(*arguments, network=network, **more)

    monkeypatch.setattr(confine, "trusted", without)


def fixed(builder: NixBuilder, directory: Path, text: str) -> str:
    """Add the output of FIXED to a store, by its content. Return its path."""
    file = directory / "fixed"
    file.write_text(text)
    return builder.store.ask(["nix-store", "--add-fixed", "sha256", str(file)], readable=[str(file)]).strip()


def test_a_cache_is_asked_through_a_door(copy: Copy, served: tuple[Path, str], tmp_path: Path) -> None:
    builder, (directory, url) = copy(), served
    text = f"text {time.time_ns()}"
    path = fixed(builder, tmp_path, text)
    cache(builder, directory, path)
    builder.store.ask(["nix-store", "--delete", path])
    asker = asking(builder, url)
    asker.prepare()
    result = room.build(asker, shell(FIXED.replace("TEXT", text)))
    assert result.shell, result.phase.stderr
    assert f"copying path '{path}' from '{url}'" in result.phase.stderr


def test_what_a_cache_that_is_away_may_have_is_not_the_clients_fault(nix_builder: NixBuilder) -> None:
    with web.closed() as port:
        builder = asking(nix_builder, f"http://localhost:{port}")
        builder.prepare()
        with pytest.raises(CacheError, match=rf"http://localhost:{port}: it cannot be reached .*; so fixed is in no"):
            room.build(builder, shell(FIXED.replace("TEXT", str(time.time_ns()))))


def test_another_cache_does_not_make_up_for_one_that_is_away(nix_builder: NixBuilder, server: Web) -> None:
    server.has("/nix-cache-info", b"StoreDir: /nix/store\n")
    with web.closed() as port:
        urls = [f"http://localhost:{server.port}", f"http://localhost:{port}"]
        nix = msgspec.structs.replace(nix_builder.settings.nix, substituters=urls)
        builder = NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))
        builder.prepare()
        with pytest.raises(CacheError, match=rf"http://localhost:{port}: it cannot be reached"):
            room.build(builder, shell(FIXED.replace("TEXT", str(time.time_ns()))))
    assert server.asked


def test_a_cache_that_redirects_elsewhere_is_not_followed(nix_builder: NixBuilder, server: Web) -> None:
    with web.serving() as other:
        server.answers["/nix-cache-info"] = lambda handler: handler.send(b"", 302, Location=at(other))
        builder = asking(nix_builder, f"http://localhost:{server.port}")
        builder.prepare()
        assert room.build(builder, room.SHELL % f'OWN = pkgs.writeText "own" "{time.time_ns()}";').shell
        assert server.asked
        assert other.asked == []


def test_a_download_does_not_reach_the_caches(nix_builder: NixBuilder, server: Web) -> None:
    server.has("/nix-cache-info", b"StoreDir: /nix/store\n")
    nix = msgspec.structs.replace(
        nix_builder.settings.nix, substituters=[f"http://localhost:{server.port}"], fetch=["github.com"]
    )
    builder = NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))
    builder.prepare()
    fetch = source("", script=f"url={at(server, '/secret')}; curl -fsS --output $out $url")
    result = room.build(builder, shell(fetch))
    assert f"would be downloaded from localhost:{server.port}" in result.phase.stderr
    assert "GET /secret" not in server.asked


def tarball(directory: Path, word: str) -> None:
    tree = directory.parent / f"tree-{word}"
    (tree / "n").mkdir(parents=True)
    (tree / "n/default.nix").write_text(f'"{word}"')
    with tarfile.open(directory / "n.tar.gz", "w:gz") as made:
        made.add(tree / "n", "n")


def test_a_pin_is_fetched_through_a_door(copy: Copy, served: tuple[Path, str]) -> None:
    builder, (directory, url) = copy(), served
    word = str(time.time_ns())
    tarball(directory, word)
    path = nixpkgs.add(builder.store, "other", f"{url}/n.tar.gz")
    assert (builder.store.on_disk(path) / "default.nix").read_text() == f'"{word}"'


def test_a_pin_that_redirects_names_the_host(copy: Copy, served: tuple[Path, str], server: Web) -> None:
    builder, (directory, url) = copy(), served
    tarball(directory, str(time.time_ns()))
    server.answers["/x"] = lambda handler: handler.send(b"", 302, Location=f"{url}/n.tar.gz")
    host = url.removeprefix("http://")
    with pytest.raises(OperatorError, match=rf"(?s)cannot add .*{host} is not in `\[nixpkgs\]` or `\[nix\] fetch`"):
        nixpkgs.add(builder.store, "other", at(server))
    nix = msgspec.structs.replace(builder.settings.nix, fetch=[host])
    allowed = NixBuilder(msgspec.structs.replace(builder.settings, nix=nix))
    assert nixpkgs.add(allowed.store, "other", at(server))


def test_a_pin_may_want_a_password_and_have_a_certificate_of_the_operators(copy: Copy, tmp_path: Path) -> None:
    authority, certificate = make_authority(tmp_path)
    directory = tmp_path / "served"
    directory.mkdir()
    word = str(time.time_ns())
    tarball(directory, word)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    settings = copy().settings
    with serving(directory, certificate, "me:secret") as private:
        for changes, said in (
            ({}, "certificate"),
            ({"certificates": str(authority)}, "401"),
        ):
            nix = msgspec.structs.replace(settings.nix, **changes)
            with pytest.raises(OperatorError, match=said):
                nixpkgs.add(
                    NixBuilder(msgspec.structs.replace(settings, nix=nix)).store, "other", f"{private.url}/n.tar.gz"
                )
        nix = msgspec.structs.replace(settings.nix, certificates=str(authority), netrc=str(netrc))
        builder = NixBuilder(msgspec.structs.replace(settings, nix=nix))
        path = nixpkgs.add(builder.store, "other", f"{private.url}/n.tar.gz")
    assert (builder.store.on_disk(path) / "default.nix").read_text() == f'"{word}"'
