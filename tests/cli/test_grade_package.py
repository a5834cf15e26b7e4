"""Problem packages: their YAML files, limits, test data and submissions. Some are broken or hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spoold.cli.grading import cases, documents, expected, material, testdata
from spoold.cli.grading.package import MIB, Package, checker_limits, comparison, run_limits
from spoold.cli.grading.solutions import Finder
from spoold.model.errors import ClientError
from tests.grading import case_files, package

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


# -- YAML


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "it is no YAML"),
        ("- a", "it has to be a map"),
        ("text", "it has to be a map"),
        ("a: !!python/object/apply:os.system [id]", "it is no YAML"),
        ("? [a, b]\n: c", "it is no YAML"),
        ("a: 2020-13-45", "it is no YAML"),
        ("[" * 5000, "it is no YAML"),
        ("a: " + "[" * 5000 + "]" * 5000, "it is no YAML"),
        ("\x00", "it is no YAML"),
        ("a: 1\nb: &b [*b]", "more than 100000 keys and values"),
        (LAUGHS, "more than 100000 keys and values"),
        ("a: " + "x" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_map_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ClientError, match=rf"x\.yaml: .*{reason}"):
        documents.read(str(tmp_path / "x.yaml"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ClientError, match="it is no YAML"):
        documents.read(str(tmp_path / "x.yaml"))
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ClientError, match="is no regular file"):
        documents.read(str(tmp_path / "pipe.yaml"))
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    with pytest.raises(ClientError, match="cannot be read"):
        documents.read_if_there(str(tmp_path / "gone.yaml"))
    assert documents.read_if_there(str(tmp_path / "other.yaml")) is None
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert documents.read(str(tmp_path / "empty.yaml")).values == {}


@pytest.mark.parametrize(
    ("kind", "said", "output"),
    [("pass-fail", 8, 8), ("interactive", 8, 16), ("interactive", 32, 32)],
)
def test_the_format_does_not_bound_what_an_interactor_gives_to_programs(
    tmp_path: Path, kind: str, said: int, output: int
) -> None:
    text = f"problem_format_version: 2025-09\ntype: {kind}\nlimits: {{validation_output: {said}}}\n"
    limits: Any = checker_limits(package(tmp_path, text))
    assert limits["run"]["stdout"] == output * MIB


def test_values_by_their_types() -> None:
    document = documents.Document(
        {"a": "1e-6", "b": [1, "x"], "c": "x  y", "d": {"flags": "z"}, "e": True, "f": {"g": {}}, "n": None},
        "file",
    )
    assert (document.number("a", 0), document.number("missing", 3), document.number("n", 4)) == (1e-6, 3, 4)
    assert (document.words("b"), document.words("c"), document.words("d")) == (["1", "x"], ["x", "y"], ["z"])
    assert document.words("missing") is None
    assert document.map("f").where == "file: f"
    for key in ("b", "c", "e"):
        with pytest.raises(ClientError, match="it has to be a number"):
            document.number(key, 0)
    for key in ("b", "e"):
        with pytest.raises(ClientError, match="it has to be a string"):
            document.text(key)
    with pytest.raises(ClientError, match="it has to be a map"):
        document.map("a")
    with pytest.raises(ClientError, match="it has to be a list of strings"):
        document.words("f")


# -- problem.yaml


def test_limits_of_both_formats(tmp_path: Path) -> None:
    older = package(tmp_path / "a", "limits: {memory: 512, time_multiplier: 3}").limits
    assert (older.time, older.factor, older.margin, older.memory) == (None, 3, 2, 512)
    assert [older.time_for(seconds) for seconds in (0.01, 0.34, 1.0, 1.5)] == [1, 2, 3, 5]
    run = run_limits(package(tmp_path / "a", "limits: {memory: 512}"), 3)["run"]
    assert run == {"cpu_time": 3, "memory": 508 << 20, "stack": 512 << 20, "stdout": 8 << 20}
    newer = package(
        tmp_path / "b",
        "problem_format_version: 2025-09\nlimits: {time_resolution: 0.5, time_multipliers: {time_limit_to_tle: 4}}",
    ).limits
    assert (newer.time, newer.factor, newer.margin) == (None, 2, 4)
    assert [newer.time_for(seconds) for seconds in (0.01, 0.26, 1.0)] == [0.5, 1.0, 2.0]
    assert package(tmp_path / "c", "problem_format_version: 2023-07\nlimits: {time_limit: 1.5}").limits.time == 1.5


@pytest.mark.parametrize(
    ("files", "said", "seconds"),
    [
        ({".timelimit": "3\n"}, "", 3),
        ({"domjudge-problem.ini": "name=x\n timelimit = '1.5' \n"}, "", 1.5),
        ({".timelimit": "3", "domjudge-problem.ini": "timelimit=4"}, "limits: {memory: 9}", 3),
        ({".timelimit": "3"}, "limits: {time_limit: 2}", 2),
        ({".timelimit": "3"}, "problem_format_version: 2025-09", None),
        ({"domjudge-problem.ini": 'timelimit="4"'}, "problem_format_version: 2025-09", 4),
        ({"domjudge-problem.ini": "color = red"}, "", None),
    ],
)
def test_time_limits_in_files_of_their_own(
    tmp_path: Path, files: dict[str, str], said: str, seconds: float | None
) -> None:
    assert package(tmp_path, said, **files).limits.time == seconds


def test_keys_that_no_format_has_are_named(tmp_path: Path) -> None:
    files = {"data/testdata.yaml": "on_rejct: break\nrange: 0 1", **case_files("secret/1")}
    made = package(tmp_path, "nam: x\nlimits: {time_limt: 3, code: 1}\ngrading: {objective: max}", **files)
    names = [f"{tmp_path}/problem.yaml: nam", f"{tmp_path}/problem.yaml: limits: time_limt"]
    assert made.unknown == tuple(names)
    assert testdata.load(made).unknown == (f"{tmp_path}/data/testdata.yaml: on_rejct",)


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "0", "1 s"])
def test_time_limits_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClientError, match=r"\.timelimit: a time limit has to be a number of seconds above 0"):
        package(tmp_path, **{".timelimit": text})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("problem_format_version: 2025-09\ntype: [interactive, multi-pass]", "multi-pass problems cannot"),
        ("problem_format_version: 2025-09\ntype: [scoring, multi-pass]", "multi-pass problems cannot"),
        ("problem_format_version: 2025-09\ntype: pass-fail submit-answer", "submit-answer problems cannot"),
        ("problem_format_version: 2031-01", "problem_format_version: '2031-01' is not supported"),
        ("type: guessing", "type: guessing is not supported"),
        ("validation: fuzzy", "validation: it has to begin with default or custom"),
        ("limits: {memory: much}", "limits: memory: it has to be a number"),
        ("limits: {memory: -1}", "limits: memory: it has to be a number"),
        ("limits: {memory: .inf}", "limits: memory: it has to be a number"),
        ("limits: 3", "limits: it has to be a map"),
        ("type: {a: b}", "type: it has to be a list of strings"),
    ],
)
def test_what_cannot_be_graded_is_named(tmp_path: Path, said: str, reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        package(tmp_path / "x", said)


@pytest.mark.parametrize(
    ("flags", "rules"),
    [
        ("", {}),
        ("case_sensitive space_change_sensitive", {"case_sensitive": True, "space_change_sensitive": True}),
        ("float_tolerance 1e-4", {"float_absolute": 1e-4, "float_relative": 1e-4}),
        (
            "float_absolute_tolerance 2 float_relative_tolerance 0.5",
            {"float_absolute": 2.0, "float_relative": 0.5},
        ),
    ],
)
def test_flags_of_the_default_validator(flags: str, rules: dict[str, Any]) -> None:
    assert comparison(flags.split(), "x") == {"like": "kattis", **rules}


@pytest.mark.parametrize("flags", ["fuzzy", "float_tolerance", "float_tolerance x"])
def test_flags_that_are_wrong(flags: str) -> None:
    with pytest.raises(ClientError, match="secret/1: f"):
        comparison(flags.split(), "secret/1")


# -- test data


def test_groups_and_cases_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ("sample/1", "secret/2", "secret/10", "secret/a/1", "secret/b/1", "secret/b/c/2")
    data = testdata.load(package(tmp_path, **case_files(*names), **{"data/other/1.in": ""}))
    assert [test.name for test in data.tests] == [
        *("sample/1", "secret/10", "secret/2", "secret/a/1", "secret/b/1", "secret/b/c/2")
    ]
    assert [test.hidden for test in data.tests] == [False, *[True] * 5]
    assert [group.name for group in data.root.groups()] == [
        *("", "sample", "secret", "secret/a", "secret/b", "secret/b/c")
    ]
    group = data.find("secret/b")
    assert group
    assert (group.own, group.places()) == ([4], [4, 5])


def test_what_is_said_of_a_group_holds_below_it(tmp_path: Path) -> None:
    older = package(
        tmp_path / "a",
        "validator_flags: float_tolerance 1",
        **case_files("sample/1", "secret/a/1"),
        **{"data/secret/testdata.yaml": "output_validator_flags: case_sensitive"},
    )
    compare = [test.compare for test in testdata.compared(testdata.load(older)).tests]
    assert compare[0] == {"like": "kattis", "float_absolute": 1, "float_relative": 1}
    assert compare[1] == {**compare[0], "case_sensitive": True}
    newer = package(
        tmp_path / "b",
        "problem_format_version: 2025-09",
        **case_files("secret/a/1", "secret/a/2"),
        **{
            "data/secret/test_group.yaml": "args: [x]\noutput_validator_args: [float_tolerance, 0.5]",
            "data/secret/a/2.yaml": "args: []\noutput_validator_args: [case_sensitive]",
        },
    )
    tests = testdata.load(newer).tests
    assert [(test.arguments, test.checker_arguments) for test in tests] == [
        (("x",), ("float_tolerance", "0.5")),
        ((), ("case_sensitive",)),
    ]


def test_constants_in_settings_of_groups(tmp_path: Path) -> None:
    files = {"data/secret/test_group.yaml": "args: ['{{big}}', '{{big.tex}}', '{{other}}']\nfull_feedback: {{told}}"}
    said = "problem_format_version: 2025-09\nconstants: {big: {value: 50, tex: '5\\cdot10'}, told: 'true'}"
    data = testdata.load(package(tmp_path, said, **case_files("secret/1"), **files))
    assert data.tests[0].arguments == ("50", "5\\cdot10", "{{other}}")
    assert data.root.items[0].settings.values["full_feedback"] is True  # type: ignore[union-attr] # it is a group


def test_links_in_test_data(tmp_path: Path) -> None:
    """Links within the package are followed, also links to directories."""
    files = {**case_files("sample/1", "secret/a/1"), "data/secret/2.in": "-> ../sample/1.in"}
    files |= {"data/secret/2.ans": "-> ../sample/1.ans", "data/secret/b": "-> a"}
    made = package(tmp_path / "good", **files)
    tests = testdata.load(made).tests
    assert [test.name for test in tests] == ["sample/1", "secret/2", "secret/a/1", "secret/b/1"]
    assert cases.content(tests[1].input) == b"sample/1"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"data/secret/1.in": ""}, r"secret/1\.in has no 1\.ans beside it"),
        ({"data/secret/x.txt": ""}, "there are no cases in it"),
        ({"data/secret/1.in": "-> /etc/passwd", "data/secret/1.ans": ""}, "is a link out of "),
        ({"data/secret/1.in": "", "data/secret/1.ans": "-> /etc/passwd"}, "is a link out of "),
        ({"data/secret/1.in": "-> nowhere", "data/secret/1.ans": ""}, "which does not exist"),
        ({"data/secret/a": "-> .", "data/secret/1.in": ""}, "is a link to a directory that contains it"),
        ({"data/secret": "-> /etc"}, "is a link out of "),
        ({"data/secret/1.in": "", "data/secret/1.ans": "", "data/secret/1.files/x": ""}, r"1\.files\) cannot be run"),
        ({"data/secret/testdata.yaml": "[", "data/secret/1.in": ""}, r"testdata\.yaml: it is no YAML"),
        ({"data/secret/test_group.yaml": "static_validation_score: 3"}, "static_validation_score"),
        ({"data/secret/test_group.yaml": "max_scor: 3"}, r"test_group\.yaml: max_scor: the format has no such key"),
        (
            {**case_files("secret/1"), "data/secret/1.yaml": "max_score: 3"},
            r"1\.yaml: max_score: the format has no such",
        ),
        ({**case_files("secret/1"), "data/secret/1.args": "x"}, r"1\.args is not read: write args in 1\.yaml"),
    ],
)
def test_test_data_that_are_wrong_are_named(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        testdata.load(package(tmp_path / "x", "problem_format_version: 2025-09", **files))


def test_names_that_are_hostile(tmp_path: Path) -> None:
    made = package(tmp_path, **case_files("secret/a\nb\x1b"))
    (test,) = testdata.load(made).tests
    assert test.name == "secret/a\nb\x1b"
    (tmp_path / "data" / "secret" / "c\nd.in").write_text("")
    with pytest.raises(ClientError) as caught:
        testdata.load(made)
    assert "c\\nd.in has no c\\nd.ans" in str(caught.value)


def test_which_format_scores(tmp_path: Path) -> None:
    files = case_files("secret/1")
    said = "problem_format_version: 2023-07-draft"
    assert testdata.load(package(tmp_path / "a", **files)).is_older
    assert not testdata.load(package(tmp_path / "b", said, **files)).is_older
    draft = package(tmp_path / "c", said, **files, **{"data/testdata.yaml": "on_reject: continue"})
    assert testdata.load(draft).is_older, "tools for that draft do the same"


# -- submissions


def submissions(root: Path, *names: str, said: str = "", newer: bool = True) -> dict[str, Any]:
    """Return submissions by their names. Those that are not tested have None."""
    files = {f"submissions/{name}": "print(1)" for name in names}
    files |= {"submissions/submissions.yaml": said} if said else {}
    made = package(root, "problem_format_version: 2025-09" if newer else "", **files)
    found, left_out = expected.find(made, is_older=not newer)
    return {each.name: each for each in found} | dict.fromkeys(left_out)


def test_directories_of_the_older_format_name_a_result(tmp_path: Path) -> None:
    names = ("accepted/a.py", "partially_accepted/a.py", "time_limit_exceeded/a.py", "slow/a.py", "brute_force/a.py")
    found = submissions(tmp_path, *names, newer=False)
    assert found["slow/a.py"] is None
    assert [found[name].result for name in names[:3]] == ["AC", "PAC", "TLE"]
    assert [each.timed for each in found.values() if each] == [("",), (), (), ()]
    assert found["brute_force/a.py"].rules


def test_rules_of_the_newer_format(tmp_path: Path) -> None:
    said = """
accepted/slow.py: {use_for_time_limit: false}
time_limit_exceeded: {permitted: [AC, WA, TLE]}
"*/{a,b}.py":
  authors: Somebody <somebody@example.com>
  secret/*-hard: {required: [TLE]}
mixed: {score: [10, 20], message: oh}
any: {permitted: [AC, WA, TLE, RTE]}
timed: {sample: {use_for_time_limit: lower}, secret: {use_for_time_limit: upper}}
"""
    names = ("accepted/slow.py", "accepted/a.py", "time_limit_exceeded/c.py", "mixed/x.py")
    found = submissions(tmp_path, *names, "any/z.py", "timed/z.py", "other/z.py", "accepted/README.md", said=said)
    assert [found[name].timed for name in names] == [(), ("",), (), ()]
    assert found["any/z.py"].rules == ()
    assert found["other/z.py"] is found["accepted/README.md"] is None, "without a rule, or no submission"
    assert found["timed/z.py"].timed == ("sample",)
    assert found["timed/z.py"].rules == (
        expected.Rule("sample", ("AC", "WA", "RTE"), expected.LETTERS, None, ""),
        expected.Rule("secret", expected.LETTERS, ("TLE",), None, ""),
    )
    assert found["time_limit_exceeded/c.py"].rules == (expected.Rule("", ("AC", "WA", "TLE"), ("TLE",), None, ""),)
    assert found["accepted/a.py"].rules[1] == expected.Rule("secret/*-hard", expected.LETTERS, ("TLE",), None, "")
    assert found["mixed/x.py"].rules == (expected.Rule("", expected.LETTERS, expected.LETTERS, (10, 20), "oh"),)


def test_submissions_that_must_keep_the_time_limit(tmp_path: Path) -> None:
    """In the newer format these are all whose cases must not be too slow, unless they are opted out."""
    said = """
mine: {secret/a: {permitted: [AC]}, secret/b: {permitted: [AC, TLE]}}
wrong_answer/slow.py: {use_for_time_limit: false}
"""
    names = ("accepted/a.py", "wrong_answer/a.py", "wrong_answer/slow.py", "run_time_error/a.py", "mine/a.py")
    others = ("brute_force/a.py", "rejected/a.py", "time_limit_exceeded/a.py")
    found = submissions(tmp_path, *names, *others, said=said)
    assert [found[name].timed for name in names] == [("",), ("",), (), ("",), ("secret/a",)]
    assert [found[name].timed for name in others] == [(), (), ()]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("accepted: {permitted: [OK]}", "permitted: 'OK' is none of AC"),
        ("accepted: {required: 3}", "required: '3' is none of"),
        ("accepted: {score: much}", "score: it has to be one number"),
        ("accepted: [a]", "accepted: it has to be a map"),
        ('"a{b": {}', "its braces do not match"),
        (f'"{"*a" * 9}": {{}}', "8 '\\*' at most"),
    ],
)
def test_rules_that_are_wrong(tmp_path: Path, said: str, reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        submissions(tmp_path / "x", "accepted/a.py", said=said)


@pytest.mark.parametrize(
    ("pattern", "path", "is_matched"),
    [
        ("accepted", "accepted/a.py", True),
        ("accepted/*", "accepted/a.py", True),
        ("accepted/*", "accepted/a/b.py", True),
        ("*.py", "accepted/a.py", False),
        ("*/{a,b}.py", "x/b.py", True),
        ("*/{a,b}.py", "x/c.py", False),
        ("a,b", "a,b", True),
        ("x{ 4 }{ 1, 2 }", "x42", True),
        ("x { a}", "xa", False),
        ("a.b", "axb", False),
        ("secret/*-hard", "secret/1-hard", True),
        ("secret/group1", "secret/group1/a/b", True),
        ("secret/group1", "secret/group10/a", False),
    ],
)
def test_patterns(pattern: str, path: str, is_matched: bool) -> None:
    assert expected.matches(pattern, path) is is_matched


def test_rules_that_do_not_hold_are_said() -> None:
    tests = [cases.Test("sample/1"), cases.Test("secret/a/1"), cases.Test("secret/a/2")]

    def broken(letters: str, **keys: Any) -> str:
        rule = expected.Rule("", expected.LETTERS, expected.LETTERS, None, "")._replace(**keys)
        return expected.broken([rule], tests, dict(enumerate(letters.split())), {1: "oh no"}, {"": 5, "secret/a": 7})

    assert broken("AC AC AC", permitted=("AC",)) == ""
    assert "sample/1 is WA, but only AC is permitted" in broken("WA AC AC", permitted=("AC",))
    assert "no case is TLE" in broken("AC AC AC", required=("TLE",))
    assert "no case of secret/a is AC" in broken("AC WA WA", required=("AC",), pattern="secret/a")
    assert broken("AC AC AC", message="no") == ""
    assert "no case has the message 'yes'" in broken("AC AC AC", message="yes")
    assert broken("AC AC AC", score=(5, 5)) == broken("AC AC AC", score=(0, 7), pattern="secret/a") == ""
    assert "the score is 5, but should be from 6 to 9" in broken("AC AC AC", score=(6, 9))


# -- programs


def files_of(made: Package, name: str, **keys: Any) -> dict[str, str]:
    path = made.path / "submissions" / name
    submission = expected.Submission(path, name, "", (), **keys)
    return {file["name"]: file.get("content", "") for file in material.files_of(made, Finder(), submission)}


def test_files_that_a_package_includes(tmp_path: Path) -> None:
    """Included files lie beside the submission and replace its own. A file called main is run."""
    made = package(
        tmp_path,
        "problem_format_version: 2025-09\nconstants: {most: 7, name: {value: x, long: y}}",
        **{
            "submissions/accepted/zz.py": "print({{most}}, {{name.long}}, {{other}})",
            "submissions/accepted/b.cpp": "int main() {}",
            "submissions/accepted/c/a.py": "import helper",
            "submissions/accepted/c/helper.py": "own",
            "include/python3/helper.py": "theirs",
            "include/default/data.txt": "{{name}}",
            "include/cpp/main.cpp": "int main() { return 0; }",
        },
    )
    found = files_of(made, "accepted/zz.py")
    assert found["zz.py"] == "print(7, y, {{other}})"
    assert (found["helper.py"], found["data.txt"]) == ("theirs", "x")
    assert "main=zz.py" in found["run.sh"]
    assert {"b.cpp", "main.cpp", "data.txt"} <= set(files_of(made, "accepted/b.cpp"))
    found = files_of(made, "accepted/c")
    assert found["helper.py"] == "theirs"
    assert "main=a.py" in found["run.sh"]
    assert "main=helper.py" in files_of(made, "accepted/c", entrypoint="helper")["run.sh"]


def test_submissions_that_the_package_does_not_permit(tmp_path: Path) -> None:
    said = "problem_format_version: 2025-09\nlanguages: [cpp, python3]\nlimits: {code: 1}"
    files = {"a.py": "x" * 1024, "b.py": "x" * 1025, "c.java": "class c {}", "d/main.py": "", "d/x.txt": "x" * 1025}
    made = package(tmp_path, said, **{f"submissions/{name}": text for name, text in files.items()})
    assert "a.py" in files_of(made, "a.py")
    for name in ("b.py", "d"):
        with pytest.raises(ClientError, match=r"it has 1\.0 KiB of code, and the package permits 1 KiB"):
            files_of(made, name)
    with pytest.raises(ClientError, match=r"does not permit its language. It permits cpp, python3"):
        files_of(made, "c.java")


def test_languages_that_a_first_line_tells(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        **{
            "submissions/accepted/old.py": "#!/usr/bin/env python2\nprint 1",
            "submissions/accepted/a.pl": "main :- write(1).",
            "submissions/accepted/b.pl": "#!/usr/bin/perl\nprint 1;",
        },
    )
    with pytest.raises(ClientError, match="python2: no such language"):
        files_of(made, "accepted/old.py")
    assert "swipl" in files_of(made, "accepted/a.pl")["run.sh"]
    assert "exec perl" in files_of(made, "accepted/b.pl")["run.sh"]
    assert "python3" in files_of(made, "accepted/old.py", language="python3")["run.sh"]


def test_links_within_a_package_are_followed(tmp_path: Path) -> None:
    links = {
        "submissions/accepted/d/b.py": "-> ../a.py",
        "submissions/accepted/d/round": "-> ..",
        "include/default/x": "x",
    }
    made = package(tmp_path, **{"submissions/accepted/a.py": "print(1)", **links})
    with pytest.raises(ClientError, match="is a link to a directory that contains it"):
        files_of(made, "accepted/d")
    (tmp_path / "submissions" / "accepted" / "d" / "round").unlink()
    assert files_of(made, "accepted/d")["b.py"] == "print(1)"


def test_submissions_that_lead_out_of_the_package(tmp_path: Path) -> None:
    made = package(tmp_path, **{"submissions/accepted/a.py": "-> /etc/passwd"})
    with pytest.raises(ClientError, match="is a link out of "):
        expected.find(made, is_older=True)
    made = package(tmp_path / "b", **{"submissions/accepted/d/a.py": "-> /etc/passwd", "include/default/x": "x"})
    with pytest.raises(ClientError, match="is a link out of "):
        files_of(made, "accepted/d")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"output_validators/check.py": "x"}, {"check.py"}),
        ({"output_validators/check.cc": "x", "output_validators/check.h": "x"}, {"check.cc", "check.h"}),
        ({"output_validators/c/check.cc": "x", "output_validators/c/v.h": "x"}, {"check.cc", "v.h"}),
        ({"output_validators/c/build": "x", "output_validators/c/other": "x"}, {"build", "other", "compile.sh"}),
        ({"output_validator/__main__.py": "x", "output_validator/__init__.py": ""}, {"__main__.py", "__init__.py"}),
    ],
)
def test_validators(tmp_path: Path, files: dict[str, str], names: set[str]) -> None:
    made = material.checker(package(tmp_path, "validation: custom", **files), Finder())
    assert made
    found = {file["name"]: file.get("content", "") for file in made["files"]}
    assert names <= set(found)
    assert "score_multiplier" in found["run.sh"]
    assert "./run" in found[material.VALIDATOR] or "main" in found[material.VALIDATOR] or "program" in json.dumps(found)
    if "__main__.py" in names:
        assert "main=__main__.py" in found[material.VALIDATOR]


def test_validators_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="has no output_validators"):
        material.checker(package(tmp_path / "a", "validation: custom"), Finder())
    two = package(tmp_path / "b", "validation: custom", **{"output_validators/a.py": "", "output_validators/b.py": ""})
    with pytest.raises(ClientError, match=r"only one validator can be used, but there are a\.py, b\.py"):
        material.checker(two, Finder())
    odd = package(tmp_path / "e", "validation: custom", **{"output_validators/check": "#!/bin/sh"})
    with pytest.raises(ClientError, match="no program in a known language"):
        material.checker(odd, Finder())
    unused = package(tmp_path / "c", "validation: default", **{"output_validators/a.py": ""})
    assert material.checker(unused, Finder()) is None
    assert material.checker(package(tmp_path / "d", "problem_format_version: 2025-09"), Finder()) is None
