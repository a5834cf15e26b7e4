"""The package of a program as the package manager tells it, and the package's changelog."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from spoold.host import packages

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this system has no dpkg")


@pytest.mark.parametrize("name", ["changelog.Debian.gz", "changelog.gz"])
def test_a_package_has_a_version_and_a_changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "dpkg").mkdir()
    (tmp_path / "dpkg" / name).write_bytes(gzip.compress(b"fix CVE-2000-0001"))
    monkeypatch.setattr(packages, "DOCUMENTS", str(tmp_path))
    version, changelog = packages.of("dpkg-query")
    assert version[:1].isdigit()
    assert changelog == "fix CVE-2000-0001"


@pytest.mark.parametrize("content", [None, b"", b"no gzip", gzip.compress(b"long" * 100)[:-20]])
def test_a_changelog_that_is_missing_or_broken_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "dpkg").mkdir()
        (tmp_path / "dpkg/changelog.Debian.gz").write_bytes(content)
    monkeypatch.setattr(packages, "DOCUMENTS", str(tmp_path))
    assert packages.of("dpkg-query").changelog == ""


def test_a_program_of_no_package(tmp_path: Path) -> None:
    assert packages.of(str(tmp_path / "runc")) == packages.NONE
