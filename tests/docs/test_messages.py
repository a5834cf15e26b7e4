"""The page about troubles quotes messages in spoold's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.shell import FENCE
from tests.engines import REPOSITORY

PAGE = (REPOSITORY / "contrib/docs/troubleshooting.md").read_text()
MESSAGES = [line for match in FENCE.finditer(PAGE) if match[2] == "text" for line in match[4].splitlines()]
VARIABLE = re.compile(r"\{\w*\}")  # of str.format


def said() -> list[str]:
    """Return all texts of the code, with ``...`` in place of variables."""
    found: list[str] = []
    for path in sorted((REPOSITORY / "spoold").rglob("*.py")):
        found += _texts(ast.parse(path.read_text()))
    return found


def _texts(tree: ast.AST) -> Iterator[str]:
    about = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings, which no message shows
    for node in ast.walk(tree):
        if node in about:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield VARIABLE.sub("...", node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)


def is_said(message: str, texts: list[str]) -> bool:
    """Tell whether one of the texts has all parts of a message, in order."""
    parts = [re.escape(part) for part in re.split(r"\.\.\.+", message) if part.strip(" .:;,")]
    wanted = re.compile(".*".join(parts), re.DOTALL)
    return any(wanted.search(text) for text in texts)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return said()


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_written_by_the_code(texts: list[str], message: str) -> None:
    assert len(message.replace(".", "").split()) > 3, "too short to be found by"
    assert is_said(message, texts)


def test_a_message_that_nothing_writes_is_found(texts: list[str]) -> None:
    assert not is_said("this id is used already: choose another name of a file", texts)
    assert is_said("this id is used already: choose another file name", texts)
    assert not is_said("... is closed to this user: ... may not use it", texts)


def test_the_page_quotes_messages_of_all_parts() -> None:
    assert len(MESSAGES) > 25
    assert len(FENCE.findall(PAGE)) > 15
