"""Other programs can read a tar of returned files, which is the same each time."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from spoold.model.outputs import directories
from spoold.spool.tar import Tar
from tests.returned import made


@pytest.mark.parametrize("sizes", [(), (0,), (1, 511, 512, 513), (100_000, 0, 10_239)])
def test_it_is_what_it_says_of_itself(sizes: tuple[int, ...]) -> None:
    contents = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    tar = Tar({"": made(*contents)})
    data = b"".join(tar)
    assert (len(tar), tar.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) % tarfile.RECORDSIZE == 0
    assert b"".join(tar) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        found = {each.name: (read.extractfile(each) or io.BytesIO()).read() for each in read}
    assert found == {str(number): content for number, content in enumerate(contents)}


NAMES = [
    "small",
    "a/b",
    "../up",
    "..",
    ".",
    "-rf",
    "Small",
    "\u00e9",
    "e\u0301",
    " ",
    "a\\b",
    "\U0001f600" * 100,
    "%2E",
]


def test_cases_of_any_name_lie_below_where_it_is_unpacked(tmp_path: Path) -> None:
    places = directories(NAMES)
    tar = Tar({f"{place}/": made(name.encode()) for place, name in zip(places, NAMES, strict=True)})
    subprocess.run(["tar", "xC", tmp_path], input=b"".join(tar), check=True)
    found = {path.parent.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == dict(zip(places, NAMES, strict=True))
    assert {path.parent.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path}
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar))) as read:
        read.extraction_filter = getattr(tarfile, "data_filter", None)  # refuses members that lead elsewhere
        read.extractall(tmp_path / "again")  # noqa: S202 - as above
    assert len(list((tmp_path / "again").iterdir())) == len(NAMES)


def test_another_program_reads_it_and_several_runs_have_directories(tmp_path: Path) -> None:
    tar = Tar({"first/": made(b"1"), "second/": made(b"2", b"3")})
    subprocess.run(["tar", "xC", tmp_path], input=b"".join(tar), check=True)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"first/0": b"1", "second/0": b"2", "second/1": b"3"}
