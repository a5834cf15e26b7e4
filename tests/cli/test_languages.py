"""Programs by the endings of their names: their language, its commands, and the tables that define both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from spoold.cli import java, languages, tongues
from spoold.model.errors import ClientError, OperatorError
from tests.engines import REPOSITORY

PROGRAMS = REPOSITORY / "tests" / "languages"


@pytest.fixture(autouse=True)
def no_tables_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tongues, "OF_THE_HOST", str(tmp_path / "host" / "languages.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))


def files(directory: Path, **contents: str) -> list[Path]:
    """Write files and return their paths. In the given names, _ stands for a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / name.replace("_", ".") for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(content)
    return paths


def names(program: languages.Program) -> list[str]:
    return [file["name"] for file in program.files]


def run(program: languages.Program, directory: Path, *args: str, stdin: str = "") -> str:
    """Write, compile and run a program here. Return what it printed."""
    for file in program.files:
        path = directory / file["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.get("content", ""))
    if program.compile:
        subprocess.run(["bash", "compile.sh"], cwd=directory, check=True, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        ["bash", "run.sh", *args], cwd=directory, check=True, input=stdin, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


# -- which language


@pytest.mark.parametrize(
    "directory", sorted(path for path in PROGRAMS.iterdir() if path.is_dir()), ids=lambda p: p.name
)
def test_every_language_that_is_tested_is_in_the_table(directory: Path) -> None:
    mains = [*directory.glob("[mM]ain.*"), *directory.glob("src/main.*")]
    if not mains or directory.name == "tools":  # scripts and tools have no file but run.sh
        assert directory.name in ("bash", "sqlite", "tools")
        return
    asked = directory.name if mains[0].suffix == ".pl" else None  # two languages have this ending
    made = languages.program(mains, asked)
    assert made.language == directory.name
    assert (made.compile is not None) == (directory / "compile.sh").exists()


def test_every_language_greets() -> None:
    """tests/greetings has a program in each language. Tests with engines run them."""
    greets = {languages.program([path]).language for path in (PROGRAMS.parent / "greetings").iterdir()}
    assert sorted(greets) == list(tongues.languages())


def test_the_built_in_table_is_complete_and_its_shell_is_right() -> None:
    known = tongues.languages()
    assert len(known) >= 25
    for name, language in known.items():
        assert language.title, name
        assert language.extensions, name
        for commands in (language.compile, language.run):
            subprocess.run(["bash", "-n", "-c", commands], check=True)
    taken = [alias for name, language in known.items() for alias in (name, *language.aliases)]
    assert len(set(taken)) == len(taken)


def test_an_ending_of_two_languages_asks_which(tmp_path: Path) -> None:
    main = files(tmp_path, main_pl="print 1;")
    with pytest.raises(ClientError, match=r"Perl and Prolog end in \.pl: use --language perl or --language prolog"):
        languages.program(main)
    assert languages.program(main, "prolog").run == 'main=main.pl\nexec swipl -g true -t halt "$main" "$@"\n'
    assert languages.program(files(tmp_path, main_pl="#!/usr/bin/env -S perl -w\n")).language == "perl"


@pytest.mark.parametrize(
    ("first", "language"),
    [("#!/usr/bin/env python3.11", "python"), ("#!/bin/sh -e", "bash"), ("#!/usr/bin/env -S A=1 node", "javascript")],
)
def test_a_first_line_tells_the_language_of_a_name_without_ending(tmp_path: Path, first: str, language: str) -> None:
    assert languages.program(files(tmp_path, program=f"{first}\n")).language == language


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "util.h",
            r"^util\.h: no known language has the ending \.h: use --language NAME\. The languages are: awk, bash, c",
        ),
        ("Makefile", "^Makefile: its name does not tell its language: use --language NAME. The languages are: awk"),
        ("x.\x1b", r"^x\.\\x1b: no known language has the ending \.\\x1b"),
    ],
)
def test_what_is_no_program_is_told_with_the_choice(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ClientError, match=said):
        languages.program([tmp_path / name])


def test_a_language_is_asked_for_by_name_or_alias(tmp_path: Path) -> None:
    main = files(tmp_path, main_txt="")
    assert [languages.program(main, name).language for name in ("python", "py", "Python", "c++")] == [
        *("python", "python", "python", "cpp")
    ]
    with pytest.raises(ClientError, match=r"--language cobol: no such language\. The languages are: awk, bash"):
        languages.program(main, "cobol")


def test_the_first_file_that_is_a_program_is_run(tmp_path: Path) -> None:
    made = languages.program(files(tmp_path, data_csv="", b_py="", a_py="", util_h=""))
    assert made.run == 'main=b.py\nexec python3 "$main" "$@"\n'
    assert names(made) == ["data.csv", "b.py", "a.py", "util.h", "cutor.nix", "run.sh"]


def test_an_ending_in_capitals_is_one_but_for_one_letter(tmp_path: Path) -> None:
    assert languages.program(files(tmp_path, MAIN_PY="")).language == "python"
    assert languages.program(files(tmp_path, main_C="")).language == "cpp"


# -- commands


def test_files_keep_their_places_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path / "src", main_py="", util_py="")
    files(tmp_path / "data", in_txt="")
    monkeypatch.chdir(tmp_path)
    assert names(languages.program([Path("src/main.py")]))[0] == "main.py"
    assert names(languages.program([Path("src/main.py"), tmp_path / "src" / "util.py"]))[:2] == ["main.py", "util.py"]
    both = languages.program([Path("src/main.py"), Path("src/../data/in.txt")])
    assert names(both)[:2] == ["src/main.py", "data/in.txt"]
    monkeypatch.chdir(tmp_path / "data")
    assert languages.program([Path("../src/main.py"), Path("in.txt")]) == both


def test_packages_are_added_to_those_of_the_language(tmp_path: Path) -> None:
    main = files(tmp_path, main_py="")
    made = languages.program(main, own_packages=["python3", "python3Packages.numpy"])
    assert made.expression is not None
    assert "[ pkgs.python3 pkgs.python3Packages.numpy ]" in made.expression
    assert languages.program(files(tmp_path, main_sh="")).expression is None
    with pytest.raises(ClientError, match="already names packages: use only one"):
        languages.program([*main, *files(tmp_path, cutor_nix="")], own_packages=["jq"])


def test_scripts_of_ones_own_take_the_place_of_those_that_are_made(tmp_path: Path) -> None:
    own = files(tmp_path, main_c="", compile_sh="cc main.c\n")
    assert languages.program(own).compile == "cc main.c\n"
    made = languages.program([*own, *files(tmp_path, run_sh="./a.out\n")])
    assert (made.language, made.run, names(made)) == ("", "./a.out\n", ["main.c", "compile.sh", "run.sh"])


def test_a_directory_is_its_files_and_main_is_run(tmp_path: Path) -> None:
    files(tmp_path / "sub", data_txt="x")
    files(tmp_path, a_py="", main_py="")
    made = languages.program([tmp_path])
    assert made.run.startswith("main=main.py\n")
    assert names(made) == ["a.py", "main.py", "sub/data.txt", "cutor.nix", "run.sh"]
    with pytest.raises(ClientError, match="is a directory: name the files in it, or the directory alone"):
        languages.program([tmp_path / "main.py", tmp_path / "sub"])
    (tmp_path / "out").symlink_to("/etc/hostname")
    with pytest.raises(ClientError, match="out: is a link out of the directory"):
        languages.program([tmp_path])


@pytest.mark.parametrize("name", ["it's $HOME.py", "a b/m n.py"])
def test_odd_names_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True)
    path.write_text("import sys; print(*sys.argv[1:], input())")
    made = languages.program([path])
    assert run(made, tmp_path / "out", "a b", "*", stdin="42\n") == "a b * 42\n"


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_a_program_of_several_files_is_compiled(tmp_path: Path) -> None:
    sources = files(
        tmp_path / "in",
        main_c='#include "add.h"\n#include <stdio.h>\nint main(void) { printf("%d\\n", add(20, 22)); }',
        add_h="int add(int a, int b);",
        add_c="int add(int a, int b) { return a + b; }",
    )
    assert run(languages.program(sources), tmp_path / "out") == "42\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("global main\nmain: ret", "nasm -f elf64 -o main.o main.asm\ngcc -no-pie -o program main.o\n"),
        ("; global _start, not really\nglobal main\nmain: ret ; no int 0x80", "gcc -no-pie -o program main.o\n"),
        ("\tGLOBAL a, _start:function\n_start: syscall", "gcc -no-pie -nostartfiles -o program main.o\n"),
        ("global my_start\nmy_start: ret", "gcc -no-pie -o program main.o\n"),
        ("global _start\n_start: mov eax, 1\n INT 80h", "use syscall, with its numbers\n"),
        ("global main\nmain: int 0x80", "use syscall, with its numbers\n"),
    ],
)
def test_an_assembler_program_is_linked_as_its_beginning_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """tests/greetings has such programs for the real ones."""
    (tmp_path / "bin").mkdir()
    for name in ("nasm", "gcc"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    made = languages.program(files(tmp_path, main_asm=text))
    assert made.compile is not None
    done = subprocess.run(["bash", "-c", made.compile], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.stderr or done.stdout).endswith(said)
    assert (done.returncode != 0) == bool(done.stderr)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"none\.py cannot be read: No such file"):
        languages.program([tmp_path / "none.py"])


# -- Java


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("public class Main { public static void main(String[] a) { } }", ("Main", "Main", True)),
        ("package a.b;\npublic final class X { static void main(String[] a) { } }", ("X", "a.b.X", True)),
        ("class Other { class Inner { } }\nclass Runs { void main( ) { } }", ("", "Runs", True)),
        ("// public class No { }\n/* public class Nor { } */ public class Yes { }", ("Yes", "Yes", False)),
        ("class A { String s = \"} public class B { void main(\"; char c = '{'; }", ("", "A", False)),
        ("class A { Object o = A.class; public class Inner { void main() { } } }", ("", "A", True)),
        ("interface Shape { }\npublic record P(int x) { public static void main(String... a) { } }", ("P", "P", True)),
        ("import java.util.*;", ("", "stem", False)),
    ],
)
def test_javas_names(text: str, source: tuple[str, str, bool]) -> None:
    assert java.look(text, "stem") == source


def test_a_file_of_java_is_called_as_the_class_in_it(tmp_path: Path) -> None:
    sources = files(
        tmp_path,
        helper_java="public class Helper { }",
        homework_java="public class Sum { public static void main(String[] a) { } }",
        notes_txt="",
    )
    made = languages.program(sources)
    assert names(made)[:3] == ["Helper.java", "Sum.java", "notes.txt"]
    assert made.compile == 'files=(Helper.java Sum.java)\njavac -encoding UTF-8 -d . "${files[@]}"\n'
    assert made.run == 'class=Sum\nexec java "$class" "$@"\n'


# -- tables


def test_tables_are_laid_over_each_other_key_by_key(tmp_path: Path) -> None:
    files(tmp_path / "host", languages_toml='[python]\npackages = ["pypy3"]\n[perl]\nextensions = ["pl"]\n')
    files(tmp_path / "user", x="")
    files(
        tmp_path / "user" / "spoold",
        languages_toml='[python]\nrun = "pypy3 $main"\n[prolog]\nextensions = ["pro"]\n[cobol]\nrun = "cobc $main"\n',
    )
    known = tongues.languages()
    assert (known["python"].run, known["python"].packages) == ("pypy3 $main", ("pypy3",))
    assert known["python"].extensions == ("py",)
    assert known["cobol"].extensions == ()
    assert languages.program(files(tmp_path, main_pl="")).language == "perl"


def test_the_users_table_is_in_the_home_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for said in ("", "relative"):  # both have to be ignored
        monkeypatch.setenv("XDG_CONFIG_HOME", said)
        assert tongues.of_the_user() == "/home/ada/.config/spoold/languages.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[python]\nrun = 3", r"\[python\]: Expected `str`, got `int` - at `\$.run`"),
        ('[python]\npackages = "python3"', r"\[python\]: Expected `array`, got `str` - at `\$.packages`"),
        ("[python]\nruns = ''", r"\[python\]: Object contains unknown field `runs`\. The keys are run, title"),
        ("[cobol]\nextensions = []", r"\[cobol\]: Object missing required field `run`"),
        ("python = 3", r"python is no table: write \[python\]"),
        ("[python\n", r"Expected ']' at the end of a table declaration \(at line 1"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    (path,) = files(tmp_path / "user" / "spoold", languages_toml=text)
    with pytest.raises(OperatorError, match=f"^{path}: {said}"):
        tongues.languages()


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "host" / "languages.toml").mkdir(parents=True)
    with pytest.raises(OperatorError, match=r"cannot be read: Is a directory\. Correct or remove it"):
        tongues.languages()
