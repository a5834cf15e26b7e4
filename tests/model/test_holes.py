"""Which versions of other programs have known holes, and which only a distribution can tell of."""

from __future__ import annotations

import pytest

from spoold.model import holes


@pytest.mark.parametrize(
    ("program", "version", "count"),
    [
        ("runc", "1.1.11", 2),
        ("runc", "1.1.12", 1),
        ("runc", "1.2.7", 1),
        ("runc", "1.2.8", 0),
        ("runc", "1.3.2", 1),
        ("runc", "1.3.3", 0),
        ("runc", "1.4.0", 0),
        ("runc", "1.1.5+ds1-1+deb12u1", 2),
        ("Nix", "2.8.0", 3),
        ("Nix", "2.3.18", 2),
        ("Nix", "2.18.2", 2),
        ("Nix", "2.19.3", 3),
        ("Nix", "2.24.9", 2),
        ("Nix", "2.28.5", 2),
        ("Nix", "2.28.6", 1),
        ("Nix", "2.28.8", 0),
        ("Nix", "2.29.9", 1),
        ("Nix", "2.34.5", 1),
        ("Nix", "2.34.9", 0),
        ("Nix", "2.36.0", 0),
        ("crun", "1.8.1", 0),
        ("something else", "0.1", 0),
        ("runc", "unknown", 2),
    ],
)
def test_holes_by_number(program: str, version: str, count: int) -> None:
    assert len(holes.of(program, version)) == count


@pytest.mark.parametrize(
    "version", ["1.1.5+ds1-1+deb12u1", "1.1.12-0ubuntu3", "20.10.24+dfsg1", "1.1.12-4.el9", "1.2.4-1.fc41", "1:1.1~a"]
)
def test_marks_of_distributions(version: str) -> None:
    assert holes.of_distribution(version)


@pytest.mark.parametrize("version", ["1.1.11", "1.4.0-rc.3", "27.3.1", "2.24.9", "2.25pre20241101", ""])
def test_versions_as_they_are_released(version: str) -> None:
    assert not holes.of_distribution(version)
