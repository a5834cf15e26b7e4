"""Versions of other programs with known holes, and versions that only a distribution can judge."""

from __future__ import annotations

import datetime

import pytest

from spoold.model import holes


@pytest.mark.parametrize(
    ("program", "version", "count"),
    [
        ("runc", "1.1.11", 4),
        ("runc", "1.1.12", 3),
        ("runc", "1.2.7", 3),
        ("runc", "1.2.8", 0),
        ("runc", "1.3.2", 3),
        ("runc", "1.3.3", 0),
        ("runc", "1.4.0", 0),
        ("runc", "1.1.5+ds1-1+deb12u1", 4),
        ("Nix", "2.8.0", 2),
        ("Nix", "2.3.18", 1),
        ("Nix", "2.18.2", 2),
        ("Nix", "2.19.3", 3),
        ("Nix", "2.24.3", 2),
        ("Nix", "2.24.9", 3),
        ("Nix", "2.24.15", 2),
        ("Nix", "2.28.5", 2),
        ("Nix", "2.28.6", 1),
        ("Nix", "2.28.7", 0),
        ("Nix", "2.34.5", 1),
        ("Nix", "2.34.7", 0),
        ("Nix", "2.36.0", 0),
        ("crun", "1.8.1", 0),
        ("something else", "0.1", 0),
        ("runc", "unknown", 4),
        ("Nix", "unknown", 4),
    ],
)
def test_holes_by_number(program: str, version: str, count: int) -> None:
    assert len(holes.of(program, version)) == count


@pytest.mark.parametrize("hole", [hole for known in holes.HOLES.values() for hole in known], ids=lambda hole: hole.name)
def test_each_hole_says_since_when_it_is_known_and_where_that_stands(hole: holes.Hole) -> None:
    assert datetime.date.fromisoformat(hole.published)
    assert hole.source.startswith("https://")
    assert list(hole.fixed) == sorted(hole.fixed, key=holes.numbers)


def test_an_operator_is_told_of_what_day_it_is_and_where_to_read_on() -> None:
    assert "CVE-2024-21626 (2024-01-31, https://" in holes.finding("runc", "1.1.11").detail


@pytest.mark.parametrize(
    "version", ["1.1.5+ds1-1+deb12u1", "1.1.12-0ubuntu3", "20.10.24+dfsg1", "1.1.12-4.el9", "1.2.4-1.fc41", "1:1.1~a"]
)
def test_marks_of_distributions(version: str) -> None:
    assert holes.of_distribution(version)


@pytest.mark.parametrize("version", ["1.1.11", "1.4.0-rc.3", "27.3.1", "2.24.9", "2.25pre20241101", ""])
def test_versions_as_they_are_released(version: str) -> None:
    assert not holes.of_distribution(version)
