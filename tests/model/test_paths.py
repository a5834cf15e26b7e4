"""Store paths, and names that are none."""

from __future__ import annotations

import msgspec
import pytest

from spoold.model.paths import Pin, StorePath, StorePathOrNone, System

HASH = "0123456789abcdfghijklmnpqrsvwxyz"


@pytest.mark.parametrize("name", ["a", "glibc-2.36", "a+b._?=-Z", "x" * 211])
def test_what_nix_makes_is_one(name: str) -> None:
    path = f"/nix/store/{HASH}-{name}"
    assert msgspec.convert(path, StorePath) == msgspec.convert(path, StorePathOrNone) == path


@pytest.mark.parametrize(
    "path",
    [
        "/nix/store",
        "/nix/store/",
        f"/nix/store/{HASH}",
        f"/nix/store/{HASH}-",
        f"/nix/store/{HASH[:-1]}-a",
        f"/nix/store/{'e' * 32}-a",
        f"/nix/store/{HASH}-a/b",
        f"/nix/store/{HASH}-a\n",
        f"/nix/store/{HASH}-a b",
        f"/nix/store/{HASH}-\u00e9",
        f"/nix/store/{HASH}-{'x' * 212}",
        f"/nix/store/../{HASH}-a",
        f"x/nix/store/{HASH}-a",
        f"/nix/var/{HASH}-a",
        f"/nix/store/{HASH}-a\0",
    ],
)
def test_what_it_does_not_make_is_none(path: str) -> None:
    for kind in (StorePath, StorePathOrNone):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(path, kind)


def test_only_where_none_may_be_there_is_it_empty() -> None:
    assert msgspec.convert("", StorePathOrNone) == ""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("", StorePath)


@pytest.mark.parametrize(("kind", "good", "bad"), [(System, "aarch64-linux", "../etc"), (Pin, "24.11 \u00e9", "a\nb")])
def test_words(kind: type, good: str, bad: str) -> None:
    assert msgspec.convert(good, kind) == good
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, kind)
