"""A binary cache: paths that a trusted key signed are fetched and not built."""

from __future__ import annotations

import subprocess
from pathlib import Path
from threading import Event

import msgspec
import pytest

from spoold.config import NixSettings
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.nix.build import NixBuilder
from tests import engines
from tests.nix import room
from tests.nix.room import Copy

pytestmark = pytest.mark.nix

# No two builds of this have the same content.
EXPRESSION = (
    room.SHELL
    % """
  packages = [ pkgs.jq ];
  once = pkgs.runCommand "once" { } "read -r id < /proc/sys/kernel/random/uuid; echo $id > $out";
"""
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a key pair: ``secret`` and ``public``."""
    return make_keys(tmp_path_factory.mktemp("keys"))


def make_keys(directory: Path) -> Path:
    names = [str(directory / "secret"), str(directory / "public")]
    argv = ["nix-store", "--store", str(directory), "--generate-binary-cache-key", "test-1", *names]
    subprocess.run(argv, check=True)
    return directory


@pytest.fixture(scope="module")
def original(nix_builder: NixBuilder) -> BuildResult:
    """Return the shell as the session's store built it."""
    return room.build(nix_builder, EXPRESSION)


def cache(builder: NixBuilder, directory: Path, path: str, query: str = "") -> str:
    """Make a binary cache of ``path`` and the runtime. Return its URL."""
    paths = [path, *builder.prepare().closure]
    argv = ["nix", "--extra-experimental-features", "nix-command", "copy", "--store", str(builder.store.root)]
    subprocess.run(
        [*argv, "--option", "substituters", "", "--to", f"file://{directory}?compression=none{query}", *paths],
        check=True,
        capture_output=True,
    )
    return f"file://{directory}"


@pytest.fixture
def fresh(nix_builder: NixBuilder, tmp_path: Path) -> NixBuilder:
    """Return a builder on an empty store."""
    nix = NixSettings(state=str(tmp_path / "fresh"), system=nix_builder.settings.nix.system)
    return NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))


def asking(builder: NixBuilder, url: str, *keys: str) -> NixBuilder:
    """Return a builder on the same store that asks a cache."""
    nix = msgspec.structs.replace(builder.settings.nix, substituters=[url], trusted_public_keys=list(keys))
    return NixBuilder(msgspec.structs.replace(builder.settings, nix=nix))


def once(builder: NixBuilder, result: BuildResult) -> bytes:
    return room.enter(builder, result.shell, "cat $once")


def test_what_the_cache_has_is_fetched_and_not_built(
    nix_builder: NixBuilder, original: BuildResult, fresh: NixBuilder, keys: Path, tmp_path: Path
) -> None:
    url = cache(nix_builder, tmp_path / "cache", original.shell, f"&secret-key={keys / 'secret'}")
    builder = asking(fresh, url, (keys / "public").read_text())
    builder.prepare()
    with builder.store.database() as database:
        built = database.execute("SELECT path FROM ValidPaths WHERE ultimate = 1 AND path NOT LIKE '%.drv'").fetchall()
    assert not [path for (path,) in built if "bash" in path or "python" in path], "the runtime came from the cache"
    result = builder.build("fetched", EXPRESSION, "default", Event())
    assert result.shell == original.shell
    assert result.closure == original.closure
    assert once(builder, result) == once(nix_builder, original)
    assert f"copying path '{result.shell}' from '{url}'" in result.phase.stderr
    assert "building" not in result.phase.stderr
    engines.remove_store(builder.store.state)


@pytest.mark.parametrize("signer", ["nobody", "another"])
def test_what_no_key_of_ours_signed_is_not_taken(
    copy: Copy, original: BuildResult, keys: Path, tmp_path: Path, signer: str
) -> None:
    other = make_keys(tmp_path)
    before = once(copy(), original)
    url = cache(
        copy(), tmp_path / "cache", original.shell, {"nobody": "", "another": f"&secret-key={other / 'secret'}"}[signer]
    )
    builder = asking(copy(), url, (keys / "public").read_text())
    builder.prepare()
    builder.collect(set(), dry_run=False)
    result = builder.build("refused", EXPRESSION, "default", Event())
    assert result.shell == original.shell, "it has the same derivation"
    assert once(builder, result) != before, "it was built here"


def test_what_a_cache_does_not_deliver_is_not_the_clients_fault(copy: Copy, tmp_path: Path) -> None:
    builder = copy()
    fixed = """X = derivation { name = "fixed"; system = builtins.currentSystem; builder = "/bin/sh";
        outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed"; };"""
    file = tmp_path / "fixed"
    file.write_text("fixed")
    path = builder.store.ask(["nix-store", "--add-fixed", "sha256", str(file)], readable=[str(file)]).strip()
    url = cache(builder, tmp_path / "cache", path)
    asker = asking(builder, url)
    asker.prepare()
    builder.collect(set(), dry_run=False)
    result = room.build(asker, room.SHELL % fixed)
    assert result.shell, result.phase.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spoold.nix.build.GRACE", 0)
        asker.collect(set(), dry_run=False)
    for archive in (tmp_path / "cache/nar").iterdir():
        archive.unlink()
    with pytest.raises(TemporaryError, match="which it lists; so fixed is in no binary cache"):
        room.build(asker, room.SHELL % fixed)


def test_a_cache_that_is_away_is_done_without(nix_builder: NixBuilder) -> None:
    builder = asking(nix_builder, "http://127.0.0.1:9/")
    builder.prepare()
    result = room.build(builder, room.SHELL % 'OWN = pkgs.writeText "own" "without a cache";')
    assert result.shell, result.phase.stderr
