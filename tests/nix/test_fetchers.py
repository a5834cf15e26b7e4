"""Fetchers that download during the evaluation are refused. The message names a fetcher that works."""

from __future__ import annotations

import pytest

from tests.nix import room
from tests.nix.downloads import Allow, at, failed, source
from tests.web import Web

pytestmark = pytest.mark.nix


@pytest.mark.parametrize(
    "expression",
    [
        'builtins.fetchTarball "https://github.com/a/b.tar.gz"',
        'builtins.fetchTarball { url = "https://github.com/a/b.tar.gz"; sha256 = "DIGEST"; }',
        'builtins.fetchurl "https://github.com/a/b"',
        'builtins.fetchGit "https://github.com/a/b"',
        'builtins.fetchGit { url = "https://github.com/a/b"; rev = "0000000000000000000000000000000000000000"; }',
        'builtins.fetchMercurial "https://example.org/a"',
    ],
)
def test_a_fetcher_of_the_evaluation_names_one_that_works(allow: Allow, expression: str) -> None:
    said = failed(room.build(allow("github.com"), f"import ({expression.replace('DIGEST', '0' * 64)})"))
    assert "Use a fetcher that is built, with a hash: pkgs.fetchurl for" in said
    assert "For a nixpkgs write <nixpkgs>" in said


def test_an_import_of_what_is_built_says_what_to_do(allow: Allow, server: Web) -> None:
    said = failed(
        room.build(allow(f"localhost:{server.port}"), f"with import <nixpkgs> {{}}; import ({source(at(server))})")
    )
    assert "cannot be imported or read by an expression" in said
    assert server.asked == []
