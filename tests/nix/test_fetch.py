"""Sources that are pinned by a hash: downloaded from the hosts that the operator lists, and from nowhere else."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.model.errors import SpooldError, TemporaryError
from spoold.model.response import Outcome
from spoold.nix import door
from spoold.nix.build import NixBuilder
from spoold.nix.store import Store
from tests import web
from tests.nix import room, setups
from tests.nix.cache import make_authority
from tests.nix.downloads import BY_BASH, CURL, Allow, allowing, at, content, failed, shell, source
from tests.nix.setups import InProcess, Kind, Setup
from tests.waiting import until
from tests.web import Handler, Web, endless, never

pytestmark = pytest.mark.nix


def test_a_source_is_downloaded_from_a_listed_host(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    wanted = content(server)
    expression = shell(source(at(server), wanted))
    result = room.build(builder, expression)
    assert result.shell, result.phase.stderr
    assert room.enter(builder, result.shell, 'echo "$(<$S0)"') == wanted + b"\n"
    assert room.build(builder, expression).shell == result.shell
    assert server.asked == ["GET /x"]


def test_hosts_are_taken_over_by_a_builder_that_runs(allow: Allow, server: Web) -> None:
    builder = allow("github.com")
    expression = shell(source(at(server), content(server)))
    assert "which `[nix] fetch` does not allow" in failed(room.build(builder, expression))
    builder.apply_settings(allowing(builder.settings, f"localhost:{server.port}"))
    assert room.build(builder, expression).shell
    builder.apply_settings(allowing(builder.settings, "github.com"))
    expression = shell(source(at(server), content(server)))
    assert "which `[nix] fetch` does not allow" in failed(room.build(builder, expression))


def test_what_has_the_same_content_is_shared_whoever_downloads_it_from_wherever(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    wanted = content(server, "/one")
    assert room.build(builder, shell(source(at(server, "/one"), wanted))).shell
    assert room.build(builder, shell(source(at(server, "/two"), wanted))).shell
    assert server.asked == ["GET /one"]


# The third kind does the same by other means, so only contrib/test --all tries it.
KINDS: tuple[Kind, ...] = setups.KINDS if os.environ.get("SPOOLD_TEST_LONG") else ("root", "unit")


@pytest.fixture(scope="module", params=KINDS)
def setup(request: pytest.FixtureRequest, nix_builder: NixBuilder) -> Iterator[tuple[Setup, Web]]:
    """Yield a builder of each kind, with a web server that it may reach."""
    kind: Kind = request.param
    with web.serving() as server:
        server.has("/x", b"content")
        settings = allowing(nix_builder.settings, f"localhost:{server.port}")
        if kind == "root":
            builder = NixBuilder(settings)
            builder.prepare()
            yield InProcess(builder), server
            return
        with setups.anothers(kind, settings) as other:
            yield other, server


def test_each_kind_of_builder_downloads(setup: tuple[Setup, Web]) -> None:
    builder, server = setup
    before = len(server.asked)
    fetch = source(at(server, "/kind"), content(server, "/kind"), script=BY_BASH, tools="")
    result = builder.build(shell(fetch))
    assert result.shell, result.phase.stderr
    assert server.asked[before:] == ["GET /kind"]


def test_no_kind_of_builder_reaches_anything_else(setup: tuple[Setup, Web]) -> None:
    builder, server = setup
    before = len(server.asked)
    script = f"echo > /dev/tcp/127.0.0.1/{server.port} && echo REACHED; exit 1"
    said = failed(builder.build(shell(source(at(server), script=script, tools=""))))
    assert "REACHED" not in said
    assert "asked for no download" in said
    assert server.asked[before:] == []


def trusting(builder: NixBuilder, authority: Path) -> NixBuilder:
    """Return such a builder whose operator trusts the certificates of an authority."""
    nix = msgspec.structs.replace(builder.settings.nix, certificates=str(authority))
    made = NixBuilder(msgspec.structs.replace(builder.settings, nix=nix))
    made.prepare()
    return made


def with_certificate(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_over_tls_and_by_nix_itself(allow: Allow, tmp_path: Path) -> None:
    """With a hash, the fetchers of nixpkgs verify no certificates. Nix's own does so from version 2.26 on."""
    authority, certificate = make_authority(tmp_path)
    with web.serving(with_certificate(certificate)) as server:
        url = f"https://127.0.0.1:{server.port}"
        builder = trusting(allow(f"127.0.0.1:{server.port}"), authority)
        fetch = source(f"{url}/1", content(server, "/1"), script=CURL.replace("curl", "curl --insecure"))
        digest = hashlib.sha256(content(server, "/2")).hexdigest()
        own = f'import <nix/fetchurl.nix> {{ url = "{url}/2"; sha256 = "{digest}"; }}'
        result = room.build(builder, shell(fetch, own))
        assert result.shell, result.phase.stderr
        assert sorted(server.asked) == ["GET /1", "GET /2"]


def test_the_operators_certificates_hold_for_a_download(allow: Allow, tmp_path: Path) -> None:
    authority, certificate = make_authority(tmp_path)
    script = CURL.replace("curl", "curl --cacert $NIX_SSL_CERT_FILE")
    with web.serving(with_certificate(certificate)) as server:
        builder = allow(f"127.0.0.1:{server.port}")
        url = f"https://127.0.0.1:{server.port}/x"
        fetch = source(url, content(server), script=script, more='"NIX_SSL_CERT_FILE"')
        assert "certificate" in failed(room.build(builder, shell(fetch)))
        result = room.build(trusting(builder, authority), shell(fetch))
        assert result.shell, result.phase.stderr


def test_what_a_download_needs_is_built_before_without_network(allow: Allow, server: Web) -> None:
    """The fetcher depends on a tool whose build tries the network."""
    builder = allow(f"localhost:{server.port}")
    tool = f"""pkgs.runCommand "tool-{time.time_ns()}" {{ }} ''
      (echo > /dev/tcp/127.0.0.1/3128) 2>/dev/null && echo REACHED; echo tried; mkdir $out''"""
    fetch = source(at(server), content(server)).replace("url =", f"tool = {tool}; url =")
    result = room.build(builder, shell(fetch))
    assert result.shell, result.phase.stderr
    assert "tried" in result.phase.stderr
    assert "REACHED" not in result.phase.stderr


def test_a_download_may_depend_on_another(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    first = source(at(server, "/one"), content(server, "/one"), name="first")
    second = source(at(server, "/two"), content(server, "/two"), name="second").replace(
        "url =", f"first = {first}; url ="
    )
    result = room.build(builder, shell(second))
    assert result.shell, result.phase.stderr
    assert server.asked == ["GET /one", "GET /two"]


def test_a_redirect_within_the_list_is_followed(allow: Allow, server: Web) -> None:
    with web.serving() as other:
        other.has("/y", b"content")
        server.answers["/x"] = lambda handler: handler.send(b"", 302, Location=at(other, "/y"))
        builder = allow(f"localhost:{server.port}", f"localhost:{other.port}")
        fetch = source(at(server), script=f"{CURL}; echo DONE; exit 1")
        assert "DONE" in failed(room.build(builder, shell(fetch)))
        assert other.asked == ["GET /y"]


def test_what_was_downloaded_for_which_build_is_logged(
    allow: Allow, server: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    builder = allow(f"localhost:{server.port}")
    server.has("/logged", b"logged")
    result = room.build(builder, shell(source(at(server, "/logged"), name="logged-1")))
    assert not result.shell
    lines = [line for line in capfd.readouterr().err.splitlines() if "logged-1" in line and "let through" in line]
    assert len(lines) == 1
    for part in ("build=test-", "what=logged-1", f"host=localhost:{server.port}", "target=/logged", "status=200"):
        assert part in lines[0]


def test_a_known_environment_starts_nothing(allow: Allow, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the shell exists, Nix runs only the evaluation, and nobody asks the proxy."""
    builder = allow(f"localhost:{server.port}")
    expression = shell(source(at(server), content(server)))
    assert room.build(builder, expression).shell
    monkeypatch.setattr(door, "opened", None)
    monkeypatch.setattr(Store, "run_builders", None)
    assert room.build(builder, expression).shell


# -- the client's messages


def test_a_host_that_is_not_listed(nix_builder: NixBuilder, allow: Allow) -> None:
    fetch = source("https://tukaani.org:443/xz/xz-5.4.6.tar.bz2", name="xz-5.4.6.tar.bz2")
    for builder in (nix_builder, allow("github.com")):
        said = failed(room.build(builder, shell(fetch)))
        assert "xz-5.4.6.tar.bz2 is in no binary cache of this host (it has none); it would be downloaded" in said
        assert "from tukaani.org, which `[nix] fetch` does not allow" in said
        assert "building '" not in said


def test_the_caches_are_named(nix_builder: NixBuilder) -> None:
    nix = msgspec.structs.replace(nix_builder.settings.nix, substituters=["file:///nowhere?priority=3"])
    builder = NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))
    builder.prepare()
    said = failed(room.build(builder, shell(source("https://a.example/x"))))
    assert "is in no binary cache of this host (file:///nowhere); it would be downloaded from a.example" in said


def test_a_download_whose_host_nobody_knows(nix_builder: NixBuilder, allow: Allow, server: Web) -> None:
    """The derivation has no URL, like those of package managers. Only a try shows the host."""
    fetch = source("", script=f"url={at(server)}; {CURL}")
    said = failed(room.build(nix_builder, shell(fetch)))
    assert "it would be downloaded from the network, and `[nix] fetch` allows no host" in said
    said = failed(room.build(allow("github.com"), shell(fetch)))
    assert f"would be downloaded from localhost:{server.port}, by a redirect or of its own accord, which `[nix]" in said
    assert server.asked == []


MIRRORS = """pkgs.runCommand "mirrors-list" {
  gnu = "https://ftp.example/gnu/ http://other.example:8080/";  hashedMirrors = "https://tarballs.example";
} "echo > $out" """


def test_mirrors_are_named(allow: Allow) -> None:
    fetch = source("mirror://gnu/hello.tar.gz").replace("url =", f"mirrorsFile = {MIRRORS}; url =")
    said = failed(room.build(allow("github.com"), shell(fetch)))
    assert "downloaded from ftp.example or other.example:8080 or tarballs.example, which" in said


def test_a_redirect_to_a_host_that_is_not_listed(allow: Allow, server: Web) -> None:
    with web.serving() as other:
        server.answers["/x"] = lambda handler: handler.send(b"", 302, Location=at(other))
        said = failed(room.build(allow(f"localhost:{server.port}"), shell(source(at(server)))))
        assert f"source would be downloaded from localhost:{other.port}, by a redirect" in said
        assert other.asked == []


def test_a_lying_hash(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    result = room.build(builder, shell(source(at(server))))
    said = failed(result)
    assert result.phase.exit_code == 102
    assert "hash mismatch in fixed-output derivation" in said
    assert "specified: sha256-" in said
    assert "got:    sha256-" in said
    assert "spoold:" not in said


def test_what_the_server_does_not_have(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    said = failed(room.build(builder, shell(source(at(server, "/none")))))
    assert f"source: localhost:{server.port} answers 404 for /none" in said


def hang_up(handler: Handler) -> None:
    handler.send(b"half", length=1000)
    handler.close_connection = True


@pytest.mark.parametrize("how", ["refused", "name", "503", "half"])
def test_a_server_that_is_away_is_not_the_clients_fault(allow: Allow, server: Web, how: str) -> None:
    server.answers |= {"/503": lambda handler: handler.send(b"", 503), "/half": hang_up}
    with web.closed() as port:
        url = {"refused": f"http://localhost:{port}/x", "name": "http://nowhere.invalid/x"}.get(
            how, at(server, f"/{how}")
        )
        builder = allow(f"localhost:{server.port}", f"localhost:{port}", "nowhere.invalid")
        with pytest.raises(TemporaryError, match=r"source cannot be downloaded now: .*(localhost|nowhere\.invalid)"):
            room.build(builder, shell(source(url)))


def test_a_mirror_that_is_away_is_done_without(allow: Allow, server: Web) -> None:
    wanted = content(server, "/mirror")
    with web.closed() as port:
        builder = allow(f"localhost:{server.port}", f"localhost:{port}")
        script = "for url in $urls; do curl -fsS --output $out $url && exit; done; exit 1"
        fetch = source(at(server), wanted, script=script)
        fetch = fetch.replace("url =", f'urls = [ "http://localhost:{port}/x" "{at(server, "/mirror")}" ]; other =')
        assert room.build(builder, shell(fetch)).shell


# -- the proxy as a program of its own


@pytest.fixture
def unit(nix_builder: NixBuilder, tmp_path: Path, server: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the directory of a proxy that runs like its unit."""
    file = tmp_path / "spoold.toml"
    file.write_text(
        f'[nix]\nfetch = ["localhost:{server.port}"]\nfetch_inside = ["127.0.0.0/8", "::1/128"]\n'
        "[builder.limits]\nfetch_bytes = 100_000\n"
    )
    environment = os.environ | {"RUNTIME_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(file), "fetch"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        until(lambda: "ready" in (tmp_path / "log").read_text())  # the socket may exist before it listens
        monkeypatch.setenv(door.SOCKET, str(tmp_path / "socket"))
        yield tmp_path
        process.terminate()


def test_the_proxy_goes_by_its_own_settings(allow: Allow, unit: Path, server: Web) -> None:
    with web.serving() as other:
        other.has("/x", b"other")
        builder = allow(f"localhost:{server.port}", f"localhost:{other.port}")
        assert room.build(builder, shell(source(at(server, "/unit"), content(server, "/unit")))).shell
        said = failed(room.build(builder, shell(source(at(other)))))
        assert f"would be downloaded from localhost:{other.port}, which `[nix] fetch` does not allow" in said
        assert other.asked == []
        server.answers["/x"] = endless
        said = failed(room.build(builder, shell(source(at(server)))), Outcome.OUTPUT_LIMIT)
        assert "took more than 100000 bytes" in said
    assert "let through" in (unit / "log").read_text()


def test_a_proxy_that_does_not_run_is_not_the_clients_fault(
    allow: Allow, server: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(door.SOCKET, str(tmp_path / "socket"))
    with pytest.raises(TemporaryError, match="systemctl restart spoold-fetch"):
        room.build(allow(f"localhost:{server.port}"), shell(source(at(server))))


def test_a_proxy_that_is_killed_is_not_the_clients_fault(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    seen: list[SpooldError] = []

    def build() -> None:
        try:
            room.build(builder, shell(source(at(server, "/wait"))))
        except SpooldError as error:
            seen.append(error)

    building = threading.Thread(target=build)
    server.answers["/wait"] = never
    building.start()
    until(lambda: bool(server.asked))
    (ours,) = room.children_with("spoold.proxy.serving")
    os.kill(ours, 9)
    building.join()
    assert len(seen) == 1
    assert isinstance(seen[0], TemporaryError)
    assert "proxy for downloads ended" in str(seen[0])
