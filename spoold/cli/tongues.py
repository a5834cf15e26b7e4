"""The table of languages: ``languages.toml`` beside this file, which says what is in one, and what is laid over it.

The operator's and the user's own files are laid over the built-in one, key by key. The outcome of each is
checked, so that a message names the file, the language and the key.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

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
    """Return the languages by their names: the built-in ones, the operator's over them, and the user's over both."""
    return table([BUILT_IN, OF_THE_HOST, of_the_user()])


def of_the_user() -> str:
    """Return where a user's own languages are: ``languages.toml`` in ``$XDG_CONFIG_HOME/spoold``."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.config"), "spoold", "languages.toml")


def table(files: Iterable[str]) -> dict[str, Language]:
    """Return the languages that files name, the later over the earlier ones. A file that is missing names none.

    Raises :class:`OperatorError`, which names the file and the key.
    """
    raw: dict[str, dict[str, Any]] = {}
    known: dict[str, Language] = {}
    for file in files:
        for name, keys in _parsed(file).items():
            if not isinstance(keys, dict):
                raise OperatorError(f"{file}: {name} is no table: write [{name}], and the keys below it")
            raw[name] = raw.get(name, {}) | keys
            try:
                known[name] = msgspec.convert(raw[name], Language)
            except msgspec.ValidationError as error:
                hint = f"; the keys are {', '.join(Language.__struct_fields__)}" if "unknown" in str(error) else ""
                raise OperatorError(f"{file}: [{name}]: {error}{hint}") from error
    return dict(sorted(known.items()))


def _parsed(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            return tomllib.load(opened)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise OperatorError(f"{file} cannot be read: {error.strerror}; mend it, or remove it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file}: {error}") from error


def find(known: Mapping[str, Language], asked: str) -> str:
    """Return the name of the language that has this name or alias; raises :class:`ClientError` where none has."""
    for name in (asked, asked.lower()):
        if name in known:
            return name
        if found := next((each for each, language in known.items() if name in language.aliases), None):
            return found
    raise ClientError(f"--language {printable(asked)}: no such language; there are: {', '.join(known)}")
