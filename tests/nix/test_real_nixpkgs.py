"""A real nixpkgs of any age. $SPOOLD_TEST_REAL_NIXPKGS names a tree or a tarball. No test here needs a network.

It is added as a pin beside the miniature. Shells as people write them are evaluated, and built from a cache over HTTP
that holds stand-ins (:mod:`tests.nix.standins`) under the names that the tree asks for. Then jobs run in them. Without
a cache, each build says what is missing.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from threading import Event

import msgspec
import pytest

from spoold.config import NixSettings, Settings
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.nix.evaluate import Evaluation
from tests import engines
from tests.nix import cache, room
from tests.nix.real_shells import REFUSED, SHELLS, Refused, Shell
from tests.nix.standins import Maker

REAL = os.environ.get("SPOOLD_TEST_REAL_NIXPKGS", "")
pytestmark = [pytest.mark.nix, pytest.mark.skipif(not REAL, reason="$SPOOLD_TEST_REAL_NIXPKGS names no nixpkgs")]

LARGEST = 512 * 1024**2  # bytes that a program may take to add a nixpkgs of any size
ADD = """
import resource, sys, msgspec
from spoold.config import Settings
from spoold.nix.build import NixBuilder
print(NixBuilder(msgspec.json.decode(sys.stdin.read(), type=Settings)).prepare().nixpkgs["real"])
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss * 1024)
"""
BIG = "packages = with pkgs; [ python3 gcc perl jq ];"


@pytest.fixture(scope="module")
def real(nix_builder: NixBuilder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield settings with the real nixpkgs as a pin, on a store of their own."""
    nix_builder.prepare()
    state = tmp_path_factory.mktemp("real") / "state"
    pins = {"default": nix_builder.settings.nixpkgs["default"], "real": REAL}
    nix = NixSettings(state=str(state), system=nix_builder.settings.nix.system)
    yield msgspec.structs.replace(nix_builder.settings, nix=nix, nixpkgs=pins)
    engines.remove_store(state)


@pytest.fixture(scope="module")
def builder(real: Settings) -> NixBuilder:
    """Return a builder without a cache."""
    made = NixBuilder(real)
    made.prepare()
    return made


def evaluated(builder: NixBuilder, text: str) -> Evaluation:
    pin = room.runtime_of(builder).nixpkgs["real"]
    assert builder._evaluator is not None
    return builder._evaluator.evaluate(text, pin, builder.settings.builder.limits, Event())


@functools.cache
def there(builder: NixBuilder) -> dict[str, bool]:
    """Tell for each of the shells' needs whether this nixpkgs meets it."""
    pin = str(builder.store.on_disk(room.runtime_of(builder).nixpkgs["real"]))
    needs = sorted({shell.needs for shell in (*SHELLS, *REFUSED)})
    values = " ".join(f"({need})" for need in needs)
    argv = [
        "nix-instantiate",
        "--eval",
        "--strict",
        "--json",
        "--read-write-mode",
        "--option",
        "restrict-eval",
        "false",
    ]
    said = builder.store.ask(
        [*argv, "-E", f"{{ pin }}: with {{ pkgs = import pin {{ }}; }}; [ {values} ]", "--argstr", "pin", pin]
    )
    return dict(zip(needs, msgspec.json.decode(said), strict=True))


def wanted(builder: NixBuilder, shell: Shell | Refused) -> str:
    """Return the text of a shell. Skip the test if this nixpkgs cannot build it."""
    if not there(builder)[shell.needs]:
        pytest.skip(f"this nixpkgs does not meet: {shell.needs}")
    return shell.text


def test_it_is_added_in_bounded_memory(real: Settings) -> None:
    added = subprocess.run(
        [sys.executable, "-c", ADD], input=msgspec.json.encode(real), check=True, stdout=subprocess.PIPE
    ).stdout.split()
    assert added[0].endswith(b"-nixpkgs")
    assert all(int(most) < LARGEST for most in added[1:]), added


def test_the_other_pin_is_as_it_was(builder: NixBuilder) -> None:
    assert set(room.runtime_of(builder).nixpkgs) == {"default", "real"}
    assert room.build(builder, room.SHELL % "packages = [ pkgs.jq ];").shell


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_a_shell_is_evaluated(builder: NixBuilder, shell: Shell) -> None:
    evaluation = evaluated(builder, wanted(builder, shell))
    assert evaluation.derivation, evaluation.finished.stderr.data.decode()


@pytest.mark.parametrize("shell", REFUSED, ids=lambda shell: shell.name)
def test_what_cannot_be_had_here_says_what_can(builder: NixBuilder, shell: Refused) -> None:
    result = builder.build("refused", wanted(builder, shell), "real", Event())
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    assert shell.says in result.phase.stderr


def test_without_a_cache_it_ends_at_once_and_names_what_is_missing(builder: NixBuilder) -> None:
    result = builder.build("without", SHELLS[1].text, "real", Event())
    assert result.phase.outcome is Outcome.NONZERO_EXIT
    last = result.phase.stderr.strip().splitlines()[-1]
    assert re.match(r"error: \S+ (asks for|would|is in no|derivations would)", last), last
    assert "building" not in result.phase.stderr


class Filled(msgspec.Struct, frozen=True):
    """A builder that has a cache, and the cache's maker."""

    builder: NixBuilder
    maker: Maker


@pytest.fixture(scope="module")
def filled(builder: NixBuilder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    directory = tmp_path_factory.mktemp("standins")
    keys = cache.make_keys(tmp_path_factory.mktemp("keys"))
    maker = Maker(builder, directory, keys / "secret")
    with cache.serving(directory) as server:
        nix = msgspec.structs.replace(
            builder.settings.nix,
            substituters=[server.url],
            trusted_public_keys=[(keys / "public").read_text()],
        )
        asking = NixBuilder(msgspec.structs.replace(builder.settings, nix=nix))
        asking.prepare()
        yield Filled(asking, maker)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_a_job_runs_in_a_shell_from_a_cache(filled: Filled, shell: Shell) -> None:
    filled.maker.add(wanted(filled.builder, shell), "real")
    result = filled.builder.build(f"real-{SHELLS.index(shell)}", shell.text, "real", Event())
    assert result.shell, result.phase.stderr
    bash = f"{room.runtime_of(filled.builder).bash}/bin/bash"
    said = room.execute(filled.builder, result.shell, bash, "-c", shell.command)
    assert said.decode().strip() == shell.prints
