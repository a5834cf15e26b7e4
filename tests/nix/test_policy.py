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


@pytest.mark.parametrize("root", [b"e.drv.chroot", b"e.drv.chroot/root"], ids=bytes.decode)
def test_the_root_of_a_build_has_the_name_that_it_has_inside(root: bytes) -> None:
    said = b"for '/srv/state/nix/nix/store/" + HASH.encode() + b"-" + root + b"/nix/store/x'\n"
    cleaned = messages.for_client(Stream(said, len(said)), Store(NixSettings(state="/srv/state")))
    assert cleaned.data == b"for '/nix/store/x'\n"


@pytest.mark.parametrize(
    "name", [b"nix-build-x.drv-0", b"nix-build-x.drv-0/build", b"nix-4711-0", b"nix-4711-0/build"], ids=bytes.decode
)
def test_the_directory_of_a_build_has_the_name_that_it_has_inside(name: bytes) -> None:
    said = b"in '/srv/state/builder/tmp/tmpabc/" + name + b"/y'\n"
    cleaned = messages.for_client(Stream(said, len(said)), Store(NixSettings(state="/srv/state")))
    assert cleaned.data == b"in '/build/y'\n"


# As Nix 2.26 and 2.34 print it.
STEPS = """error:
       … from call site
         at «string»:84:6:
           83| })
           84| else derivation (common // {
             |      ^
           85|   args = shellArguments (toFile "capture.sh" script);

       … while calling the 'derivationStrict' builtin
         at %s:37:12:
           36|
           37|   strict = derivationStrict drvAttrs;
             |            ^
           38|

%s       (stack trace truncated; use '--show-trace' to show the full, detailed trace)

       error: undefined variable 'nosuch'
       at /job/cutor.nix:1:1:
            1| nosuch
             | ^
            2|
"""
CALL = """       … while calling the 'import' builtin
         at /job/cutor.nix:2:1:
            1|
            2| import x
             | ^

"""
CAUSE = """error: undefined variable 'nosuch'
       at cutor.nix:1:1:
            1| nosuch
             | ^
            2|
"""


@pytest.mark.parametrize("own", ["<nix/derivation-internal.nix>", "«nix-internal»/derivation-internal.nix"])
def test_steps_outside_of_the_clients_file_are_left_out(own: str) -> None:
    store = Store(NixSettings(state="/srv/state"))
    said = (STEPS % (own, "")).encode()
    assert messages.for_client(Stream(said, len(said)), store).data.decode() == CAUSE
    said = (STEPS % (own, CALL)).encode()
    cleaned = messages.for_client(Stream(said, len(said)), store).data.decode()
    assert cleaned == f"error:\n{CALL}       {CAUSE}".replace("/job/cutor.nix", "cutor.nix")


@pytest.mark.parametrize(
    "said",
    [
        b"error: getting status of '/job/lib.nix': No such file or directory\n",
        b"error: opening file '/job/lib.nix': No such file or directory\n",
        b"error:\n       ... while calling the 'import' builtin\n\n       error: path '/job/lib.nix' does not exist\n",
    ],
    ids=["2.8", "2.18", "2.26"],
)
def test_whoever_imports_a_file_beside_cutor_nix_is_told_that_it_is_alone(said: bytes) -> None:
    cleaned = messages.for_client(Stream(said, len(said)), Store(NixSettings(state="/srv/state")))
    assert b"\ncutor.nix is evaluated alone: it cannot import other files of the submission." in cleaned.data
