"""contrib/packaging/man: every command, option and setting has its place, and man programs accept the pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from spoold.cli import ctl, roles, tongues
from spoold.config import Settings
from spoold.model.setting import describe
from spoold.spool import layout
from tests import engines

PAGES = ("man1/spoolctl.1", "man8/spoold.8", "man5/spoold.toml.5", "man5/spool-layout.5")
COMMANDS = {"man1/spoolctl.1": ctl.command, "man8/spoold.8": roles.command}
SCRIPT = engines.REPOSITORY / "contrib/packaging/man"


def make(directory: Path, *prefix: str) -> Path:
    """Make everything below a directory. Return the directory of the pages."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, SCRIPT, directory, *prefix], check=True, env=environment, capture_output=True)
    return directory / "usr" / "share" / "man"


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made"))


def plain(man: Path, page: str) -> str:
    """Return a page without its markup, as words in one line."""
    text = re.sub(r"\\f[BIR]|\\[&:]", "", (man / page).read_text())
    for name, character in {r"\-": "-", r"\(aq": "'", r"\(ti": "~", r"\(dq": '"', r"\e": "\\"}.items():
        text = text.replace(name, character)
    return " ".join(text.split())


def test_all_pages_are_made(man: Path) -> None:
    assert {str(path.relative_to(man)) for path in man.rglob("*") if path.is_file()} == set(PAGES)


def walk(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{words} {name}")


@pytest.mark.parametrize("page", COMMANDS)
def test_every_command_and_option_is_there(man: Path, page: str) -> None:
    text = plain(man, page)
    for words, command in walk(COMMANDS[page], page.split("/")[1].partition(".")[0]):
        assert f"{words} " in text
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in text, (words, option)
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"T{{ .na {code} T}}" in text


def test_every_language_is_there(man: Path) -> None:
    text = plain(man, "man1/spoolctl.1")
    for name, language in tongues.table([tongues.BUILT_IN]).items():
        assert f"T{{ .na {name} T}}" in text
        assert all(f"{ending}" in text for ending in language.extensions)
    assert "key by key" in text


def test_every_setting_is_there_with_its_default(man: Path) -> None:
    source = (man / "man5/spoold.toml.5").read_text()
    text = plain(man, "man5/spoold.toml.5")
    for section in describe(Settings()):
        if section.path and section.settings:
            assert f'.SS "[{section.path}]"' in source
        for setting in section.settings:
            if setting.section:
                assert f"{setting.name} = " in text
            assert setting.description[1:] in text


def test_what_a_reload_takes_over_is_marked(man: Path) -> None:
    text = plain(man, "man5/spoold.toml.5")
    assert (
        "settle = 10.0 A file that does not parse is refused once it has not changed for this long. In seconds. Taken"
        in text
    )
    assert "Where the spool is. .TP" in text, "a reload does not take this setting over"


def test_the_spec_is_there(man: Path) -> None:
    text = plain(man, "man5/spool-layout.5")
    for directory in layout.DIRECTORIES:
        assert directory.holds in text
    for state in layout.STATES:
        assert state.entry in text
    for heading in re.findall(r"^#{2,} (.*)$", (engines.REPOSITORY / "spool-layout.md").read_text(), re.MULTILINE):
        assert heading.upper() in text.upper()
    assert "](" not in text
    assert not re.search(r"\*\*\w", text), "markup is left over; code patterns such as **/x don't match this"


def test_the_same_sources_make_the_same_bytes(man: Path, tmp_path: Path) -> None:
    again = make(tmp_path)
    assert [(man / page).read_bytes() for page in PAGES] == [(again / page).read_bytes() for page in PAGES]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("encoding", ["UTF-8", "ANSI_X3.4-1968"])
def test_man_reads_it_without_complaint(man: Path, page: str, encoding: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed (Debian package man-db)")
    command = ["man", "--warnings", f"--encoding={encoding}", "--local-file", str(man / page)]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"MANWIDTH": "100"})
    assert done.stderr == b""
    assert b"NAME" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_reads_it_without_complaint(man: Path, page: str) -> None:
    if shutil.which("mandoc") is None:
        engines.unavailable("mandoc is not installed")
    done = subprocess.run(["mandoc", "-T", "lint", man / page], capture_output=True, check=False)
    assert done.stdout == b""


# -- completions


def test_another_prefix(tmp_path: Path) -> None:
    make(tmp_path, "/usr/local")
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert "usr/local/share/zsh/site-functions/_spoolctl" in made
    assert "usr/local/share/man/man8/spoold.8" in made


ASK = {
    "bash": """
        PATH=$1:$PATH
        source "$2/bash-completion/completions/spoolctl"
        COMP_WORDS=(spoolctl nix) COMP_LINE="spoolctl nix" COMP_CWORD=1
        _spoolctl_completion spoolctl
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        PATH=$1:$PATH
        compdef() { : }
        compadd() { print -rl -- "$@" }
        _describe() { print -rl -- ${(P)3} }
        words=(spoolctl nix) CURRENT=2
        source "$2/zsh/vendor-completions/_spoolctl" 2>/dev/null
        _spoolctl_completion
    """,
    "fish": """
        set -x PATH $argv[1] $PATH
        source "$argv[2]/fish/vendor_completions.d/spoolctl.fish"
        complete --do-complete "spoolctl nix"
    """,
}


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes(man: Path, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "spoolctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m spoold.cli.ctl "$@"\n')
    program.chmod(0o755)
    words = [] if shell == "fish" else [shell]
    command = [shell, "-c", ASK[shell], *words, str(tmp_path), str(man.parent)]
    environment = os.environ | {"PYTHONPATH": str(engines.REPOSITORY), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, check=False, timeout=100, env=environment)
    assert b"nixpkgs" in done.stdout, done.stderr.decode()
