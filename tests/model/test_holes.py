"""Versions of other programs with known holes, and versions that only a distribution can judge."""

from __future__ import annotations

import datetime

import pytest

from spoold.model import holes
from spoold.model.findings import Level


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
        ("Nix", "2.8.0", 3),
        ("Nix", "2.3.18", 2),
        ("Nix", "2.18.2", 3),
        ("Nix", "2.19.3", 4),
        ("Nix", "2.24.3", 3),
        ("Nix", "2.24.9", 4),
        ("Nix", "2.24.15", 3),
        ("Nix", "2.28.5", 3),
        ("Nix", "2.28.6", 2),
        ("Nix", "2.28.7", 1),
        ("Nix", "2.28.8", 0),
        ("Nix", "2.33.9", 1),
        ("Nix", "2.34.5", 2),
        ("Nix", "2.34.7", 1),
        ("Nix", "2.34.9", 0),
        ("Nix", "2.36.0", 0),
        ("Lix", "2.95.3", 1),
        ("Lix", "2.95.4", 0),
        ("Docker Engine", "20.10.24+dfsg1", 4),
        ("Docker Engine", "28.5.2", 4),
        ("Docker Engine", "29.5.1", 1),
        ("Docker Engine", "29.7.0", 0),
        ("containerd", "1.6.38", 1),
        ("containerd", "1.7.24~ds1", 1),
        ("containerd", "v1.7.29", 0),
        ("containerd", "2.1.4", 1),
        ("containerd", "2.1.9+unknown", 0),
        ("containerd", "2.3.0", 0),
        ("crun", "1.8.1", 0),
        ("something else", "0.1", 0),
        ("runc", "unknown", 4),
        ("Nix", "unknown", 5),
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


def test_the_table_says_of_what_day_it_is() -> None:
    assert max(hole.published for known in holes.HOLES.values() for hole in known) <= holes.TAKEN
    assert f"no known holes, as of {holes.TAKEN}" in holes.finding("runc", "1.4.0").detail
    assert f"known holes, as of {holes.TAKEN}: " in holes.finding("runc", "1.1.11").detail


OLD, FIXED = "1.1.5+ds1-1+deb12u1", "CVE-2024-21626, CVE-2025-31133 (GHSA-qw9x-cqr3-wc7r), CVE-2025-52881"


@pytest.mark.parametrize(
    ("version", "packaged", "changelog", "level", "words"),
    [
        # the distribution mends without another number, and its changelog says so
        ("1.1.5+ds1", OLD, FIXED, Level.FINE, "its changelog says that it mends CVE-2024-21626, "),
        ("1.1.5+ds1", OLD, "fix CVE-2024-21626", Level.WARNING, "CVE-2025-31133"),
        ("1.1.5+ds1", OLD, "fix CVE-2024-216260", Level.WARNING, "CVE-2024-21626 ("),
        ("1.1.5+ds1", OLD, "new release", Level.WARNING, "the package's changelog does not name them"),
        ("1.1.5+ds1", OLD, "", Level.WARNING, "a distribution may have mended them"),
        # an engine's own runtime is not the one that is packaged
        ("1.2.7", OLD, FIXED, Level.REFUSED, "CVE-2025-31133"),
        ("1.1.11", "", FIXED, Level.REFUSED, "CVE-2025-31133"),
    ],
)
def test_a_distribution_is_taken_at_the_word_of_its_changelog(
    version: str, packaged: str, changelog: str, level: Level, words: str
) -> None:
    found = holes.finding("runc", version, packaged, changelog)
    assert (found.level, words in found.detail) == (level, True), found


def test_what_is_mended_is_not_held_against_a_package() -> None:
    assert "CVE-2024-21626" not in holes.finding("runc", "1.1.5+ds1", OLD, "fix CVE-2024-21626").detail


@pytest.mark.parametrize("program", ["Docker Engine", "containerd"])
def test_a_hole_that_no_job_reaches_is_a_warning_and_says_who_does(program: str) -> None:
    found = holes.finding(program, "1.0.0")
    assert (found.level, ", only " in found.detail) == (Level.WARNING, True)
    assert found.detail.count(holes.DOCKER_CP) == (program == "Docker Engine"), "once for all of its kind"


def test_the_fix_that_mends_all_is_named() -> None:
    assert holes.finding("Docker Engine", "28.5.2").remedy == "upgrade to 29.7.0 or later"
    assert holes.finding("Nix", "2.24.3").remedy == "upgrade to 2.34.9 or 2.35.3 or later"


@pytest.mark.parametrize(
    "version", ["1.1.5+ds1-1+deb12u1", "1.1.12-0ubuntu3", "20.10.24+dfsg1", "1.1.12-4.el9", "1.2.4-1.fc41", "1:1.1~a"]
)
def test_marks_of_distributions(version: str) -> None:
    assert holes.of_distribution(version)


@pytest.mark.parametrize("version", ["1.1.11", "1.4.0-rc.3", "27.3.1", "2.24.9", "2.25pre20241101", ""])
def test_versions_as_they_are_released(version: str) -> None:
    assert not holes.of_distribution(version)
