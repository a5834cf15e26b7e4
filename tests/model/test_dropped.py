"""Requests are read strictly: every bad one is refused with a reason that names the key."""

from __future__ import annotations

import json
import re
import tracemalloc

import pytest

from spoold.model.dropped import read_request
from spoold.model.errors import ClientError, IncompleteError
from spoold.model.outputs import matched_as
from spoold.model.submission import Request

RUN = {"name": "run.sh", "content": "echo"}


def read(data: bytes, max_files: int = 1000) -> Request:
    return read_request(data, max_files=max_files, pins=frozenset({"default", "24.11"}))


def request(**keys: object) -> bytes:
    return json.dumps({"files": [RUN], **keys}).encode()


def named(name: str) -> bytes:
    return request(files=[RUN, {"name": name, "content": ""}])


def test_the_whole_request() -> None:
    made = read(
        request(
            files=[
                RUN,
                {"name": "cutor.nix", "content": "{ }"},
                {"name": "a/b.bin", "content": "AP8=", "encoding": "base64"},
                {"name": "tool", "content": "23210a", "encoding": "hex"},
            ],
            inputs="00ff",
            inputs_encoding="hex",
            args=["--privileged", "", "$(id)"],
            env={"A.b": "1\n2", "LD_PRELOAD": "x"},
            limits={"run": {"time": 2.5, "memory": 1000}},
            nixpkgs="24.11",
            kind="run",
        )
    )
    assert [(f.name, f.content, f.mode) for f in made.job_files()] == [
        ("run.sh", b"echo", 0o755),
        ("cutor.nix", b"{ }", 0o644),
        ("a/b.bin", b"\0\xff", 0o644),
        ("tool", b"#!\n", 0o755),
    ]
    assert made.stdin() == b"\0\xff"
    assert made.expression() == "{ }"
    assert made.args == ["--privileged", "", "$(id)"]


def test_patterns_are_taken_as_they_are_meant() -> None:
    paths = ["out/*.png", "./a", "**", "a/**/b", "**/*.log", "out/**", "?[x]", ".hidden", "\u00e4*"]
    made = read(request(outputs=[{"path": path, "required": None} for path in paths]))
    assert [output.path for output in made.outputs] == ["out/*.png", "a", *paths[2:]]
    matched = [matched_as(output.path) for output in made.outputs]
    assert matched == ["out/*.png", "a", "**/*", "a/**/b", "**/*.log", "out/**/*", *paths[6:]]
    assert read(request(outputs={})).outputs == []


def test_without_an_expression_it_is_the_default_shell() -> None:
    assert "mkShell" in read(request()).expression()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"{",
        request()[:-1],
        b'{"bogus": 1, "fi',
        request() + b"x",
        request() + request(),
        b'{"files": [], "inputs": NaN}',
        b"\0" * 100,
    ],
)
def test_what_is_no_json_value_may_still_be_arriving(data: bytes) -> None:
    with pytest.raises(IncompleteError):
        read(data)


@pytest.mark.parametrize("length", [1, 20, 47, 60])
def test_no_prefix_of_a_request_is_taken_for_a_refusal(length: int) -> None:
    with pytest.raises(IncompleteError):
        read(request(args=["a"])[:length])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"[]", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"{" + b",".join(b'"a%d":1' % n for n in range(1_000_000)) + b"}", "keys and strings"),
        (request(env={f"a{n}": "" for n in range(1_000_000)}), "keys and strings"),
        (request(env={f"a{n}": "" for n in range(5000)}), "env"),
        (b"\xef\xbb\xbf" + request(), "byte order mark"),
        (request().decode().encode("utf-16"), "byte order mark"),
        (request(inputs="X").replace(b"X", b"\xff"), "inputs: byte 0 (0xff) is not UTF-8"),
        (request(bogus=1), "bogus"),
        (request(files=[{**RUN, "mode": 1}]), "mode"),
        (request(limits={"run": {"tme": 1}}), "tme"),
        (request(limits={"run": {"time": -1}}), "limits.run.time"),
        (request(limits={"run": {"memory": 0}}), "limits.run.memory"),
        (request(limits={"run": {"memory": 1.5}}), "limits.run.memory"),
        (request(limits={"run": {"time": 0}}).replace(b'"time": 0', b'"time": 1e400'), "limits.run.time"),
        (request(limits={"run": {"time": 0}}).replace(b": 0}", b": " + b"9" * 5000 + b"}"), "limits.run.time"),
        (request()[:-1] + b', "args": [], "args": []}', "args"),
        (request(env={"A": "1"}).replace(b'"A": "1"', b'"A": "1", "A": "2"'), "'A'"),
        (request(kind="delete"), "kind"),
        (request(priority=101), "priority"),
        (request(priority=-101), "priority"),
        (request(priority=0.5), "priority"),
        (request(priority="1"), "priority"),
        (request(nixpkgs="nope"), "nope"),
        *(
            (request(outputs=[{"path": "*"}, {"path": path}]), "outputs[1].path")
            for path in (
                *(
                    "",
                    "/",
                    "/etc/passwd",
                    "../x",
                    "a/../b",
                    "a//b",
                    "a/",
                    "./",
                    "-rf",
                    "a/-b",
                    "a\\b",
                    "a\nb",
                    "\u2028",
                ),
                *("**/a/**", "a**", "a/**b/c", "***", "**/**"),
            )
        ),
        (request(outputs=[{"required": True}]), "outputs[0].path"),
        (request(outputs=["*"]), "outputs[0]"),
        (request(outputs="*"), "outputs"),
        (request(outputs=[{"path": "*", "required": "yes"}]), "outputs[0].required"),
        (request(outputs=[{"path": "*", "glob": "*"}]), "outputs[0].glob"),
        (request(files=[]), "run.sh"),
        (request(files=[{"name": "main.py", "content": ""}]), "run.sh"),
        (request(files=[RUN, RUN]), "files[1].name"),
        (request(files=[RUN, {"name": "RUN.sh", "content": ""}]), "files[1].name"),
        (request(files=[RUN, {"name": "caf\u00e9", "content": ""}, {"name": "cafe\u0301", "content": ""}]), "files[2]"),
        (request(files=[{"name": "Run.SH", "content": ""}]), "run.sh"),
        (request(files=[{"name": "run.sh", "content": "x", "encoding": "rot13"}]), "encoding"),
        (request(files=[{"name": "run.sh", "content": "abc", "encoding": "hex"}]), "files[0].content"),
        (request(files=[{"name": "run.sh", "content": "zz", "encoding": "hex"}]), "files[0].content"),
        (request(files=[{"name": "run.sh", "content": "YQ=", "encoding": "base64"}]), "files[0].content"),
        (request(files=[{"name": "run.sh", "content": "Y Q==", "encoding": "base64"}]), "files[0].content"),
        (request(inputs="x", inputs_encoding="hex"), "inputs"),
        (request(files=[RUN, {"name": "cutor.nix", "content": "ff", "encoding": "hex"}]), "cutor.nix"),
        (request(files=[RUN, {"name": "cutor.nix", "content": "a\0b"}]), "cutor.nix"),
        (request(args=["a\0b"]), "args[0]"),
        (request(env={"a\0b": "1"}), "env"),
        (request(env={"a": "\0"}), "env"),
        (request(env={"": "1"}), "env"),
        (request(env={"a=b": "1"}), "env"),
        (request(args=["x" * 131_072]), "args[0]"),
        (request(args=["x" * 100_000] * 11), "args"),
        (request(kind="list-dependencies"), "files"),
    ],
)
def test_a_bad_request_is_refused_with_the_key(data: bytes, word: str) -> None:
    with pytest.raises(ClientError, match=re.escape(word)):
        read(data)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        ".",
        "..",
        "",
        "a//b",
        "a//",
        "/",
        "./",
        "../",
        "run.sh/",
        "run.sh/x",
        "x" * 300,
        "/".join(["x" * 200] * 25),
        "a/" * 33 + "x",
        "a\0b",
        "a\nb",
        "a\x1b[31m",
        "-rf",
        "a/-rf",
        "a\\b",
        "a\u2028b",
    ],
)
def test_a_bad_file_name_is_refused(name: str) -> None:
    with pytest.raises(ClientError, match="files"):
        read(named(name))


@pytest.mark.parametrize(
    "name",
    ["a.py", "a/", "a/b/", "sub/dir/a.py", ".hidden", "Ünïcode.txt", "with space", "a..b", "x" * 255, "a/" * 32 + "x"],
)
def test_a_good_file_name_is_taken(name: str) -> None:
    assert read(named(name)).has(name)


def test_too_many_files() -> None:
    with pytest.raises(ClientError, match="files: 3"):
        read(request(files=[RUN, {"name": "a", "content": ""}, {"name": "b", "content": ""}]), max_files=2)


def test_a_list_of_packages_needs_no_files() -> None:
    assert read(b'{"kind": "list-dependencies"}').kind == "list-dependencies"


def test_nul_is_allowed_in_contents_and_inputs() -> None:
    made = read(request(files=[{"name": "run.sh", "content": "a\0b"}], inputs="\0"))
    assert made.job_files()[0].content == b"a\0b"
    assert made.stdin() == b"\0"


def test_reasons_fit_one_line_whatever_the_client_sent() -> None:
    with pytest.raises(ClientError) as caught:
        read(named("\x1b[2J" + "x" * 100_000 + "\n"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("data", [{"k" * 100_000: 1}, {"files": [], "kind": "k" * 100_000}], ids=["key", "value"])
def test_reasons_are_short_also_for_what_is_not_known(data: object) -> None:
    with pytest.raises(ClientError) as caught:
        read(json.dumps(data).encode())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_key_that_is_not_known_says_nothing_to_a_terminal() -> None:
    with pytest.raises(ClientError) as caught:
        read('{"\u202e\u009b31m": 1}'.encode())
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    "many",
    [
        '"env": {"a": "", %s "b": ""}',
        '"limits": {%s "run": {}}',
        '%s "priority": 1',
        '"files": [{"name": "run.sh", %s "content": ""}]',
        '"files": [%s {"name": "run.sh", "content": ""}]',
        '"args": [%s ""]',
        '"unknown": {%s "a": 1}',
    ],
)
@pytest.mark.parametrize(
    "again", ['"a": "",', '"a" : "\\"",', '"run": {},', '"args": [],', '"",', '{"name": "", "content": ""},']
)
def test_what_has_more_strings_than_any_request_is_not_read_into_memory(many: str, again: str) -> None:
    """Each string would cost a hundred bytes and a microsecond, whatever the later checks say."""
    data = ("{" + many % (again * (2_000_000 // len(again))) + "}").encode()
    tracemalloc.start()
    try:
        with pytest.raises((ClientError, IncompleteError)) as caught:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < len(data) / 2
    finally:
        tracemalloc.stop()
    assert caught.type is IncompleteError or "keys and strings" in str(caught.value)


def test_the_largest_request_is_read() -> None:
    files = [{"name": f"{number}", "content": '":"\\"', "encoding": "utf8"} for number in range(999)]
    env = {f"{number}": '"' for number in range(4096)}
    whole = dict.fromkeys(("time", "cpu_time", "memory", "stdout", "stderr", "processes", "open_files"), 1)
    made = read(
        request(
            files=[RUN, *files],
            args=['"'] * 4096,
            env=env,
            inputs='"' * 100_000,
            inputs_encoding="utf8",
            limits=dict.fromkeys(("dependencies", "compile", "run"), whole),
            nixpkgs="24.11",
            kind="run",
            priority=1,
        )
    )
    assert (len(made.files), len(made.args), len(made.env)) == (1000, 4096, 4096)
