"""A file of exported environments: how it is packed and unpacked. Neither step needs trust."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from spoold.cli import carry
from spoold.model import formats
from spoold.model.environments import Carried, Environments
from spoold.model.errors import ClientError, NewerFormatError, OperatorError
from tests.standins import store_path

HASH, CONTENT = 32 * "a", 52 * "b"
NAR = f"nar/{CONTENT}.nar.zst"
BUILD = Carried(build_id=64 * "1", expression="# a", pin="default", nixpkgs=store_path("nixpkgs"))
FOR = Environments(system="x86_64-linux", runtime=[store_path("bash")], builds=[BUILD])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    (made / "nar").mkdir(parents=True)
    (made / "log").mkdir()
    (made / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    (made / f"{HASH}.narinfo").write_text(f"StorePath: {store_path('x')}\n")
    (made / NAR).write_bytes(b"content")
    return made


def signed(directory: Path) -> None:
    (directory / "log").mkdir()
    for path in directory.glob("*.narinfo"):
        path.write_text(path.read_text() + "Sig: exam-1:abc=\n")


def packed(cache: Path, scratch: Path) -> bytes:
    scratch.mkdir()
    file = io.BytesIO()
    carry.pack(file, FOR, cache, signed, scratch)
    return file.getvalue()


def unpacked(data: bytes, directory: Path) -> Environments:
    directory.mkdir()
    return carry.unpack(io.BytesIO(data), directory)


def made(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


LIST = (carry.LIST, formats.encode(FOR))


def test_what_is_packed_is_unpacked(cache: Path, tmp_path: Path) -> None:
    data = packed(cache, tmp_path / "scratch")
    found = unpacked(data, tmp_path / "to")
    assert (found.builds, found.runtime, found.format) == (FOR.builds, FOR.runtime, 1)
    assert (tmp_path / "to" / NAR).read_bytes() == b"content"
    assert carry.signers(tmp_path / "to") == {"exam-1"}
    assert sorted(os.listdir(tmp_path / "to")) == [f"{HASH}.narinfo", "nar", "nix-cache-info"]
    assert "Sig" not in (cache / f"{HASH}.narinfo").read_text(), "the builder's own files are not touched"


@pytest.mark.parametrize("name", [NAR, f"{HASH}.narinfo"])
def test_no_link_of_the_builders_is_followed(cache: Path, tmp_path: Path, name: str) -> None:
    (cache / name).unlink()
    (cache / name).symlink_to("/etc/shadow")
    with pytest.raises(OSError, match="symbolic links"):
        packed(cache, tmp_path / "scratch")


def test_nothing_that_is_no_file_is_waited_for(cache: Path, tmp_path: Path) -> None:
    (cache / NAR).unlink()
    os.mkfifo(cache / NAR)
    with pytest.raises(OperatorError, match="no regular file"):
        packed(cache, tmp_path / "scratch")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "x", "nar/../x", "nar/x", f"nar/../{NAR}", f"x/{HASH}.narinfo", "log/x"]
)
def test_no_other_name_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientError, match="is no file that an export has"):
        unpacked(made(LIST, (name, b"x")), tmp_path / "to")
    assert os.listdir(tmp_path) == ["to"]
    assert os.listdir(tmp_path / "to") == ["nar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_nothing_but_regular_files_is_made(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ClientError, match="is no file that an export has"):
        unpacked(made((NAR, b""), kind=kind), tmp_path / "to")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a part of one"),
        (b"no tar" * 200, "a part of one"),
        (made(LIST)[:600], "a part of one"),
        (made((NAR, b"x")), "environments.json is missing"),
        (made(LIST, (NAR, b"x"), (NAR, b"y")), "a part of one"),
        (made((carry.LIST, b'{"format": 1, "system": "x"}')), "cannot be read"),
        (made((carry.LIST, b"{")), "cannot be read"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        unpacked(data, tmp_path / "to")


def test_what_is_read_as_a_whole_is_not_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names its signers, and these are read from all of it before any signature is checked."""
    monkeypatch.setattr(carry, "MOST", 1000)
    assert unpacked(made(LIST, (NAR, bytes(1001)), (f"{HASH}.narinfo", bytes(1000))), tmp_path / "to")
    for name in (f"{HASH}.narinfo", carry.INFO):
        with pytest.raises(ClientError, match="1001 bytes, and at most 1000 are read"):
            unpacked(made(LIST, (name, bytes(1001))), tmp_path / f"to-{name}")


def test_a_newer_file_is_for_a_newer_version(tmp_path: Path) -> None:
    with pytest.raises(NewerFormatError):
        unpacked(made((carry.LIST, b'{"format": 9}')), tmp_path / "to")
