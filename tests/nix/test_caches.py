"""Binary caches over HTTP and HTTPS: good ones, and each way in which one can fail.

Each failure of a cache has its own message, is tried again, and is never the client's fault.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import NamedTuple

import msgspec
import pytest

from spoold.config import NixSettings
from spoold.model.errors import CacheError, OperatorError, TemporaryError
from spoold.model.job import BuildResult
from spoold.model.response import Fetching
from spoold.nix.build import NixBuilder
from tests import engines
from tests.nix import cache, room
from tests.nix.cache import Cache, Fault
from tests.nix.room import Copy
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.nix

PATHS = 200
# A derivation with COUNT outputs, each of which can be fetched alone. No two builds of it have the same content.
MANY = """MANY = derivation {
  name = "many"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash";
  outputs = map (n: "o${toString n}") (builtins.genList (n: n) COUNT);
  PATH = "${pkgs.coreutils}/bin";
  args = [ "-c" ''
    read -r id < /proc/sys/kernel/random/uuid
    for output in $outputs; do echo $id > ''${!output}; done
  '' ];
};
ALL = map (o: MANY.${o}) MANY.outputs;"""
SHELL = """{ pkgs ? import <nixpkgs> { } }: with rec {
  %s
}; pkgs.mkShell { inherit ALL; SIZE = "%s"; }
"""


def many(count: int, size: str = "") -> str:
    return SHELL % (MANY.replace("COUNT", str(count)), size)


FEW = many(3)
# Only a fetch can bring this, because the policy refuses to build it.
FIXED = """FIXED = derivation { name = "fixed"; system = builtins.currentSystem; builder = "/bin/sh";
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed"; };"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache.make_keys(tmp_path_factory.mktemp("keys"))


class Full(msgspec.Struct, frozen=True):
    """A directory with a signed cache, and the shells in it."""

    directory: Path
    key: str
    many: BuildResult
    few: BuildResult
    once: bytes


@pytest.fixture(scope="module")
def full(nix_builder: NixBuilder, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Full:
    """Make a signed cache of the runtime, two shells and a file."""
    directory = tmp_path_factory.mktemp("cache")
    shells = [room.build(nix_builder, expression) for expression in (many(PATHS), FEW)]
    assert all(shell.shell for shell in shells), shells
    file = directory / "fixed"
    file.write_text("fixed")
    fixed = nix_builder.store.ask(["nix-store", "--add-fixed", "sha256", str(file)], readable=[str(file)]).strip()
    fill(nix_builder, directory, keys, fixed, *(shell.shell for shell in shells))
    return Full(directory, (keys / "public").read_text(), shells[0], shells[1], once(nix_builder, shells[1]))


def fill(builder: NixBuilder, directory: Path, keys: Path, *paths: str) -> None:
    """Put paths and the runtime into a cache."""
    argv = ["nix", "--extra-experimental-features", "nix-command", "copy", "--store", str(builder.store.root)]
    argv += ["--option", "substituters", "", "--to", f"file://{directory}?compression=none&secret-key={keys}/secret"]
    subprocess.run([*argv, *paths, *builder.prepare().closure], check=True, capture_output=True)


@pytest.fixture
def server(full: Full) -> Iterator[Cache]:
    with cache.serving(full.directory) as serving:
        yield serving


def asking(builder: NixBuilder, full: Full, *urls: str, **changes: str | list[str]) -> NixBuilder:
    """Return a builder on the same store that asks these caches."""
    nix = msgspec.structs.replace(
        builder.settings.nix, substituters=list(urls), trusted_public_keys=[full.key], **changes
    )
    return NixBuilder(msgspec.structs.replace(builder.settings, nix=nix))


@pytest.fixture
def bare(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> NixBuilder:
    """Return a builder on a store that has only the runtime."""
    monkeypatch.setattr("spoold.nix.build.GRACE", 0)
    builder = copy()
    builder.collect(set(), dry_run=False)
    return builder


def prepared(builder: NixBuilder) -> NixBuilder:
    builder.prepare()
    return builder


def nar_of(full: Full, path: str) -> str:
    """Return a pattern for the request of a path's content."""
    text = (full.directory / f"{path[11:43]}.narinfo").read_text()
    return re.escape(text.partition("URL: ")[2].partition("\n")[0])


def once(builder: NixBuilder, result: BuildResult) -> bytes:
    return room.enter(builder, result.shell, "cat ${ALL%% *}")


# -- good ones


def test_a_cold_store_is_filled_from_a_cache_and_tells_how_far_it_is(
    nix_builder: NixBuilder, full: Full, server: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.nix.fetch.LOOKS", 0.0)
    nix = NixSettings(state=str(tmp_path / "cold"), system=nix_builder.settings.nix.system)
    cold = NixBuilder(msgspec.structs.replace(nix_builder.settings, nix=nix))
    builder = prepared(asking(cold, full, server.url))
    gate = threading.Event()
    held = server.asked_for(r"\.nar$")
    told: list[Fetching] = []

    def in_part(handler: cache.Handler) -> None:
        """Let half of the paths through, and hold the rest until progress is told."""
        if len(server.asked_for(r"\.nar$")) - len(held) > PATHS // 2:
            gate.wait(PATIENCE)
        handler.answer(handler.file)

    server.faults.append((r"\.nar$", in_part))

    def tell(fetching: Fetching) -> None:
        told.append(fetching)
        if fetching.paths > PATHS // 4:
            gate.set()

    result = builder.build("cold", many(PATHS), "default", Event(), tell)
    assert result.shell == full.many.shell, result.phase.stderr
    assert result.closure == full.many.closure
    assert "building" not in result.phase.stderr
    assert any(PATHS // 4 < each.paths < each.all_paths for each in told), told
    assert all(each.all_paths > PATHS and 0 < each.all_bytes >= each.bytes for each in told)
    assert [each.paths for each in told] == sorted(each.paths for each in told)
    engines.remove_store(builder.store.state)


def test_several_are_asked_in_their_order_and_a_directory_first(
    bare: NixBuilder, full: Full, nix_builder: NixBuilder, keys: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    fill(nix_builder, other, keys, full.few.shell)
    (other / cache.INFO).write_text("StoreDir: /nix/store\nPriority: 30\n")
    with cache.serving(full.directory) as last, cache.serving(other) as first:
        builder = prepared(asking(bare, full, f"{last.url}?priority=40", first.url))
        builder.build("first", FEW, "default", Event())
        assert first.asked_for(r"\.nar$")
        assert not last.asked_for(r"\.nar$")
        last.asked.clear()
        first.asked.clear()
        builder.collect(set(), dry_run=False)
        builder = prepared(asking(bare, full, first.url, str(full.directory)))
        assert builder.build("directory", FEW, "default", Event()).shell == full.few.shell
        assert not first.asked_for(r"\.nar$")


def test_what_one_does_not_have_another_may(bare: NixBuilder, full: Full, tmp_path: Path, server: Cache) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / cache.INFO).write_text("StoreDir: /nix/store\nPriority: 1\n")
    with cache.serving(tmp_path / "empty") as empty:
        builder = prepared(asking(bare, full, empty.url, f"{server.url}?priority=9"))
        result = builder.build("x", FEW, "default", Event())
    assert result.shell == full.few.shell
    assert once(builder, result) == full.once, "it was fetched, not built here"
    assert empty.asked_for("narinfo")


# -- private ones


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return cache.make_authority(tmp_path_factory.mktemp("authority"))


def test_a_private_cache_with_a_certificate_authority_and_a_password(
    bare: NixBuilder, full: Full, authority: tuple[Path, Path], tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    with cache.serving(full.directory, authority[1], "me:secret") as private:
        builder = asking(bare, full, private.url, netrc=str(netrc), certificates=str(authority[0]))
        result = prepared(builder).build("x", FEW, "default", Event())
        assert result.shell == full.few.shell
        assert once(builder, result) == full.once


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "its certificate is not trusted; name the authority's in nix.certificates"),
        # newer versions of Nix tell why they cannot read nix-cache-info
        ({"certificates": "AUTHORITY"}, "(it is no binary cache, or|it) wants a name and a password"),
    ],
)
def test_a_private_cache_without_what_it_wants(
    bare: NixBuilder, full: Full, authority: tuple[Path, Path], settings: dict[str, str], said: str
) -> None:
    changes = {name: value.replace("AUTHORITY", str(authority[0])) for name, value in settings.items()}
    with cache.serving(full.directory, authority[1], "me:secret") as private:
        builder = prepared(asking(bare, full, private.url, **changes))
        with pytest.raises(CacheError, match=f"the binary cache {private.url}: {said}"):
            room.build(builder, room.SHELL % FIXED)


@pytest.mark.parametrize("name", ["netrc", "certificates"])
def test_a_file_of_the_settings_that_is_not_there_is_the_operators_to_mend(
    bare: NixBuilder, full: Full, server: Cache, name: str
) -> None:
    builder = asking(bare, full, server.url, **{name: "/no/such/file"})
    with pytest.raises(OperatorError, match=f"nix.{name}: the builder cannot read /no/such/file"):
        room.build(prepared(builder), FEW)


def test_a_password_in_a_url_is_shown_to_nobody(bare: NixBuilder, full: Full) -> None:
    builder = prepared(asking(bare, full, "http://me:secret@127.0.0.1:9"))
    with pytest.raises(CacheError) as raised:
        room.build(builder, room.SHELL % FIXED)
    assert "127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)


# -- bad ones

AWAY = r"it cannot be reached \(127.0.0.1: Connection refused\)"


class Bad(NamedTuple):
    """A way to fail: its name, the pattern of the requests that fail, the fault, and the message."""

    name: str
    pattern: str
    fault: Fault
    said: str


FAULTS = [
    Bad(*row)
    for row in (
        ("info: 503", cache.INFO, cache.status(503), "it fails .HTTP 503."),
        ("info: hangs up", cache.INFO, cache.hang_up, "it closed the connection"),
        (
            "info: another store's",
            cache.INFO,
            lambda each: each.answer(b"StoreDir: /opt/store\n"),
            "it is for stores in /opt",
        ),
        ("narinfo: 500", "narinfo", cache.status(500), "it fails .HTTP 500."),
        ("narinfo: half", "narinfo", cache.half, "it broke off|it closed the connection"),
        ("narinfo: garbage", "narinfo", lambda each: each.answer(b"<html>\n"), "NAR info file .* is corrupt"),
        ("nar: 404", r"\.nar$", cache.status(404), "it does not have nar/.*, which it lists"),
        ("nar: 403", r"\.nar$", cache.status(403), "it does not have nar/.*, which it lists"),
        ("nar: 502", r"\.nar$", cache.status(502), "it fails .HTTP 502."),
        ("nar: half", r"\.nar$", cache.half, "it broke off"),
        ("nar: hangs up", r"\.nar$", cache.hang_up, "it closed the connection"),
        ("nar: hangs", r"\.nar$", cache.hang, "it does not answer in time, or too slowly"),
        ("nar: garbage", r"\.nar$", cache.garbage, "no archive"),
        ("nar: another hash", r"\.nar$", cache.changed, r"gave \S+ with a wrong hash"),
        (
            "nar: redirect",
            r"\.nar$",
            cache.redirected("http://127.0.0.1:9"),
            r"it redirects to 127.0.0.1:9, which is not in `\[nix\] substituters` or `\[nix\] fetch`; name that host",
        ),
    )
]


@pytest.mark.parametrize(
    "bad",
    [*FAULTS[::5], *(pytest.param(bad, marks=pytest.mark.long) for bad in FAULTS if bad not in FAULTS[::5])],
    ids=lambda bad: bad.name,
)
def test_each_way_to_fail_has_its_words(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch, bad: Bad
) -> None:
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 2)
    builder = prepared(asking(bare, full, server.url))
    server.faults.append((bad.pattern, bad.fault))
    with pytest.MonkeyPatch.context() as patch:
        if bad.fault is cache.hang:  # other answers could be too slow by chance
            patch.setattr("spoold.nix.caches.STALLED", 1)
        with pytest.raises(CacheError, match=bad.said):
            room.build(builder, room.SHELL % FIXED)
    server.faults.clear()
    assert room.build(builder, room.SHELL % FIXED).shell, "it is tried again"


def test_one_that_does_not_come_to_an_end_with_what_it_has(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = prepared(asking(room.limited(bare, time=2), full, server.url))
    server.faults.append(("narinfo", cache.say_nothing))
    with pytest.raises(CacheError, match="the binary caches did not say in time what they have; so fixed is in no"):
        room.build(builder, room.SHELL % FIXED)


def test_a_cache_may_redirect_to_a_host_that_is_listed(bare: NixBuilder, full: Full, server: Cache) -> None:
    with cache.serving(full.directory) as other:
        server.faults.append((r"\.nar$", cache.redirected(other.url)))
        builder = prepared(asking(bare, full, server.url, fetch=[other.url.removeprefix("http://")]))
        assert room.build(builder, room.SHELL % FIXED).shell
        assert other.asked_for(r"\.nar$")


def test_a_host_to_which_a_cache_redirects_is_named_where_it_is_away(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 1)
    server.faults.append((r"\.nar$", cache.redirected("http://127.0.0.1:9")))
    builder = prepared(asking(bare, full, server.url, fetch=["127.0.0.1:9"]))
    with pytest.raises(CacheError, match=r"it redirects to 127.0.0.1:9, and there: 127.0.0.1:9 cannot be reached"):
        room.build(builder, room.SHELL % FIXED)


def test_a_source_that_cannot_be_downloaded_either_is_not_the_clients_fault(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache might have had the source."""
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 1)
    server.faults.append(("narinfo", cache.status(500)))
    builder = asking(bare, full, server.url, fetch=["127.0.0.1:9"], fetch_inside=["127.0.0.0/8"])
    with pytest.raises(CacheError, match=r"it fails \(HTTP 500\); so a source had to be downloaded, which failed: "):
        room.build(prepared(builder), room.SHELL % FIXED)


def test_a_cache_that_is_away_is_named_and_is_not_the_clients_fault(bare: NixBuilder, full: Full) -> None:
    builder = prepared(asking(bare, full, "http://127.0.0.1:9"))
    with pytest.raises(CacheError, match=f"the binary cache http://127.0.0.1:9: {AWAY}; so fixed is in no"):
        room.build(builder, room.SHELL % FIXED)


def test_what_a_cache_just_does_not_have_is_no_failure_of_its(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = prepared(asking(bare, full, server.url))
    result = room.build(builder, room.SHELL % FIXED.replace('"sha256" "fixed"', '"sha256" "other"'))
    assert not result.shell
    assert "fixed is in no binary cache of this host" in result.phase.stderr


@pytest.mark.parametrize("fault", [cache.status(404), cache.half, cache.changed, cache.hang_up])
def test_what_can_be_built_is_built_where_the_cache_does_not_deliver(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 2)
    builder = prepared(asking(bare, full, server.url))
    server.faults.append((nar_of(full, full.few.shell), fault))
    result = room.build(builder, FEW)
    assert result.shell == full.few.shell
    assert f"copying path '{result.shell}'" in result.phase.stderr
    assert "building '/nix/store/" in result.phase.stderr


def test_one_that_fails_does_not_keep_another_from_being_asked(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.nix.caches.ATTEMPTS", 1)
    with cache.serving(full.directory) as bad:
        bad.faults.append((r"narinfo|\.nar$", cache.status(500)))
        builder = prepared(asking(bare, full, "http://127.0.0.1:9", f"{bad.url}?priority=1", server.url))
        assert room.build(builder, room.SHELL % FIXED).shell
        assert bad.asked_for("narinfo")


# -- bounds


def test_a_fetch_that_is_slow_goes_on_where_it_ended(
    bare: NixBuilder, full: Full, server: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.nix.fetch.LOOKS", 0.0)
    builder = prepared(asking(room.limited(bare, silence=1000), full, server.url))
    gate = threading.Event()
    few = iter(range(20))
    wait = cache.wait_for(gate)
    server.faults.append((r"\.nar$", lambda each: wait(each) if next(few, None) is None else each.answer(each.file)))
    looked = iter(range(10))

    hours = 0

    def now() -> float:
        """Let an hour pass at each look, after some paths have arrived and several looks have counted them."""
        nonlocal hours
        hours += arrived(builder) > 0 and next(looked, None) is None
        return time.monotonic() + 3600 * hours

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spoold.nix.fetch._now", now)
        with pytest.raises(
            CacheError, match=rf"\d+ of \d+ paths came .*{server.url}.*: nothing came for 1000 s .*kept"
        ):
            room.build(builder, many(PATHS))
    gate.set()
    came = arrived(builder)
    assert 0 < came < PATHS
    server.asked.clear()
    builder = prepared(asking(bare, full, server.url))
    assert room.build(builder, many(PATHS)).shell == full.many.shell
    assert len(set(server.asked_for(r"\.nar$"))) <= full_size(full) - came, "paths that arrived are not fetched again"


def test_a_build_that_is_cancelled_while_it_fetches_ends(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = prepared(asking(bare, full, server.url))
    cancelled = Event()

    def cancel(handler: cache.Handler) -> None:
        cancelled.set()
        cache.hang(handler)

    server.faults.append((r"\.nar$", cancel))
    with pytest.raises(TemporaryError, match="cancelled"):
        builder.build("x", FEW, "default", cancelled)


def test_more_than_may_be_added_is_not_fetched(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = prepared(asking(room.limited(bare, output=100), full, server.url))
    result = room.build(builder, FEW)
    assert re.search("has to be fetched for it takes [0-9]+ bytes, and at most 100", result.phase.stderr)
    assert not server.asked_for(r"\.nar$")


def world(count: int) -> str:
    """Return a shell that needs ``count`` derivations."""
    return room.SHELL % (
        """all = map (n: derivation { name = "world-${toString n}"; system = builtins.currentSystem;
        builder = "${pkgs.bash}/bin/bash"; args = [ "-c" "echo > $out" ]; }) (builtins.genList (n: n) COUNT);"""
    ).replace("COUNT", str(count))


def test_nobody_builds_the_world(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = prepared(asking(room.limited(bare, derivations=20), full, server.url))
    result = room.build(builder, world(30))
    assert not result.shell
    said = r"3\d derivations would have to be built for it, the first of them \S+, since they are in no binary .*"
    assert re.search(said + rf"\({server.url}\); at most 20 are built", result.phase.stderr), result.phase.stderr
    assert "building" not in result.phase.stderr
    assert room.build(builder, world(10)).shell


def test_sources_do_not_count(bare: NixBuilder, full: Full, server: Cache) -> None:
    """They are refused, but each for its own reason."""
    builder = prepared(asking(room.limited(bare, derivations=20), full, server.url))
    source = 'outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "${toString n}"; '
    result = room.build(builder, world(30).replace("system =", source + "system ="))
    assert re.search(r"world-\d+ is in no binary cache", result.phase.stderr), result.phase.stderr


def test_a_cache_that_is_away_makes_a_world_nobodys_fault(bare: NixBuilder, full: Full) -> None:
    builder = prepared(asking(room.limited(bare, derivations=20), full, "http://127.0.0.1:9"))
    with pytest.raises(CacheError, match=rf"{AWAY}; so \d+ derivations would have to be built"):
        room.build(builder, world(30))


# -- a daemon that is killed

DAEMON = """
import sys, threading, msgspec
from spoold.config import Settings
from spoold.nix.build import NixBuilder
settings, expression = msgspec.json.decode(sys.stdin.readline(), type=tuple[Settings, str])
builder = NixBuilder(settings)
builder.prepare()
builder.build("killed", expression, "default", threading.Event())
"""


def test_a_builder_that_is_killed_in_the_middle_goes_on_from_there(bare: NixBuilder, full: Full, server: Cache) -> None:
    builder = asking(bare, full, server.url)
    gate = threading.Event()
    wait = cache.wait_for(gate)

    def slow(handler: cache.Handler) -> None:
        if len(server.asked_for(r"\.nar$")) > PATHS // 2:
            wait(handler)
        else:
            handler.answer(handler.file)

    server.faults.append((r"\.nar$", slow))
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE)
    assert daemon.stdin is not None
    with daemon.stdin:
        daemon.stdin.write(msgspec.json.encode([builder.settings, many(PATHS)]) + b"\n")
        daemon.stdin.flush()
        until(lambda: arrived(builder) >= PATHS // 4)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    until(lambda: not room.processes_with(builder.settings.nix.state))
    assert arrived(builder) < PATHS
    gate.set()
    came = arrived(builder)
    server.asked.clear()
    result = room.build(prepared(builder), many(PATHS))
    assert result.shell == full.many.shell, result.phase.stderr
    assert arrived(builder) == PATHS
    assert len(set(server.asked_for(r"\.nar$"))) <= full_size(full) - came


def arrived(builder: NixBuilder) -> int:
    with builder.store.database() as database:
        return int(database.execute("SELECT count(*) FROM ValidPaths WHERE path LIKE '%-many-o%'").fetchone()[0])


def full_size(full: Full) -> int:
    return len(full.many.closure)
