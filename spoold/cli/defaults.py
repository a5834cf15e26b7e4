"""The default settings file: every setting commented out, with its default and its meaning.

Lines of text begin with ``# ``, settings with ``#`` alone, as in sshd_config(5). To set a setting, remove its ``#``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import msgspec

from spoold.config import Settings
from spoold.config.live import is_live
from spoold.model.setting import CHOSEN, Described, Section, describe

WIDTH = 100
HEAD = """\
# Settings of spoold. Each is commented out and shows its default: remove the "#" to set it. An unknown one is an error.
# `systemctl reload 'spoold-*'` applies the ones that are marked with (reload). All others need a restart.
# `spoolctl config` prints the settings in force, and `spoolctl doctor` says what is wrong.
"""
NIXPKGS = '#default = "/srv/nixpkgs-24.11.tar.gz"\n'  # pins have no default to show


def text() -> str:
    """Return the whole file."""
    sections = list(describe(Settings()))
    tables = [_table(section) for section in sections if section.path and section.settings]
    top = [_nixpkgs(setting) for section in sections if not section.path for setting in section.settings]
    return "\n".join([HEAD, *top, *tables])


def _nixpkgs(setting: Described) -> str:
    """Return the table of pins, which comes first since it must be set. Its keys are names that the operator chooses.

    All of it is commented out, so that an installer may append a table of the same name.
    """
    return f"{_comment(_sentence(setting, setting.name))}#[{setting.name}]\n{NIXPKGS}"


def _table(section: Section) -> str:
    about = " ".join(section.about.split("\n\n")[0].replace("``", "").split())
    # otherwise the file would define a table with the placeholder as its name
    mark = "#" if CHOSEN in section.path.split(".") else ""
    return "".join([_comment(about), f"{mark}[{section.path}]\n", *_lines(section)])


def _lines(section: Section) -> Iterator[str]:
    for setting in section.settings:
        yield _comment(_sentence(setting, f"{section.path}.{setting.name}"))
        default = msgspec.to_builtins(setting.default)
        value = f"{setting.name} = {{}}" if default == {} else msgspec.toml.encode({setting.name: default}).decode()
        yield "".join(f"#{line}\n" for line in value.strip().splitlines())


def _sentence(setting: Described, path: str) -> str:
    unit = f", in {setting.unit}" if setting.unit else ""
    choices = f"; one of: {', '.join(setting.choices)}" if setting.choices else ""
    live = " (reload)" if any(is_live(".".join(path.split(".")[:depth])) for depth in (1, 2)) else ""
    return f"{setting.description}{unit}{choices}{live}"


def _comment(words: str) -> str:
    return textwrap.fill(words, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"
