#!/usr/bin/env python3
"""Makes contrib/docs/reference.md from what spoold itself says: ``--help``, the settings, the JSON Schemas.

usage: contrib/docs/reference.py [--check]

Run it with a Python that has spoold's dependencies, after a command, an option, a setting or a key has changed. With
``--check`` nothing is written. Exit codes: 0 written, or current; 1 not current.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parents[1]), str(HERE.parents[1] / "contrib" / "packaging")]

import click  # noqa: E402 - after what says where things are
import msgspec  # noqa: E402 - as above

from manual import pages  # noqa: E402 - as above
from spoold.cli import ctl, exits, roles  # noqa: E402 - as above
from spoold.config import Settings  # noqa: E402 - as above
from spoold.config.file import DEFAULT_PATH  # noqa: E402 - as above
from spoold.model.schema import Name, schema  # noqa: E402 - as above
from spoold.model.setting import Described, describe  # noqa: E402

PAGE = HERE / "reference.md"
TOP = f"""\
# Reference

`contrib/docs/reference.py` makes this page from what spoold itself says, so it says the same as `--help`, `spoolctl
config --defaults` and `spoolctl schema`. Meanings and rules are in [spool-layout.md](../../spool-layout.md).

* [spoolctl](#spoolctl), [spoold](#spoold), [exit codes](#exit-codes), [environment](#environment)
* [Settings](#settings), which are one file in TOML, `{DEFAULT_PATH}`
* [Keys of a request](#keys-of-a-request), [keys of a response](#keys-of-a-response)
"""
ENVIRONMENT = {
    "SPOOLD_CONFIG": f"The settings file, where `--config` names none. Default: `{DEFAULT_PATH}`",
    "SPOOLD_SPOOL": "The spool, where `--spool` names none. For `spoolctl` and the client library",
    "SPOOLD_SSH": "The command that reaches another host, with its options. Default: `ssh`",
}
HELP = "Show this message and exit."  # every command says this of --help
SPEC = "../../spool-layout.md"
ABOUT: dict[Name, str] = {
    "request": f"[The request]({SPEC}#3-the-request) says what they mean. Only `files` with a `run.sh` is required.",
    "response": f"[The Response]({SPEC}#4-the-response) says what they mean.",
}


def text() -> str:
    """Return the page."""
    parts = [TOP]
    for name, command in (("spoolctl", ctl.command), ("spoold", roles.command)):
        parts += [f"## {name}\n", *of_command(name, command)]
    codes = re.sub(r"``([^`]+)``", r"`\1`", pages.table(exits.__doc__ or ""))
    parts += ["## Exit codes\n", f"{codes}\n", "## Environment\n"]
    parts.append(table("variable", "what it is", ((f"`{name}`", about) for name, about in ENVIRONMENT.items())))
    parts += ["## Settings\n", *of_settings()]
    for kind in get_args(Name):
        parts += [f"## Keys of a {kind}\n", f"{ABOUT[kind]}\n", *of_schema(schema(kind))]
    return "\n".join(parts)


def table(one: str, other: str, rows: Iterator[tuple[str, str]]) -> str:
    """Return a table of two columns."""
    lines = [f"| {one} | {other} |", "|---|---|"]
    lines += [f"| {first} | {second} |" for first, second in rows]
    return "\n".join(lines) + "\n"


def cell(words: str) -> str:
    """Return words as they stand in a table."""
    return " ".join(words.split()).replace("|", "\\|")


# -- commands


def of_command(name: str, command: click.Group) -> Iterator[str]:
    """Yield the parts about a command and the commands in it."""
    context = click.Context(command, info_name=name)
    yield from _about(command, context)
    for path, each, inner in pages.commands(command, context):
        yield f"### {path}\n"
        yield f"`{path} {' '.join(each.collect_usage_pieces(inner))}`\n"
        yield from _about(each, inner)


def _about(command: click.Command, context: click.Context) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if paragraph.startswith("\b"):  # click's mark for lines that stay as they are
            first, *lines = paragraph.splitlines()[1:]
            yield f"{first}\n"
            yield "\n".join(["```console", *(line.strip() for line in lines), "```\n"])
        else:
            yield f"{paragraph}\n"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"`{cell(record[0])}`", cell(record[1])) for record in records if record and record[1] != HELP]
    rows = [row for row in rows if row[1]]
    if rows:
        yield table("option", "what it does", iter(rows))


# -- settings


def of_settings() -> Iterator[str]:
    """Yield the tables of the settings file."""
    for section in describe(Settings()):
        if section.settings:
            yield f"### {f'[{section.path}]' if section.path else 'Pins of nixpkgs'}\n"
            if section.path:
                yield section.about.replace("``", "`") + "\n"
            rows = (
                (f"`{cell(_assigned(each))}`", cell(pages.meaning(each)).replace("``", "`"))
                for each in section.settings
            )
            yield table("setting, and its default", "what it means", rows)


def _assigned(setting: Described) -> str:
    if isinstance(setting.default, dict):
        return f"{setting.name} = {{}}" if setting.section else f"[{setting.name}]"
    return msgspec.toml.encode({setting.name: setting.default}).decode().strip()


# -- keys


def of_schema(of: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each kind of object in a schema, first the one for the whole."""
    for name, part in {"": of, **of["$defs"]}.items():
        if "properties" not in part:
            continue
        if name:
            yield f"### {name} of a {of['title'].lower()}\n"
        yield f"{part['description']}\n"
        required = part.get("required", ())
        rows = ((f"`{key}`", _kind(value, required=key in required)) for key, value in part["properties"].items())
        yield table("key", "what it holds", rows)


def _kind(value: dict[str, Any], *, required: bool) -> str:
    words = _words(value)
    if "default" in value and value["default"] not in (None, [], {}, ""):
        words += f"; default `{json.dumps(value['default'])}`"
    return cell(words + ("; required" if required else ""))


def _words(value: dict[str, Any]) -> str:
    """Say what a value may be."""
    if "anyOf" in value:
        kinds = [_words(each) for each in value["anyOf"] if each != {"type": "null"}]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in value:
        return f"*{value['$ref'].rpartition('/')[2]}*"
    if "enum" in value:
        return " or ".join(f"`{each}`" for each in value["enum"])
    if value.get("type") == "array":
        return f"a list of {_words(value['items'])}" if value.get("items") else "a list"
    if value.get("type") == "object":
        inside = value.get("additionalProperties")
        return f"an object of {_words(inside)}" if isinstance(inside, dict) and inside else "an object"
    named = {"string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    bounds = [f"{word} {value[key]:g}" for key, word in BOUNDS.items() if key in value]
    return " ".join([named.get(value.get("type", ""), "anything"), *bounds])


BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


def main() -> None:
    """Run the command."""
    match sys.argv[1:]:
        case []:
            PAGE.write_text(text())
        case ["--check"] if text() != PAGE.read_text():
            sys.exit(f"{PAGE} is not current: run contrib/docs/reference.py")
        case ["--check"]:
            pass
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
