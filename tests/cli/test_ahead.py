"""spoolctl deps build: clients build shells ahead, each once, and nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits, warm
from spoold.cli.warm import Shell
from spoold.model.errors import ClientError
from spoold.model.submission import DEFAULT_EXPRESSION
from tests.actors.bench import Bench
from tests.turning import ctl

RUN = {"name": "run.sh", "content": "echo hi"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def request(path: Path, *expressions: str, **keys: Any) -> Path:
    files = [RUN, *({"name": "cutor.nix", "content": each} for each in expressions)]
    return write(path, json.dumps({"files": files, **keys}))


def found(*sources: Path) -> warm.Wanted:
    return warm.find(sources, "default", 1000)


def test_shells_are_built_ahead(bench: Bench, tmp_path: Path) -> None:
    shells = tmp_path / "shells"
    write(shells / "a.nix", "# a")
    write(shells / "b.nix", "# b")
    write(shells / "notes.txt", "")
    shown = ctl(bench, "deps", "build", str(shells), "--wait")
    assert shown.count("ok") == 2
    assert len(bench.backend.built) == 2
    bench.drop("a", expression="# a")
    bench.until(lambda: bench.has("done", "a.response.json"), lambda: None)
    assert bench.response("a")["dependencies"]["cached"]
    assert len(bench.backend.built) == 2, "the shell was built already"
    assert len(bench.sandbox.jobs) == 1, "only the submission was run"
    assert "cached" in ctl(bench, "deps", "build", str(shells), "--wait")


def test_what_failed_says_why(bench: Bench, tmp_path: Path) -> None:
    words = ("deps", "build", str(write(tmp_path / "c.nix", "broken")), "--wait")
    (failed,) = json.loads(ctl(bench, *words, "--json", code=exits.NOT_COMPLETED))["builds"]
    assert failed["response"]["dependencies"]["outcome"] == "nonzero_exit"
    assert failed["build_id"] is None
    assert "undefined variable" in ctl(bench, *words, code=exits.NOT_COMPLETED)
    assert "there is no pin called" in ctl(bench, *words, "--nixpkgs", "none", code=exits.NOT_COMPLETED)


def test_a_wait_for_builds_is_bounded(bench: Bench, tmp_path: Path) -> None:
    bench.backend.gate.clear()
    words = ("deps", "build", str(write(tmp_path / "a.nix", "# a")), "--wait", "--timeout", "0.3")
    shown = ctl(bench, *words, code=exits.TIMED_OUT)
    assert "not yet" in shown
    assert "The builds continue" in shown


def test_without_a_wait_it_says_where_to_ask(bench: Bench, tmp_path: Path) -> None:
    (asked,) = json.loads(ctl(bench, "deps", "build", str(write(tmp_path / "a.nix", "# a")), "--json"))["builds"]
    id_ = asked["Submission_id"]
    bench.until(lambda: bench.has("done", f"{id_}.response.json"), lambda: None)
    response = bench.response(id_)
    assert response["status"] == "COMPLETED"
    assert response["build_id"] in bench.builds.finished()
    assert {response[phase]["outcome"] for phase in ("compile", "run")} == {"skipped"}
    assert id_ in json.loads(ctl(bench, "status", id_, "--json"))["Submission_id"]


def test_a_class_is_built_ahead(bench: Bench, tmp_path: Path) -> None:
    room = tmp_path / "week 3"
    for name in ("ann", "bob"):
        write(room / name / "run.sh", "echo hi")
        write(room / name / "cutor.nix", "# numpy")
        write(room / name / "other.nix", "# imported by nothing")
    request(room / "cy.json", "# numpy")
    request(room / "dan.json", "# lua")
    write(room / "eve.json", "{")
    shown = ctl(bench, "deps", "build", str(room), "--wait", "--json", code=exits.NOT_COMPLETED)
    told = json.loads(shown)
    assert len(bench.backend.built) == 2
    assert [len(each["sources"]) for each in told["builds"]] == [3, 1]
    (left,) = told["left_out"]
    assert left["source"].endswith("eve.json")
    assert "left out" in ctl(bench, "deps", "build", str(room), code=exits.OK)


def test_each_shell_is_wanted_once(tmp_path: Path) -> None:
    a, b = write(tmp_path / "x" / "a.nix", "# a"), write(tmp_path / "x" / "b.nix", "# a")
    other = request(tmp_path / "y.json", "# a", nixpkgs="24.11")
    wanted = found(tmp_path / "x", other)
    assert wanted.shells == {Shell("# a", "default"): [a, b], Shell("# a", "24.11"): [other]}
    assert warm.names([Path("a")] * 5) == "a, a, a and 2 more"


def test_a_submission_without_a_shell_has_the_default_one(tmp_path: Path) -> None:
    write(tmp_path / "run.sh", "echo hi")
    assert list(found(tmp_path).shells) == [Shell(DEFAULT_EXPRESSION, "default")]


def test_a_checker_has_a_shell_of_its_own(tmp_path: Path) -> None:
    checker = {"files": [RUN, {"name": "cutor.nix", "content": "# checker"}]}
    path = request(tmp_path / "a.json", "# a", cases=[{"name": "1"}], checker=checker)
    assert [shell.expression for shell in found(path).shells] == ["# a", "# checker"]


def test_folders_are_looked_through_and_no_link_is_followed(tmp_path: Path) -> None:
    deep = write(tmp_path / "one" / "two" / "a.nix", "# a")
    write(tmp_path / "one" / ".git" / "b.nix", "# b")
    (tmp_path / "one" / "loop").symlink_to(tmp_path)
    (tmp_path / "one" / "c.nix").symlink_to(deep)
    assert found(tmp_path / "one").shells == {Shell("# a", "default"): [deep]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.nix", b"\xff", "not UTF-8"),
        ("x.nix", b"#" * (1024 * 1024 + 1), "more than 1048576 characters"),
        ("x.json", b"{", "it is not a request"),
        ("x.json", b'{"files": []}', "run.sh"),
        ("x.json", b'{"kind": "list-dependencies"}', "nothing to build"),
    ],
)
def test_what_names_no_shell(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """A file that is named on the command line must be a shell. In a folder, such a file is left out with a reason."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClientError, match=words) as raised:
        found(tmp_path / name)
    assert name in str(raised.value)
    (left,) = found(tmp_path).left_out
    assert words in left.reason


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no shell, request or submission"):
        found(tmp_path)
