"""Words of several versions of Nix about binary caches, put plainly."""

from __future__ import annotations

import pytest

from spoold.config import NixSettings
from spoold.nix import caches, troubles
from spoold.proxy.order import Passage, Trouble

URL = "https://me:secret@cache.example.org"
AT = "the binary cache https://cache.example.org: "
PATH = f"/nix/store/{'0' * 32}-hello-2.12"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", ""),
        ("these 2 paths will be fetched (1.00 MiB download, 2.00 MiB unpacked):\n", ""),
        (
            f"warning: unable to download '{URL}/nix-cache-info': Couldn't connect to server (7)\n",
            "nothing answers there",
        ),
        (  # later versions of Nix
            f"error: unable to download '{URL}/x': Could not resolve hostname (6) Could not resolve it\n",
            "its name is not known here",
        ),
        (
            f"error: unable to download '{URL}/x.narinfo': HTTP error 503\n\n       response body:\n\n       <html>",
            "(HTTP 503)",
        ),
        (f"error: unable to download '{URL}/x': HTTP error 500 ('Internal Server Error')\n", "it fails (HTTP 500)"),
        (f"error: unable to download '{URL}/x': HTTP error 401 ('Unauthorized')\n", "it wants a name and a password"),
        (
            f"error: unable to download '{URL}/x': HTTP error 200 ('OK') (curl error: Transferred a partial file)\n",
            "broke off",
        ),
        (
            f"error: unable to download '{URL}/x': HTTP error 200 (curl error: Timeout was reached)\n",
            "in time, or too slowly",
        ),
        (f"error: unable to download '{URL}/x': HTTP error 404 ('Not Found')\n", "it does not have what it lists"),
        (f"error: unable to download '{URL}/x': HTTP error 418\n", "it answers with HTTP 418"),
        (
            f"error: unable to download '{URL}/x': Failed writing received data to disk/application (23)\n",
            "Failed writing",
        ),
        (f"warning: '{URL}' does not appear to be a binary cache\n", "it is no binary cache"),
    ],
)
def test_words(said: str, found: str) -> None:
    told = troubles.found(said)
    assert found in told
    assert told.startswith(AT) or not told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            f"warning: ignoring substitute for '{PATH}' from '{URL}', as it's not signed by any of the keys in 'x'\n",
            f"{AT}what it has of hello-2.12 is not signed by any of nix.trusted_public_keys",
        ),
        (
            f"error: cannot add path '{PATH}' because it lacks a signature by a trusted key\n",
            "what it has of hello-2.12 is not signed",
        ),
        (f"error: hash mismatch importing path '{PATH}';\n  specified: x\n", "gave hello-2.12 with a wrong hash"),
        (
            "error: file 'nar/x' does not exist in binary cache\n",
            "on this host: it does not have nar/x, which it lists",
        ),
        ("error: unexpected end-of-file\n", "breaks off"),
        ("error: failed to read compressed data (truncated input)\n", "breaks off"),
    ],
)
def test_words_on_one_path(said: str, found: str) -> None:
    assert found in troubles.found(said)


def test_what_went_well_in_the_end_is_no_trouble() -> None:
    assert not troubles.found(f"warning: error: unable to download '{URL}/x': HTTP error 500; retrying in 262 ms\n")


def test_each_is_told_once_and_not_too_many() -> None:
    said = f"error: unable to download '{URL}/x': HTTP error 500\n" * 100
    assert troubles.found(said) == f"{AT}it fails (HTTP 500)"
    said = "".join(f"error: hash mismatch importing path '{PATH}{n}';\n" for n in range(9))
    assert troubles.found(said).endswith("; and 4 more")


def test_the_order_of_caches() -> None:
    settings = NixSettings(substituters=["https://a", "/b?x=1", "file:///c", "/d?priority=9", "https://e"])
    assert caches.urls(settings) == [
        "/b?x=1&priority=0",
        "file:///c?priority=0",
        "/d?priority=9",
        "https://a",
        "https://e",
    ]


def test_a_cache_is_named_without_its_password() -> None:
    nix = NixSettings(substituters=["https://me:word@cache.example/x?priority=3", "/srv"])
    assert caches.named(nix) == "https://cache.example/x, /srv"
    assert caches.named(NixSettings()) == "it has none"


HOST = "cache.example.org"
GOT_502 = f"error: unable to download '{URL}/x.narinfo': HTTP error 502\n"
NO_TUNNEL = f"warning: unable to download '{URL}/nix-cache-info': Failure when receiving data from the peer (56)\n"
REFUSED = Passage(host="cdn.example", trouble=Trouble.UNLISTED, said="cdn.example is not in `[nix] substituters`")


def away(said: str, host: str = HOST, status: int = 0) -> Passage:
    return Passage(host=host, trouble=Trouble.AWAY, said=said, status=status)


@pytest.mark.parametrize(
    ("said", "met", "found"),
    [
        (GOT_502, [], "it fails (HTTP 502)"),
        (GOT_502, [away(f"{HOST} answers 502", status=502)], "it fails (HTTP 502)"),
        (GOT_502, [away(f"{HOST} cannot be reached (gone)")], "it cannot be reached (gone)"),
        (GOT_502, [away(f"the name {HOST} cannot be resolved (x)")], f"the name {HOST} cannot be resolved (x)"),
        (NO_TUNNEL, [], "it hung up in the middle"),
        (NO_TUNNEL, [away(f"{HOST} cannot be reached (gone)")], "it cannot be reached (gone)"),
        (GOT_502, [away("other cannot be reached", "other")], "it redirects to other, and there: other cannot be"),
        (
            f"error: file 'nar/x' does not exist in binary cache '{URL}'\n",
            [REFUSED],
            "it redirects to cdn.example, which is not in `[nix] substituters`; name that host",
        ),
        (f"warning: '{URL}' does not appear to be a binary cache\n", [REFUSED], "it redirects to cdn.example, which"),
        (f"error: unable to download '{URL}/x': HTTP error 404\n", [REFUSED], "it does not have what it lists"),
    ],
)
def test_what_the_proxy_met_is_said_in_its_words(said: str, met: list[Passage], found: str) -> None:
    assert troubles.found(said, None, met).startswith(AT + found)


def test_what_the_proxy_met_and_nix_got_over_is_no_trouble() -> None:
    assert not troubles.found("copying path\n", None, [away("away"), REFUSED])


def test_another_cache_that_is_away_is_no_redirect() -> None:
    said = GOT_502 + GOT_502.replace(HOST, "other")
    told = troubles.found(said, None, [away("other cannot be reached (gone)", "other")])
    assert told == f"{AT}it fails (HTTP 502); the binary cache https://other: it cannot be reached (gone)"
