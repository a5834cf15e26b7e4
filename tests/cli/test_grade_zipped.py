"""``spoolctl grade PACKAGE.zip``: problem packages in archives, also broken and hostile ones."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from spoold.cli import exits
from spoold.cli.grading import testdata, zipped
from spoold.cli.grading.package import load
from spoold.model.errors import ClientError
from tests.actors.bench import Bench
from tests.grading import grade, ran

PACKAGE = {
    "problem.yaml": "name: x",
    ".timelimit": "60",
    "data/secret/1.in": "1 2\n",
    "data/secret/1.ans": "3\n",
    "submissions/accepted/a.py": "print(sum(map(int, input().split())))",
    "submissions/wrong_answer/b.py": "print(4)",
}


def archive(path: Path, files: Mapping[str, str], *, top: str = "") -> Path:
    """Make an archive. A text ``-> PATH`` is a link."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            member = zipfile.ZipInfo(top + name)
            member.external_attr = (stat.S_IFLNK | 0o777 if text.startswith("-> ") else stat.S_IFREG | 0o755) << 16
            made.writestr(member, text.removeprefix("-> "))
    return path


@pytest.mark.parametrize(("name", "top"), [("sum.zip", "sum/"), ("sum.kpp", "")])
def test_the_package_in_an_archive_is_graded(bench: Bench, tmp_path: Path, name: str, top: str) -> None:
    path = archive(tmp_path / name, PACKAGE, top=top)
    done = grade(bench, path)
    assert "2 of 2 as the package says" in done.stdout
    count = len(ran(bench))
    assert "2 had been run before" in grade(bench, path).stdout
    assert len(ran(bench)) == count


def test_errors_name_the_archive(bench: Bench, tmp_path: Path) -> None:
    path = archive(tmp_path / "sum.zip", {"problem.yaml": "limits: 3"}, top="sum/")
    assert (
        f"spoolctl: {path}/sum/problem.yaml: limits: it has to be a map\n"
        == grade(bench, path, code=exits.FAILED).stderr
    )


def test_links_and_modes_in_an_archive(tmp_path: Path) -> None:
    links = {"data/secret/2.in": "-> 1.in", "data/secret/2.ans": "-> 1.ans", "out": "-> /etc"}
    with zipped.unpacked(archive(tmp_path / "x.zip", PACKAGE | links)) as top:
        assert [test.name for test in testdata.load(load(top)).tests] == ["secret/1", "secret/2"]
        assert (top / "problem.yaml").stat().st_mode & 0o100
    assert not top.exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../problem.yaml": ""}, "the name '../problem.yaml' in it leads out of it"),
        ({"/etc/x": ""}, "the name '/etc/x' in it leads out of it"),
        ({"a": "-> /tmp", "a/x": "y"}, "it cannot be unpacked: File exists"),
        ({"readme": ""}, "there is no problem.yaml in it"),
        ({"a/problem.yaml": "", "b/problem.yaml": ""}, "there is no problem.yaml in it"),
        ({}, "there is no problem.yaml in it"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    path = archive(tmp_path / "x.zip", files)
    with pytest.raises(ClientError) as caught, zipped.unpacked(path):
        pass
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = archive(tmp_path / "x.zip", {**PACKAGE, "a": f"-> {tmp_path / 'out'}", "a/x": "y"})
    with pytest.raises(ClientError), zipped.unpacked(path):
        pass
    assert not any((tmp_path / "out").iterdir())


def test_what_is_no_archive_is_said(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "x.zip: it cannot be unpacked: " in grade(bench, tmp_path / "x.zip", code=exits.FAILED).stderr
    path = archive(tmp_path / "y.zip", PACKAGE)
    data = bytearray(path.read_bytes())
    data[40:60] = bytes(20)
    path.write_bytes(data)
    assert "y.zip: it cannot be unpacked: " in grade(bench, path, code=exits.FAILED).stderr


def test_an_archive_that_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "x.zip", PACKAGE | {"big": "0" * (1 << 20)})
    monkeypatch.setattr(zipped, "MOST", 1 << 19)
    with pytest.raises(ClientError, match=r"x\.zip: it has more than 0 MiB when it is unpacked"), zipped.unpacked(path):
        pass
    monkeypatch.setattr(zipped, "MOST_FILES", 3)
    with pytest.raises(ClientError, match=r"x\.zip: it has more than 3 files"), zipped.unpacked(path):
        pass
