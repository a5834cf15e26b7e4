"""Findings of spoolctl doctor about binary caches and hosts of downloads."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from spoold.config import NixSettings
from spoold.doctor import sources
from spoold.host import units
from spoold.model.findings import Finding, Level
from spoold.nix import seat
from spoold.proxy import reaching


def found(settings: NixSettings, **names: list[str]) -> list[Finding]:
    async def lookup(name: str) -> list[str]:
        if name.partition(".")[0] not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[name.partition(".")[0]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reaching, "lookup", lookup)
        return list(sources.examine(settings))


def test_without_hosts_it_says_what_that_means() -> None:
    *_, finding = found(NixSettings(substituters=["https://cache.example"]))
    assert finding.level is Level.NOTE
    assert (
        "sources that are in no binary cache of this host (https://cache.example) are not downloaded" in finding.detail
    )


def of_caches(settings: NixSettings, **names: list[str]) -> list[tuple[Level, str]]:
    """Return the findings about binary caches."""
    return [(each.level, each.detail) for each in found(settings, **names) if each.what == "binary caches"]


def test_binary_caches(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://name:secret@good.example:{server.getsockname()[1]}"
        settings = NixSettings(substituters=[here, f"file://{tmp_path}?priority=1"], trusted_public_keys=["k-1:x"])
        assert of_caches(settings, good=["127.0.0.1"]) == [
            (Level.FINE, f"{here.replace('name:secret@', '')}, file://{tmp_path}")
        ]
    away = ["http://name:secret@good.example:9", "https://gone.example"]
    warned = of_caches(replace(settings, substituters=away), good=["127.0.0.1"])
    assert [level for level, _ in warned] == [Level.WARNING] * 2
    assert "cannot be reached (127.0.0.1: Connection refused)" in warned[0][1]
    assert "secret" not in warned[0][1]
    assert "the name gone.example cannot be resolved" in warned[1][1]


def test_a_cache_that_is_no_directory_and_one_without_a_key(tmp_path: Path) -> None:
    warned = of_caches(NixSettings(substituters=[f"{tmp_path}/none"]))
    assert [level for level, _ in warned] == [Level.WARNING] * 2
    assert warned[0][1] == f"{tmp_path}/none: there is no such directory"
    assert "trusted_public_keys names no key" in warned[1][1]
    trusting = NixSettings(substituters=[f"file://{tmp_path}?trusted=1"])
    assert of_caches(trusting) == [(Level.FINE, f"file://{tmp_path}")]


def test_a_proxy_of_the_operators_network_knows_more_names(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"ActiveState": "active", "SubState": "running", "Environment": "A=b HTTPS_PROXY=http://proxy.corp:3128"}
    monkeypatch.setattr(units, "properties", lambda *_: said)
    settings = NixSettings(
        substituters=["https://cache.example"], trusted_public_keys=["k-1:x"], fetch=["gone.example"]
    )
    assert {each.level for each in found(settings)} == {Level.FINE}


def test_hosts_that_can_be_reached() -> None:
    (finding,) = found(
        NixSettings(fetch=["good.example", "mirror.corp:8080"], fetch_inside=["10.1.2.0/24"]),
        good=["140.82.121.3"],
        mirror=["10.1.2.3"],
    )
    assert finding.level is Level.FINE
    assert finding.detail.endswith("(it has none) are downloaded from good.example, mirror.corp:8080")


def test_hosts_that_cannot() -> None:
    warned = found(
        NixSettings(fetch=["gone.example", "inside.example", "good.example"]), inside=["10.0.0.1"], good=["1.1.1.1"]
    )
    assert [finding.level for finding in warned] == [Level.WARNING] * 2
    assert "gone.example cannot be resolved" in warned[0].detail
    assert "inside.example is 10.0.0.1 here, which is no address of the Internet" in warned[1].detail
    assert "fetch_inside" in warned[1].remedy


@pytest.mark.parametrize(("state", "levels"), [("running", [Level.FINE]), ("exited", [Level.FINE, Level.WARNING])])
def test_the_proxy_of_a_unit(monkeypatch: pytest.MonkeyPatch, state: str, levels: list[Level]) -> None:
    monkeypatch.setattr(seat, "owner", lambda _: os.geteuid() + 1)
    monkeypatch.setattr(units, "properties", lambda *_: {"ActiveState": "active", "SubState": state})
    assert [each.level for each in found(replace(NixSettings(), fetch=["good.example"]), good=["1.1.1.1"])] == levels
