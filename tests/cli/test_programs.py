"""Arguments of ``batch``: files, directories, requests and lists. Some are hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import programs
from spoold.cli.asked import Asked
from spoold.client.errors import SpoolError
from spoold.model.errors import ClientError

REQUEST = {"files": [{"name": "run.sh", "content": "echo hi"}]}


def reader(*, inputs: bytes | None = None, **options: Any) -> programs.Reader:
    return programs.Reader(Asked(**options), inputs=inputs)


def requests(*paths: Path, **options: Any) -> dict[str, Any]:
    """Return the requests by the names of their programs."""
    return {each.name: json.loads(each.request()) for each in reader(**options).find(list(paths)).programs}


def names(request: Any) -> set[str]:
    return {file["name"] for file in request["files"]}


def lines(tmp_path: Path, *said: object) -> Path:
    path = tmp_path / "list.jsonl"
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in said))
    return path


def test_a_source_file_is_a_program_of_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("print(1)")
    made = requests(Path("./a.py"), inputs=b"\xff", arguments=("x",), packages=("jq",))
    (request,) = made.values()
    assert list(made) == ["a.py"]
    assert names(request) == {"a.py", "run.sh", "cutor.nix"}
    assert (request["inputs_encoding"], request["args"]) == ("base64", ["x"])
    (shell,) = (each["content"] for each in request["files"] if each["name"] == "cutor.nix")
    assert "pkgs.python3 pkgs.jq" in shell


def test_a_directory_is_a_program_or_has_some(tmp_path: Path) -> None:
    for name in ("one/run.sh", "two/cutor.nix", "two/x.py", "c.py", "notes.txt", ".hidden.py", "three/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("true")
    (tmp_path / "r.json").write_text(json.dumps(REQUEST))
    found = reader().find([tmp_path])
    assert [each.name for each in found.programs] == ["c.py", "one", "r.json", "two"]
    assert found.left_out == [str(tmp_path / "notes.txt"), str(tmp_path / "three")]
    assert list(requests(tmp_path / "one")) == [str(tmp_path / "one")]


def test_a_request_is_sent_as_it_is(tmp_path: Path) -> None:
    """It is sent to the byte, so that its id changes with nothing else. Options change it."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps(REQUEST, indent=3))
    (program,) = reader().find([path]).programs
    assert program.request() == path.read_bytes()
    assert requests(path, variables=("A=1",))[str(path)]["env"] == {"A": "1"}


def test_a_list_has_requests_paths_and_sources(tmp_path: Path) -> None:
    (tmp_path / "sim.py").write_text("print(1)")
    said = lines(
        tmp_path,
        {"name": "a", "request": REQUEST, "args": ["1"]},
        {"name": "b", "path": "sim.py", "args": ["2"]},
        "",
        {"name": "c.py", "source": "print(3)"},
        {"name": "d", "source": "print(4)", "language": "python", "limits": {"run": {"time": 3}}},
        {"name": "e", "source": "print(5)", "file": "x.py", "env": {"A": "1"}},
        {"path": "sim.py"},
        {"source": "print(6)", "file": "y.py"},
    )
    made = requests(said)
    assert list(made) == ["a", "b", "c.py", "d", "e", "sim.py", "line 8"]
    assert (made["a"]["args"], made["b"]["args"]) == (["1"], ["2"])
    assert names(made["c.py"]) == {"c.py", "run.sh", "cutor.nix"}
    assert names(made["d"]) == {"main.py", "run.sh", "cutor.nix"}
    assert made["d"]["limits"] == {"run": {"time": 3}}
    assert (names(made["e"]), made["e"]["env"]) == ({"x.py", "run.sh", "cutor.nix"}, {"A": "1"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1: it is no JSON"),
        ("[" * 100_000, "line 1: it is no JSON"),
        ("[1]", "each line has to be an object"),
        ({"name": 3, "source": "x"}, "name: it has to be a string"),
        ({"name": "x"}, "one of request, path and source"),
        ({"name": "x", "path": "a", "source": "b"}, "one of request, path and source"),
        ({"name": "x", "path": "a", "stdin": "b"}, "stdin: there is no such key"),
        ({"name": "x", "path": 7}, "path: it has to be the path"),
        ({"name": "x", "path": "a\0.py"}, "path: it has to be the path"),
        ({"name": "x", "path": "a\ud800.py"}, "path: it has to be the path"),
    ],
)
def test_a_list_that_is_wrong_names_the_line(tmp_path: Path, line: object, reason: str) -> None:
    with pytest.raises(ClientError, match=reason.replace("[", r"\[")):
        reader().find([lines(tmp_path, line)])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"request": [1]}, "has to be an object"),
        ({"request": {"files": 3}}, "files"),
        ({"request": {}}, "run.sh"),
        ({"request": REQUEST, "args": "x"}, "args"),
        ({"source": 3, "file": "x.py"}, "source: it has to be a string"),
        ({"source": "x", "file": "../x.py"}, "it has to be the name of one file"),
        ({"source": "x", "file": "x.unheard"}, "no known language has the ending .unheard"),
        ({"source": "x", "language": "unheard"}, "no such language"),
        ({"source": "x\ud800", "file": "x.py"}, "not text"),
        ({"path": "missing.py"}, "No such file"),
    ],
)
def test_what_is_wrong_with_one_program_is_said_of_that_one(tmp_path: Path, line: object, reason: str) -> None:
    (program,) = reader().find([lines(tmp_path, {"name": "x", **line} if isinstance(line, dict) else line)]).programs
    with pytest.raises((ClientError, OSError), match=reason):
        program.request()


def test_two_programs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="two programs have that name"):
        reader().find([lines(tmp_path, {"name": "x", "source": "1"}, {"name": "x", "source": "2"})])


def test_names_that_are_hostile(tmp_path: Path) -> None:
    """A name may have newlines and bytes that are not text. Files that are left out are listed escaped."""
    hostile = [b"a\nb.py", b"\x1b[31m.py", b"\xff.py", b"x\ny.txt"]
    for name in hostile:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("print(1)")
    found = reader().find([tmp_path])
    assert {os.fsencode(each.name) for each in found.programs} == set(hostile[:3])
    assert found.left_out == [f"{tmp_path}/x\\ny.txt"]
    refused = 0
    for program in found.programs:
        try:
            program.request()
        except (ClientError, SpoolError) as error:
            refused += "files" in str(error) or "UTF-8" in str(error)
    assert refused == 3, "a file of a request cannot have such a name"


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    """The folder may belong to another person who wants to see our files. A link that is named itself is followed."""
    (tmp_path / "secret").write_text("print('secret')")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "a.py").symlink_to("../secret")
    (tmp_path / "folder" / "b").symlink_to("../other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.sh").write_text("secret")
    (tmp_path / "folder" / "inner" / "run.sh").write_text("true")
    (tmp_path / "folder" / "c").symlink_to("inner")
    programs = {each.name: each for each in reader().find([tmp_path / "folder"]).programs}
    for name in ("a.py", "b"):
        with pytest.raises(ClientError, match="is a link out of the directory"):
            programs[name].request()
    assert names(json.loads(programs["c"].request())) == {"run.sh"}
    assert "a.py" in names(next(iter(requests(tmp_path / "folder" / "a.py").values())))


def test_what_cannot_travel_is_left_out_where_asked(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("true")
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(".")
    (program,) = reader().find([tmp_path]).programs
    with pytest.raises(ClientError, match=r"loop: .*out: "):
        program.request()
    (program,) = programs.Reader(Asked(), leave_out=True).find([tmp_path]).programs
    assert names(json.loads(program.request())) == {"run.sh"}


def test_a_directory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        reader().find([lines(tmp_path).with_name("missing.jsonl")])
