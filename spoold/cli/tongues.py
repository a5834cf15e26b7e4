"""The table of languages, ``languages.toml`` beside this file. Comments there explain its keys.

The files of the operator and of the user are laid over the built-in one, key by key. The result is checked after each
file, so that an error names the file, the language and the key.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from spoold.cli import homes
from spoold.cli.text import printable
from spoold.model.errors import ClientError, OperatorError

BUILT_IN = os.path.join(os.path.dirname(__file__), "languages.toml")
OF_THE_HOST = "/etc/spoold/languages.toml"


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A language, by the keys of the table."""

    run: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    compile: str = ""
    java: bool = False


def languages() -> dict[str, Language]:
    """Return the languages by name: the built-in ones, with the operator's and then the user's laid over them."""
    return table([BUILT_IN, OF_THE_HOST, of_the_user()])


def of_the_user() -> str:
    """Return the path of the user's own languages: ``languages.toml`` in ``$XDG_CONFIG_HOME/spoold``."""
    return os.path.join(homes.place("XDG_CONFIG_HOME", ".config"), "spoold", "languages.toml")


def table(files: Iterable[str]) -> dict[str, Language]:
    """Return the languages in files. Keys in later files replace those in earlier ones. A file may be missing.

    Raises :class:`OperatorError`, which names the file and the key.
    """
    raw: dict[str, dict[str, Any]] = {}
    known: dict[str, Language] = {}
    for file in files:
        for name, keys in _parsed(file).items():
            if not isinstance(keys, dict):
                raise OperatorError(f"{file}: {name} is no table: write [{name}] with the keys below it")
            raw[name] = raw.get(name, {}) | keys
            try:
                known[name] = msgspec.convert(raw[name], Language)
            except msgspec.ValidationError as error:
                hint = f". The keys are {', '.join(Language.__struct_fields__)}" if "unknown" in str(error) else ""
                raise OperatorError(f"{file}: [{name}]: {error}{hint}") from error
    return dict(sorted(known.items()))


def _parsed(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            return tomllib.load(opened)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise OperatorError(f"{file} cannot be read: {error.strerror}. Correct or remove it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file}: {error}") from error


def find(known: Mapping[str, Language], asked: str) -> str:
    """Return the name of the language that has this name or alias. Raises :class:`ClientError` where none has."""
    for name in (asked, asked.lower()):
        if name in known:
            return name
        if found := next((each for each, language in known.items() if name in language.aliases), None):
            return found
    raise ClientError(f"--language {printable(asked)}: no such language. The languages are: {', '.join(known)}")
