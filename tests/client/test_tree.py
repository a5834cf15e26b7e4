"""A directory as a request: what is sent, what is refused by name, and what a stranger's directory cannot do."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from spoold import client
from spoold.client import tree
from spoold.client.request import File, as_bytes
from spoold.model.dropped import read_request


@pytest.fixture
def program(tmp_path: Path) -> Path:
    root = tmp_path / "program"
    root.mkdir()
    (root / "run.sh").write_text("true")
    return root


def names(root: Path) -> dict[str, File]:
    found = tree.read(root)
    assert not found.problems
    return {file["name"]: file for file in found.files}


def problems(root: Path) -> dict[str, str]:
    return {problem.name: problem.why for problem in tree.read(root).problems}


def test_all_of_it_travels(program: Path) -> None:
    (program / "sub" / "empty").mkdir(parents=True)
    (program / ".hidden").write_text("h")
    (program / "sub" / ".env").write_text("e")
    (program / "tool").write_text("x")
    (program / "tool").chmod(0o755)
    (program / "data").write_bytes(b"\xff\x00")
    found = names(program)
    assert set(found) == {"run.sh", "sub/empty/", ".hidden", "sub/.env", "tool", "data"}
    assert (found["tool"].get("executable"), found["data"].get("encoding")) == (True, "base64")
    request = client.from_directory(program, b"in", args=["a"])
    read = read_request(as_bytes(request), max_files=10, pins=frozenset({"default"}))
    assert (read.stdin(), read.args, len(read.files)) == (b"in", ["a"], 6)


def test_links_in_it_are_followed(program: Path) -> None:
    (program / "lib").mkdir()
    (program / "lib" / "a").write_text("content")
    (program / "b").symlink_to("lib/a")
    (program / "more").symlink_to("lib")
    (program / "absolute").symlink_to(program / "lib" / "a")
    found = names(program)
    assert set(found) == {"run.sh", "lib/a", "b", "more/a", "absolute"}
    assert {found[name]["content"] for name in ("b", "more/a", "absolute", "lib/a")} == {"content"}


def test_what_cannot_travel_is_named(program: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "others").mkdir()
    (program / "out").symlink_to(tmp_path / "secret")
    (program / "outside").symlink_to("../others")
    (program / "gone").symlink_to("nothing")
    (program / "loop").symlink_to(".")
    os.mkfifo(program / "pipe")
    (program / "-x").touch()
    (program / "a\\b").touch()
    (program / "new\nline").touch()
    (program / os.fsdecode(b"\xff")).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(program / "socket"))
    found = problems(program)
    assert "link out of the directory, to " in found["out"]
    assert "link out of the directory, to ../others" in found["outside"]
    assert "which does not exist" in found["gone"]
    assert "directory that contains it" in found["loop"]
    assert "cannot be submitted" in found["pipe"]
    assert "cannot be submitted" in found["socket"]
    assert "begins with '-'" in found["-x"]
    assert "backslash" in found["a\\b"]
    assert "control character" in found["new\\nline"]
    assert "not UTF-8" in found["\\xff"]
    assert len(found) == 10
    with pytest.raises(client.RequestError, match="pipe: is no file"):
        client.from_directory(program)
    assert [file["name"] for file in client.from_directory(program, leave_out=True)["files"]] == ["run.sh"]


def test_a_link_that_leads_to_itself_is_named(program: Path) -> None:
    (program / "loop").symlink_to("loop")
    (program / "a").symlink_to("b")
    (program / "b").symlink_to("a")
    assert problems(program) == dict.fromkeys(("loop", "a", "b"), "cannot be read: Too many levels of symbolic links")
    assert [file["name"] for file in client.from_directory(program, leave_out=True)["files"]] == ["run.sh"]


def test_what_cannot_be_read_is_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program / "closed").touch()
    real = os.open

    def refuse(path: str, *args: int, **kwargs: int) -> int:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert problems(program) == {"closed": "cannot be read: Permission denied"}


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory's owner changes it after the look at a name and before the open."""
    (tmp_path / "secret").write_text("s")
    (program / "a").write_text("a")
    real = os.open

    def change(path: str, *args: int, **kwargs: int) -> int:
        if str(path).endswith("/a"):
            (program / "a").unlink()
            (program / "a").symlink_to(tmp_path / "secret")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", change)
    assert "link out of the directory" in problems(program)["a"]


def test_what_no_program_needs_is_left_out_and_said(program: Path) -> None:
    for name in (".git", "sub/.svn", "__pycache__"):
        (program / name).mkdir(parents=True)
        (program / name / "x").touch()
    (program / ".DS_Store").touch()
    (program / ".gitignore").touch()
    found = tree.read(program)
    assert found.left_out == [".DS_Store", ".git", "__pycache__", "sub/.svn"]
    assert [file["name"] for file in found.files] == [".gitignore", "run.sh"]


def test_a_single_folder_as_in_a_zip_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "hw" / "inner").mkdir(parents=True)
    (tmp_path / "hw" / "inner" / "run.sh").touch()
    (tmp_path / "hw" / "__MACOSX").mkdir()
    with pytest.raises(client.RequestError, match=r"The folder inner in it has one: submit .*/hw/inner"):
        client.from_directory(tmp_path / "hw")
    (tmp_path / "hw" / "other").touch()
    with pytest.raises(client.RequestError, match=r"no run\.sh") as caught:
        client.from_directory(tmp_path / "hw")
    assert "in it has one" not in str(caught.value)


def test_links_that_make_many_files_of_few_are_bounded(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = program / "d0"
    inner.mkdir()
    (inner / "f").touch()
    for level in range(1, 30):
        here = program / f"d{level}"
        here.mkdir()
        (here / "a").symlink_to(f"../d{level - 1}")
        (here / "b").symlink_to(f"../d{level - 1}")
    monkeypatch.setattr(tree, "MOST_FILES", 200)
    with pytest.raises(client.RequestError, match="more than 200 files"):
        tree.read(program)


def test_bytes_are_bounded(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_BYTES", 100)
    (program / "large").write_bytes(b"x" * 101)
    with pytest.raises(client.RequestError, match="more than"):
        tree.read(program)
