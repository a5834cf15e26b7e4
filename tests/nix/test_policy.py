"""Derivations are read in the form in which Nix writes them."""

from __future__ import annotations

import json

import pytest

from spoold.config import NixSettings
from spoold.model.response import Stream
from spoold.nix import messages, policy
from spoold.nix.store import Store

HASH = "0" * 32
TEXT = (
    f'Derive([("out","/nix/store/{HASH}-x","","")],[("/nix/store/{HASH}-y.drv",["out"])],["/nix/store/{HASH}-s"],'
    '"x86_64-linux","/bin/sh",["-c","echo (\\"[)\\"\\n"],[("a","tab\\there"),("b","back\\\\slash\x01 é"),("c","")])'
)


def test_an_aterm_is_parsed() -> None:
    derivation = policy.parse(TEXT)
    assert derivation.outputs == [policy.Output("out", f"/nix/store/{HASH}-x", "", "")]
    assert derivation.derivations == [(f"/nix/store/{HASH}-y.drv", ["out"])]
    assert derivation.arguments == ["-c", 'echo ("[)"\n']
    assert derivation.attributes() == {"a": "tab\there", "b": "back\\slash\x01 é", "c": ""}


def test_structured_attributes_are_read() -> None:
    words = json.dumps(json.dumps({"__noChroot": True}))
    derivation = policy.parse(f'Derive([],[],[],"s","b",[],[("__json",{words})])')
    assert derivation.attributes() == {"__noChroot": True}


def test_names() -> None:
    assert policy.name_of(f"/nix/store/{HASH}-python3-3.11.drv") == "python3-3.11"


@pytest.mark.parametrize(
    "said",
    [b"error: attribute 'mkShell' missing\n\n  at cutor.nix:2:1:\n", b"error: undefined variable 'mkShellNoCC'\n"],
)
def test_a_nixpkgs_without_mkshell_says_what_to_write(said: bytes) -> None:
    cleaned = messages.for_client(Stream(said, len(said)), Store(NixSettings(state="/srv/state")))
    assert cleaned.data.startswith(said)
    assert b"has no mkShell" in cleaned.data
    assert b'write stdenv.mkDerivation { name = "shell"; buildInputs = [ ... ]; } in its place' in cleaned.data


def test_messages_name_no_place_of_the_host() -> None:
    store = Store(NixSettings(state="/srv/state"))
    said = (
        b"warning: unable to load nss_dns backend\nerror: at /job/cutor.nix:1:2, for /job/x\n"
        b"file '/srv/state/nix/nix/store/" + HASH.encode() + b"-e.drv.chroot/nix/store/x' is odd\n"
        b"in /srv/state/builder/tmp/tmpabc/nix-build-x.drv-0/y\n"
    )
    cleaned = messages.for_client(Stream(said, len(said) + 5), store)
    assert cleaned.data == b"error: at cutor.nix:1:2, for /job/x\nfile '/nix/store/x' is odd\nin /build/y\n"
    assert cleaned.total == len(cleaned.data) + 5
