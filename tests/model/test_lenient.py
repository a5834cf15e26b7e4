"""Requests of other people's encoders are read as they are meant. If one cannot be, the reason is in our own words."""

from __future__ import annotations

import json
import re
import tracemalloc

import pytest

from spoold.model.dropped import read_request, why_incomplete
from spoold.model.errors import ClientError, IncompleteError
from spoold.model.limits import WORDS, Limits, PhaseLimits, RequestedLimits, effective
from spoold.model.submission import File, LimitRequests, Request

RUN = {"name": "run.sh", "content": "echo"}
PLAIN = Request(files=[File(name="run.sh", content="echo")])
# Words of msgspec, of json and of Python's codecs. No reason may contain them.
FOREIGN = re.compile(
    r"codec|msgspec|decode|Expected|unknown field|\bfield\b|`|JSON value|Traceback|surrogates not|"
    r"Incorrect padding|non-hexadecimal|\bstr\b|\bint\b|\bfloat\b|\bbool\b|\bdict\b|Invalid|\$\.",
)


def read(data: bytes, max_files: int = 1000) -> Request:
    return read_request(data, max_files=max_files, pins=frozenset({"default", "24.11"}))


def request(**keys: object) -> bytes:
    return json.dumps({"files": [RUN], **keys}).encode()


def refused(data: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        read(data)
    reason = str(caught.value)
    assert not FOREIGN.search(reason)
    assert reason.isascii()
    assert reason.isprintable()
    return reason


@pytest.mark.parametrize("key", [name for name in Request.__struct_fields__ if name != "files"])
def test_null_for_an_optional_key_is_not_given(key: str) -> None:
    assert read(request(**{key: None})) == PLAIN


@pytest.mark.parametrize("key", ["encoding", "executable"])
def test_null_for_a_key_of_a_file_is_not_given(key: str) -> None:
    assert read(request(files=[{**RUN, key: None}])) == PLAIN


@pytest.mark.parametrize("key", ["name", "content"])
def test_null_for_a_key_that_has_to_be_there_is_a_missing_one(key: str) -> None:
    assert refused(request(files=[{**RUN, key: None}])) == refused(
        request(files=[{other: text for other, text in RUN.items() if other != key}])
    )
    assert refused(request(files=[{**RUN, key: None}])).startswith(f"files[0].{key}")


def test_null_for_limits_is_not_given() -> None:
    nothing = dict.fromkeys(RequestedLimits.__struct_fields__)
    assert read(request(limits={"run": None, "compile": nothing})).limits == LimitRequests(compile=RequestedLimits())


def test_null_for_a_variable_is_not_given() -> None:
    assert read(request(env={"A": None, "B": "1"})).env == {"B": "1"}


@pytest.mark.parametrize(
    "keys",
    [
        {"args": {}},
        {"env": []},
        {"limits": []},
        {"limits": {"run": []}},
        {"limits": {"dependencies": [], "compile": {}, "run": None}},
    ],
)
def test_what_is_empty_is_an_object_or_a_list(keys: dict[str, object]) -> None:
    read_ = read(request(**keys))
    assert (read_.args, read_.env) == ([], {})
    assert read_.limits.run in (None, RequestedLimits())


def test_no_files_at_all_may_be_an_empty_object() -> None:
    assert read(b'{"kind": "list-dependencies", "files": {}}').files == []
    assert "run.sh" in refused(request(files={}))


@pytest.mark.parametrize("number", ["67108864.0", "6.7108864e7", "67108864", "67108864.000"])
def test_a_whole_number_may_be_written_as_another(number: str) -> None:
    made = read(request(limits={"run": {"memory": 1}}).replace(b'"memory": 1', b'"memory": ' + number.encode()))
    assert made.limits.run is not None
    assert (made.limits.run.memory, type(made.limits.run.memory)) == (67108864, int)


@pytest.mark.parametrize("key", [name for name in PhaseLimits.__struct_fields__ if name not in WORDS])
def test_every_limit_takes_a_whole_number_in_each_form(key: str) -> None:
    for value in (3, 3.0):
        limits = read(request(limits={"run": {key: value}, "compile": {key: value}})).limits
        assert limits.run is not None
        assert getattr(limits.run, key) == 3
        assert limits.run == limits.compile


@pytest.mark.parametrize("number", ["18446744073709551615", "18446744073709551616", "1e300", "9" * 300, "9" * 5000])
def test_a_limit_that_stands_for_none_is_cut_like_any_that_is_too_high(number: str) -> None:
    limits = read(
        request(limits={"run": {"memory": 1}}).replace(b'"memory": 1', b'"memory": ' + number.encode())
    ).limits
    assert limits.run is not None
    assert limits.run.memory == (1 << 64) - 1
    cut, notes = effective("limits.run", limits.run, Limits().run)
    assert cut.memory == Limits().run.maximum.memory
    assert len(notes) == 1


def test_a_priority_may_be_written_as_another_number() -> None:
    assert read(request(priority=-5.0)).priority == -5


BASE64 = "AP8A/wD/AP8A/wD/AP8A/w=="
BYTES = b"\x00\xff" * 8


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("base64", BASE64),
        ("base64", BASE64 + "\n"),
        ("base64", "AP8A/wD/AP8A\r\n/wD/AP8A/w==\r\n"),
        ("base64", "AP8A/wD/AP8A\n/wD/AP8A/w==\n"),
        ("BASE64", BASE64),
        ("hex", "00ff" * 8),
        ("hex", "00FF" * 8),
        ("hex", "00 ff " * 8),
        ("hex", "00ff\n" * 8),
        ("hex", "\t00 ff\r\n" * 8),
    ],
)
def test_texts_of_bytes_may_be_broken_into_lines(encoding: str, text: str) -> None:
    made = read(
        request(
            files=[RUN, {"name": "a", "content": text, "encoding": encoding}], inputs=text, inputs_encoding=encoding
        )
    )
    assert made.job_files()[1].content == made.stdin() == BYTES


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("base64", BASE64[:-1]),
        ("base64", BASE64[:-2]),
        ("base64", "*" + BASE64),
        ("base64", "AP8A-_AA"),
        ("base64", "AP8A====AP8A"),
        ("base64", "é"),
        ("hex", "0"),
        ("hex", "0x00"),
        ("hex", "0g"),
        ("hex", "00:ff"),
        ("hex", "\u0660\u0660"),
    ],
)
def test_what_is_no_text_of_bytes_is_refused_with_what_it_has_to_be(encoding: str, text: str) -> None:
    reason = refused(request(files=[RUN, {"name": "a.bin", "content": text, "encoding": encoding}]))
    assert reason.startswith(f"files[1].content ('a.bin'): not {encoding}: ")
    assert refused(request(inputs=text, inputs_encoding=encoding)).startswith(f"inputs: not {encoding}: ")


@pytest.mark.parametrize("word", ["utf8", "utf-8", "UTF-8", "Utf8", "UTF8", "utf_8"])
def test_utf8_has_several_names(word: str) -> None:
    made = read(request(files=[{"name": "run.sh", "content": "é", "encoding": word}], inputs="é", inputs_encoding=word))
    assert made.job_files()[0].content == made.stdin() == "é".encode()
    assert made.inputs_encoding == made.files[0].encoding == "utf8"


@pytest.mark.parametrize("name", ["./run.sh", "././run.sh", ".//run.sh"])
def test_a_name_may_begin_in_its_directory(name: str) -> None:
    assert [file.name for file in read(request(files=[{"name": name, "content": "echo"}])).files] == ["run.sh"]


@pytest.mark.parametrize("name", ["./cutor.nix", "./a/./b", "a/../b", ".", "./", "./.", "./..", "/./run.sh"])
def test_other_dots_are_no_names_of_files(name: str) -> None:
    if name == "./cutor.nix":
        assert read(request(files=[RUN, {"name": name, "content": "{ }"}])).expression() == "{ }"
    else:
        assert refused(request(files=[RUN, {"name": name, "content": ""}])).startswith("files[1].name: ")


def test_the_same_name_with_and_without_dots_stands_twice() -> None:
    assert "same file" in refused(request(files=[RUN, {"name": "./run.sh", "content": ""}]))


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (request(stdin="x"), "stdin", ["inputs"]),
        (request(input="x"), "input", ["inputs"]),
        (request(timeout=5), "timeout", ["limits.run.time"]),
        (request(time_limit=5), "time_limit", ["limits.run.time"]),
        (request(memory_limit=5), "memory_limit", ["limits.run.memory"]),
        (request(language="python"), "language", ["cutor.nix", "run.sh"]),
        (request(lang="c"), "lang", ["cutor.nix", "run.sh"]),
        (request(files=[{"name": "run.sh", "contents": ""}]), "files[0].contents", ["Is content meant?"]),
        (request(files=[{"path": "run.sh", "content": ""}]), "files[0].path", ["Is name meant?"]),
        (request(source_code="x"), "source_code", ["files"]),
        (request(arguments=[]), "arguments", ["args"]),
        (request(environment={}), "environment", ["env"]),
        (request(Files=[]), "Files", ["files"]),
        (request(limits={"run": {"timeout": 1}}), "limits.run.timeout", ["Is time meant?"]),
        (request(limits={"run": {"Memory": 1}}), "limits.run.Memory", ["Is memory meant?"]),
        (request(limits={"time": 1}), "limits.time", ["limits.run.time", "compile", "dependencies", "run"]),
        (request(limits={"Timeout": 1}), "limits.Timeout", ["limits.run.time"]),
        (request(Stdin="x"), "Stdin", ["Is inputs meant?"]),
        (request(STDIN="x"), "STDIN", ["Is inputs meant?"]),
        (request(**{"time-limit": 1}), "time-limit", ["Is limits.run.time meant?"]),
        (request(timeLimit=1), "timeLimit", ["Is limits.run.time meant?"]),
        (request(InputsEncoding="hex"), "InputsEncoding", ["Is inputs_encoding meant?"]),
        (request(time=1), "time", ["Is limits.run.time meant?"]),
        (request(memory=1), "memory", ["Is limits.run.memory meant?"]),
        (request(cpuTime=1), "cpuTime", ["Is limits.run.cpu_time meant?"]),
        (request(open_files=1), "open_files", ["Is limits.run.open_files meant?"]),
        (request(compile={}), "compile", ["Is limits.compile meant?"]),
        (request(run={}), "run", ["Is limits.run meant?"]),
        (request(Language="c"), "Language", ["cutor.nix", "run.sh"]),
        (request(languageId=1), "languageId", ["cutor.nix", "run.sh"]),
        (request(files=[{"Name": "run.sh", "Content": ""}]), "files[0].Name", ["Is name meant?"]),
        (request(limits={"run": {"openFiles": 1}}), "limits.run.openFiles", ["Is open_files meant?"]),
        (request(**{"": 1}), "''", ["files"]),
        (request(kind=1), "kind", ["run", "list-dependencies"]),
        (request(files=[{**RUN, "encoding": True}]), "files[0].encoding", ["utf8", "base64", "hex"]),
        (request(limits={"run": {"on_output_limit": 1}}), "limits.run.on_output_limit", ["continue", "end"]),
        (request(env={"\ud800": None}), "env", ["surrogate"]),
        (request()[:-1] + b', "args": [], "args": []}', "args", ["twice"]),
        (request()[:-1] + b', "env": {"A": null, "A": null}}', "env['A']", ["twice"]),
        (b'{"files": [{"name": "run.sh", "content": "", "name": "a"}]}', "files[0].name", ["twice"]),
        (request()[:-1] + b', "limits": {"run": {"time": 1, "time": 1}}}', "limits.run.time", ["twice"]),
        (request(limits={"run": {"time": "5"}}), "limits.run.time", ["a number", "a text"]),
        (request(limits={"run": {"time": True}}), "limits.run.time", ["a number", "true or false"]),
        (request(limits={"run": {"memory": "64M"}}), "limits.run.memory", ["a whole number", "a text"]),
        (request(limits={"run": {"memory": 1.5}}), "limits.run.memory", ["a whole number", "1.5"]),
        (request(limits={"run": {"memory": -(1 << 64)}}), "limits.run.memory", ["more than 0"]),
        (
            request(limits={"run": {"memory": 0}}).replace(b": 0}", b": -" + b"9" * 5000 + b"}"),
            "limits.run.memory",
            ["more than 0"],
        ),
        (request(limits={"run": {"memory": 67108864.5}}), "limits.run.memory", ["a whole number", "67108864.5"]),
        (request(stop_on_failure="true"), "stop_on_failure", ["true", "false", "group"]),
        (request(priority=1 << 70), "priority", ["-100", "100"]),
        (request(limits={"run": {"processes": -1}}), "limits.run.processes", ["more than 0"]),
        (request(limits=[1]), "limits", ["an object", "a list"]),
        (request(args="x"), "args", ["a list", "a text"]),
        (request(args=[1]), "args[0]", ["a text", "a number"]),
        (request(args=["a", None]), "args[1]", ["a text", "null"]),
        (request(env={"A": 1}), "env['A']", ["a text", "a number"]),
        (request(env=["A=1"]), "env", ["an object", "a list"]),
        (request(files=["run.sh"]), "files[0]", ["an object", "a text"]),
        (request(files={"run.sh": "echo"}), "files", ["a list", "an object"]),
        (request(files=[{**RUN, "encoding": "latin1"}]), "files[0].encoding", ["utf8", "base64", "hex"]),
        (request(files=[{**RUN, "executable": "yes"}]), "files[0].executable", ["true or false", "a text"]),
        (request(inputs=5), "inputs", ["a text", "a number"]),
        (request(kind="execute"), "kind", ["run", "list-dependencies"]),
        (request(priority=1000), "priority", ["-100", "100"]),
        (request(nixpkgs="unstable"), "nixpkgs", ["default", "24.11"]),
        (b"[]", "the request", ["an object", "a list"]),
        (b"null", "the request", ["an object", "null"]),
        (b"17", "the request", ["an object", "a number"]),
        (request(files=[{"name": "run.sh", "content": "ab?c"}]).replace(b"?", b"\xe9"), "files[0].content", ["byte 2"]),
        (request(args=["é?"]).replace(b"?", b"\xe9"), "args[0]", ["byte 2", "0xe9", "UTF-8"]),
        (request(env={"A": "?"}).replace(b"?", b"\x80"), "env['A']", ["byte 0", "0x80"]),
        (request(inputs="\ud83d"), "inputs", ["surrogate"]),
        (request(inputs="\udcff"), "inputs", ["byte 0", "0xff"]),
        (request(files=[{"name": "run.sh", "content": "a\ud800b"}]), "files[0].content", ["character 1", "surrogate"]),
        (
            request(files=[RUN, {"name": "cutor.nix", "content": "7bff", "encoding": "hex"}]),
            "files: cutor.nix",
            ["byte 1", "0xff", "UTF-8"],
        ),
    ],
)
def test_a_reason_has_the_place_and_what_is_right(data: bytes, place: str, words: list[str]) -> None:
    reason = refused(data)
    assert reason.startswith(place)
    assert not reason[len(place) : len(place) + 1].isalnum()
    for word in words:
        assert word in reason


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\uDFFF x"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"x\\uDBFFy"'])
@pytest.mark.parametrize(
    "place", ['"inputs": %s', '"env": {"A": %s}', '"args": [%s]', '"a\\u0020": %s', '"nixpkgs": %s']
)
def test_half_a_surrogate_pair_is_refused_at_once(place: str, text: str) -> None:
    refused(request()[:-1] + b", " + (place % text).encode() + b"}")


def test_half_a_pair_is_refused_at_once_also_beside_bytes_that_are_no_text() -> None:
    assert "inputs: byte 0" in refused(request(inputs="?\ud800").replace(b"?", b"\xff"))


@pytest.mark.parametrize(
    ("data", "has"),
    [
        (request(inputs="\ud800"), True),
        (request(files=[{"name": "run.sh", "content": "\ud800"}]), True),
        (request(args=["\ud800"]), False),
        (request(files=[{"name": "\ud800", "content": ""}]), False),
        (request(nixpkgs="\ud800"), False),
    ],
)
def test_base64_is_told_of_where_there_may_be_some(data: bytes, has: bool) -> None:
    assert ("base64" in refused(data)) == has


@pytest.mark.parametrize("name", ["\U0001f600" * 300, "\U0001f600" * 80, "\u202e" * 79 + "x", "\x7f" * 80])
def test_reasons_are_short_in_every_script(name: str) -> None:
    """A character outside of ASCII can take ten characters when it is shown."""
    for data in (
        request(**{name: 1}),
        request(kind=name),
        request(nixpkgs=name),
        request(env={name: 1}),
        request(env={name + "=": ""}),
        request(files=[RUN, {name: 1}]),
        request(files=[{"name": name, "content": 1}]),
        request(files=[RUN, {"name": name, "content": ""}, {"name": name, "content": ""}]),
        request(files=[RUN, {"name": f"{name[:60]}/{name[:60]}/x", "content": "", "encoding": name}]),
        request(limits={"run": {name: 1}}),
    ):
        assert len(refused(data)) < 500


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read(request(inputs="\U0001f600")).inputs == "\U0001f600"


def test_a_file_says_that_it_is_executable() -> None:
    files = [
        RUN,
        {"name": "tool", "content": "x", "executable": True},
        {"name": "data", "content": "x", "executable": False},
        {"name": "elf", "content": "7f454c46", "encoding": "hex"},
        {"name": "script", "content": "#!/bin/sh\n"},
        {"name": "lib.sh", "content": "x", "executable": False},
        {"name": "not", "content": " #!"},
        {"name": "empty/", "executable": None},
        {"name": "a/b/", "content": ""},
    ]
    modes = {file.name: file.mode for file in read(request(files=files)).job_files()}
    executable = ["run.sh", "tool", "elf", "script", "lib.sh", "empty/", "a/b/"]
    assert modes == dict.fromkeys(executable, 0o755) | {"data": 0o644, "not": 0o644}


def test_a_directory_has_no_content_and_is_nothing_else() -> None:
    assert "no content" in refused(request(files=[RUN, {"name": "a/", "content": "x"}]))
    assert "a file and also a directory" in refused(request(files=[RUN, {"name": "a", "content": "x"}, {"name": "a/"}]))
    assert "same file" in refused(request(files=[RUN, {"name": "a/"}, {"name": "A/"}]))
    assert read(request(files=[RUN, {"name": "a/"}, {"name": "a/b", "content": ""}])).has("a/b")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["line 1, column 1", "empty"]),
        (b" \r\n", ["empty"]),
        (b'{"a": 1', ["line 1, column 8", "ends"]),
        (b'{"a": "x', ["line 1, column 7", "no end"]),
        (b'{\n "a": 1,\n}', ["line 3", "comma"]),
        (b"{'a': 1}", ["column 2", "double quotes"]),
        (b'{"NaN":\n "\\"NaN", "a": NaN}', ["line 2, column 16", "NaN"]),
        (b'{"a": -Infinity}', ["line 1, column 7", "-Infinity"]),
        (b'{"a": ["\\ud800", NaN]}', ["line 1, column 18", "NaN"]),
        (b"{a: 1}", ["line 1, column 2", "a key in double quotes"]),
        (b'{"a" 1}', ["'1'", "a colon"]),
        (b'{"a": {} "b": 1}', ["a comma", "the end of the object"]),
        (b'{"a": yes}', ["'y'", "true, false or null"]),
        *((b'{"a": %s}' % number, ["a number is written as"]) for number in (b"01", b"+1", b".5", b"5.", b"0x10")),
        (b"files:\n- name: run.sh\n", ["'f'", "begins with {"]),
        (request().decode().encode("utf-16-le"), ["UTF-8", "UTF-16"]),
        (request().decode().encode("utf-16-be"), ["UTF-8", "UTF-16"]),
        (b'{"a": "x\ny"}', ["control character"]),
        (b'{"a": "\\q"}', ["backslash"]),
        (b'{"a": "\\u12"}', ["backslash"]),
        (b"{} {}", ["follows"]),
        (b'{"a": None}', ["null", "small letters"]),
        (b'{"a": 1} // x', ["follows"]),
        (b'{ // x\n"a": 1}', ["comments"]),
        (b'{"a": ,}', ["value is missing"]),
        (b"{\xff}", ["byte 1", "0xff"]),
        (b"PK\x03\x04", ["'P'", "an object"]),
        (b"[" * 100_000, ["nested"]),
    ],
)
def test_what_never_became_json_is_told_where_it_breaks(data: bytes, words: list[str]) -> None:
    with pytest.raises((IncompleteError, ClientError)):
        read(data)
    why = why_incomplete(data, max_files=1000)
    assert not FOREIGN.search(why)
    assert why.isascii()
    for word in words:
        assert word in why


@pytest.mark.parametrize("several", [b"[],", b"{},", b"0.1,", b"123456789,", b"[[]],", b"null,"])
@pytest.mark.parametrize("ends", [b"1]}", b"1"])
def test_what_has_more_values_than_any_request_is_not_read_into_memory(several: bytes, ends: bytes) -> None:
    data = request()[:-1] + b', "args": [' + several * (2_000_000 // len(several)) + ends
    assert _peak(data) < 3 * len(data)
    assert "commas" in why_incomplete(data, max_files=1000)


@pytest.mark.parametrize(
    "text", ['",[],' * 200_000, "\\" * 100_000 + "," * 100_000, ',"' * 100_000], ids=["lists", "backslashes", "quotes"]
)
def test_commas_in_texts_are_not_counted(text: str) -> None:
    """A text without an end is looked at once. A new look at each quote in it would take hours."""
    assert read(request(inputs=text)).inputs == text
    begun = request()[:-1] + b', "inputs": ' + json.dumps(text).encode()[:-1]
    assert "no end" in why_incomplete(begun, max_files=1000)


@pytest.mark.parametrize(
    ("before", "several", "after"),
    [
        ('{"files": [{"name": "', "./", '", "content": ""}]}'),
        ('{"files": [{"name": "', ".//", '.", "content": ""}]}'),
        ('{"files": [{"name": "', "ab/", 'c", "content": ""}]}'),
        ('{"files": [{"name": "./', "/", '", "content": ""}]}'),
        ('{"', "ab", '": 1}'),
        ('{"files": [], "inputs": "', "0 ", '", "inputs_encoding": "hex"}'),
        ('{"files": [], "inputs": "', "00", '", "inputs_encoding": "hex"}'),
    ],
)
def test_one_long_text_takes_little_memory(before: str, several: str, after: str) -> None:
    """Work on each character may not take many times the text's memory, because intake's memory is bounded."""
    data = (before + several * (2_000_000 // len(several)) + after).encode()
    assert _peak(data) < 6 * len(data)


def _peak(data: bytes) -> int:
    """Return the peak of memory, in bytes, for reading and refusing this."""
    tracemalloc.start()
    try:
        with pytest.raises((ClientError, IncompleteError)):
            read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_has_too_many_strings_is_not_read_for_its_mistake() -> None:
    assert "keys and strings" in why_incomplete(b'{"":' * 1_000_000, max_files=1000)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"files": "echo"}, 'files: a list is needed, not a text. Write [{"name": "run.sh", "content": "echo hello"}]'),
        ({"files": ["echo"]}, 'files[0]: an object is needed, not a text. Write {"name": "run.sh", "content": '),
        ({"files": {"run.sh": "echo"}}, 'files: a list is needed, not an object. Write [{"name": "run.sh"'),
        ({"files": [{**RUN, "content": ["a", "b"]}]}, 'a text is needed, not a list. Write "line 1\\nline 2\\n"'),
        ({"files": [{**RUN, "executable": "True"}]}, "not a text. Write true, without quotes"),
        ({"inputs": 5}, 'inputs: a text is needed, not a number. Write "5", in quotes'),
        ({"inputs": ["5"]}, 'inputs: a text is needed, not a list. Write "20 22\\n", for example'),
        ({"args": "20 22"}, 'args: a list is needed, not a text. Write ["20", "22"], for example'),
        ({"args": [20]}, 'args[0]: a text is needed, not a number. Write "20", in quotes'),
        ({"env": ["A=1"]}, 'env: an object is needed, not a list. Write {"NAME": "value"}, for example'),
        ({"env": {"A": 1}}, "env['A']: a text is needed, not a number. Write \"1\", in quotes"),
        ({"limits": 5}, 'limits: an object is needed, not a number. Write {"run": {"time": 2}}, for example'),
        ({"limits": {"run": 5}}, 'limits.run: an object is needed, not a number. Write {"time": 2}, for example'),
        (
            {"limits": {"run": {"time": "5"}}},
            "limits.run.time: a number is needed, not a text. Write 5, without quotes",
        ),
        ({"limits": {"run": {"time": "5 s"}}}, "not a text. Write 2, in seconds, for example"),
        ({"limits": {"compile": {"memory": "64M"}}}, "not a text. Write 67108864, in bytes, for example"),
        ({"outputs": "*.png"}, 'outputs: a list is needed, not a text. Write [{"path": "*.png"}], for example'),
        ({"outputs": ["*.png"]}, 'outputs[0]: an object is needed, not a text. Write {"path": "*.png"}, for example'),
        ({"cases": {"1": "2"}}, 'cases: a list is needed, not an object. Write [{"name": "1", "inputs": "20 22\\n"'),
        ({"cases": ["1"]}, 'cases[0]: an object is needed, not a text. Write {"name": "1", "inputs": "20 22\\n"'),
        ({"cases": [{"expected": "hi\n"}]}, 'an object is needed, not a text. Write {"stdout": "42\\n"}, for example'),
        ({"cases": [{"name": "it's", "expected": {"stdout": 4}}]}, 'not a number. Write "4", in quotes'),
        ({"cases": [{"name": "a", "expected": {"stdout": []}}]}, 'not a list. Write "42\\n", for example'),
        ({"cases": [{"name": 1}]}, 'cases[0].name: a text is needed, not a number. Write "1", in quotes'),
        ({"cases": [{"name": "a", "limits": 5}]}, 'Write {"time": 2}, for example'),
        ({"cases": [{"name": "a", "points": "5"}]}, "not a text. Write 5, without quotes"),
        ({"compare": "tokens"}, 'compare: an object is needed, not a text. Write {"by": "tokens"}, for example'),
        ({"checker": "check.py"}, 'checker: an object is needed, not a text. Write {"files": [{"name": "run.sh"'),
        ({"interactor": ["talk"]}, 'not a list. Write {"files": [{"name": "run.sh"'),
        ({"priority": "high"}, "priority: a whole number is needed, not a text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_what_to_write(keys: dict[str, object], reason: str) -> None:
    assert reason in refused(request(**keys))


def test_what_to_write_is_right() -> None:
    """Each example that is JSON is accepted where it is the answer."""
    for keys in ({"files": "x"}, {"args": "x"}, {"env": "x"}, {"limits": 5}, {"outputs": "x"}, {"cases": "x"}):
        (key,) = keys
        said = refused(request(**keys)).partition(". Write ")[2].removesuffix(", for example")
        read(request(**{key: json.loads(said)}))
    for key in ("compare", "checker", "interactor"):
        said = refused(request(**{key: "x"})).partition(". Write ")[2].removesuffix(", for example")
        read(request(cases=[{"name": "a"}], **{key: json.loads(said)}))
