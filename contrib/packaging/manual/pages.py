"""The four pages: two of commands, made from --help, one of the settings, made from spoold.config, and the spec."""

from __future__ import annotations

import inspect
import os
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from manual import markdown
from manual.roff import Page, escaped
from spoold.cli import ctl, exits, roles, tongues
from spoold.config import Settings
from spoold.config.file import DEFAULT_PATH
from spoold.config.live import is_live
from spoold.model.setting import Described, describe

ROOT = Path(__file__).resolve().parents[3]
PAGES = (("spoold", 8), ("spoolctl", 1), ("spoold.toml", 5), ("spool-layout", 5))
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (86400, "days"))


def all_pages() -> Iterator[tuple[str, int, str]]:
    """Yield the name, the section and the text of each page."""
    yield "spoolctl", 1, of_command("spoolctl", 1, ctl.command, "submit programs to spoold, read the responses")
    yield "spoold", 8, of_command("spoold", 8, roles.command, "the daemons that run what is put into a spool")
    yield "spoold.toml", 5, of_settings()
    yield "spool-layout", 5, of_layout()


def _page(name: str, section: int, about: str) -> Page:
    now = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return Page(name, section, date=time.strftime("%Y-%m-%d", now), version=version, about=about)


def _see_also(page: Page, name: str) -> None:
    page.heading("SEE ALSO")
    page.paragraph(", ".join(f"**{other}**({section})" for other, section in PAGES if other != name))


# -- commands


def of_command(name: str, section: int, command: click.Group, about: str) -> str:
    """Return the page of a command and of all commands in it."""
    page = _page(name, section, about)
    context = click.Context(command, info_name=name)
    page.heading("SYNOPSIS")
    page.usage(rf"\fB{name}\fR [\fIoptions\fR] \fIcommand\fR [\fIarguments\fR]")
    page.heading("DESCRIPTION")
    _help(page, command)
    page.heading("OPTIONS")
    _options(page, command, context)
    page.heading("COMMANDS")
    for path, each, inner in commands(command, context):
        page.subheading(path)
        page.usage(rf"\fB{escaped(path)}\fR " + escaped(" ".join(each.collect_usage_pieces(inner))))
        _help(page, each)
        _options(page, each, inner)
    if name == "spoolctl":
        _languages(page)
    page.heading("EXIT STATUS")
    markdown.add(page, table(exits.__doc__ or ""))
    page.heading("ENVIRONMENT")
    page.item(r"\fBSPOOLD_CONFIG\fR", f"The settings file, where --config names none. [default: {DEFAULT_PATH}]")
    if name == "spoolctl":
        page.item(r"\fBSPOOLD_SPOOL\fR", "The spool, where --spool names none.")
        page.item(r"\fBSPOOLD_SSH\fR", "The command that reaches another host, with its options. [default: ssh]")
        page.item(r"\fBXDG_CONFIG_HOME\fR", "The directory whose spoold/ has your languages. [default: ~/.config]")
        page.item(r"\fBXDG_STATE_HOME\fR", "The directory whose spoold/ has your records. [default: ~/.local/state]")
    page.heading("FILES")
    page.item(rf"\fI{escaped(DEFAULT_PATH)}\fR", "The settings, see **spoold.toml**(5).")
    page.item(rf"\fI{escaped(Settings().spool.path)}\fR", "The spool, see **spool-layout**(5).")
    if name == "spoolctl":
        page.item(rf"\fI{escaped(tongues.OF_THE_HOST)}\fR", "Languages of `spoolctl run`, see LANGUAGES.")
        page.item(r"\fI~/.config/spoold/languages.toml\fR", "Languages of your own. They are laid over these.")
        page.item(r"\fI~/.local/state/spoold/\fR", "Records of your submissions, for `spoolctl list`.")
    _see_also(page, name)
    return page.text()


def _languages(page: Page) -> None:
    """Add the built-in table of languages, and the text about tables at the beginning of its file."""
    text = Path(tongues.BUILT_IN).read_text()
    page.heading("LANGUAGES")
    page.paragraph("**spoolctl run** knows these by the endings of files. `--language` takes their names.")
    known = tongues.table([tongues.BUILT_IN])
    rows = [(name, each.title, " ".join(each.extensions), " ".join(each.packages)) for name, each in known.items()]
    page.table([("name", "language", "endings", "packages"), *rows])
    page.paragraph("Tables are in TOML:")
    page.code(line.removeprefix("#").removeprefix(" ") for line in text[: text.index("\n\n")].splitlines())
    page.paragraph("For example, pypy in place of python3, and `.pl` for Perl alone:")
    page.code(["[python]", 'packages = ["pypy3"]', """run = 'exec pypy3 "$main" "$@"'""", "", "[prolog]"])
    page.code(['extensions = ["pro"]'])


def commands(command: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield the commands in a group in the order of --help: the words that call each, the command, and its context."""
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        if each is not None and not each.hidden:
            inner = click.Context(each, info_name=name, parent=context)
            yield f"{inner.command_path}", each, inner
            if isinstance(each, click.Group):
                yield from commands(each, inner)


def _help(page: Page, command: click.Command) -> None:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if paragraph.startswith("\b"):  # click's mark for lines that stay as they are
            page.code(line.removeprefix("  ") for line in paragraph.splitlines()[1:])
        else:
            page.paragraph(paragraph)


def _options(page: Page, command: click.Command, context: click.Context) -> None:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and record[1]:
            page.item(rf"\fB{escaped(record[0])}\fR", record[1])


def table(text: str) -> str:
    """Return the rows of the table in a text."""
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


# -- settings


def of_settings() -> str:
    """Return the page of the settings file."""
    page = _page("spoold.toml", 5, "settings of spoold")
    page.heading("DESCRIPTION")
    page.paragraph(
        "The daemons and **spoolctl**(1) read their settings from one file in TOML. It is the file of --config, else "
        f"of $SPOOLD_CONFIG, else `{DEFAULT_PATH}`. Settings that the file does not name have their defaults. A name "
        "that spoold does not know is an error. Without a file all settings have their defaults. `spoolctl config` "
        "prints the settings in force."
    )
    page.paragraph(
        "Running daemons take over some settings by `systemctl reload` or SIGHUP. The text of a setting says so. All "
        "others need a restart. `spoolctl config --defaults` prints a file with all settings, commented out."
    )
    page.heading("SETTINGS")
    for section in describe(Settings()):
        if section.settings:
            page.subheading(f"[{section.path}]" if section.path else "Pins of nixpkgs")
            if section.path:
                page.paragraph(section.about)
        for setting in section.settings:
            page.item(_assignment(setting), meaning(setting))
    page.heading("EXAMPLES")
    page.code(["[spool]", 'path = "/srv/spool"', "", "[sandbox]", 'mode = "recycled"', "", "[limits.run.default]"])
    page.code(["time = 5", "", "[nixpkgs]", 'default = "/srv/nixpkgs-24.11.tar.gz"'])
    page.heading("FILES")
    page.item(rf"\fI{escaped(DEFAULT_PATH)}\fR", "The file that is read unless another is named.")
    _see_also(page, "spoold.toml")
    return page.text()


def _assignment(setting: Described) -> str:
    """Return a setting with its default, as a file has it."""
    if isinstance(setting.default, dict):
        return rf"\fB{escaped(setting.name)}\fR = {{}}" if setting.section else rf"\fB[{escaped(setting.name)}]\fR"
    text = msgspec.toml.encode({setting.name: setting.default}).decode().strip()
    name, _, value = text.partition(" = ")
    return rf"\fB{escaped(name)}\fR = {escaped(value)}"


def meaning(setting: Described) -> str:
    """Return what a setting means, in sentences."""
    text = setting.description[0].upper() + setting.description[1:] + "."
    if setting.choices:
        text += f" One of {', '.join(setting.choices)}."
    if setting.unit:
        text += f" In {setting.unit}{_readable(setting)}."
    path = f"{setting.section}.{setting.name}".lstrip(".").split(".")
    if any(is_live(".".join(path[:depth])) for depth in (1, 2)):
        text += " Taken over by a reload."
    return text


def _readable(setting: Described) -> str:
    """Return a large default in a larger unit, where that gives a whole number, else ""."""
    value = setting.default
    if not isinstance(value, int | float):
        return ""
    for size, unit in UNITS:
        if (unit == "days") == (setting.unit == "seconds") and value and value % size == 0:
            return f"; the default is {value / size:g} {unit}"
    return ""


# -- the spec


def of_layout() -> str:
    """Return the page of the spool's layout."""
    page = _page("spool-layout", 5, "the directories, files and states of a spool")
    _, _, text = (ROOT / "spool-layout.md").read_text().partition("\n")
    page.heading("DESCRIPTION")
    markdown.add(page, text)
    _see_also(page, "spool-layout")
    return page.text()
