"""Files and functions that pages about the code name do exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.model.response import Status
from tests.engines import REPOSITORY

PAGES = ("CONTRIBUTING.md", "contrib/docs/architecture.md")
MARKED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"spoold(/[\w.-]+)+/?|[\w-]+\.(py|c|h|sh|nix)")
FUNCTION = re.compile(r"(\w+\.)?\w+\(\)")
KIND = re.compile(r"[A-Z]\w*[a-z]\w*")  # a class
CONSTANT = re.compile(r"[A-Z][A-Z_]+")
OF_A_CLIENT = ("cutor.nix", "compile.sh", "run.sh")
WORDS = {*Status, "ENOENT", "NAME"}


def functions(path: Path) -> set[str]:
    """Return the names that a file defines or imports: functions, methods with their class, classes, and constants."""
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        return {f"{name}()" for name in re.findall(r"^[\w ]*?\*?(\w+)\(.*\)\n?\{?$", text, re.MULTILINE)}
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [each.name for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
            found |= {node.name, *(f"{node.name}.{name}()" for name in methods)}
            found |= {target.id for each in node.body for target in _targets(each)}
        elif isinstance(node, ast.FunctionDef):
            found.add(f"{node.name}()")
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        found |= {target.id for target in _targets(node)}
    return found


def _targets(node: ast.AST) -> Iterator[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from (each for each in ast.walk(target) if isinstance(each, ast.Name))


def unknown(page: str, root: Path = REPOSITORY) -> list[str]:
    """Return the names in a page that do not exist.

    A function, class or constant is looked for in the files of the same paragraph or item. A file without a folder is
    in the last folder that was named there.
    """
    return [name for part in re.split(r"\n\n|\n(?=\d+\. |\* |\| )", page) for name in _unknown_in(part, root)]


def _unknown_in(part: str, root: Path) -> Iterator[str]:
    files: list[Path] = []
    folder = None
    names = []
    for mark in MARKED.findall(part):
        if FILE.fullmatch(mark) and mark not in OF_A_CLIENT and "NAME" not in mark:
            if "/" not in mark and folder is None:
                continue
            path = root / mark if "/" in mark or folder is None else folder / mark
            folder = path if path.is_dir() else folder
            files += [path] if path.suffix in (".py", ".c", ".h") and path.exists() else []
            if not path.exists():
                yield mark
        elif FUNCTION.fullmatch(mark) or KIND.fullmatch(mark) or CONSTANT.fullmatch(mark):
            names.append(mark)
    known = {name for path in files for name in functions(path)} | WORDS
    yield from (name for name in names if name not in known and (files or FUNCTION.fullmatch(name)))


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_exists(name: str) -> None:
    assert unknown((REPOSITORY / name).read_text()) == []


def test_every_step_of_the_way_names_a_function() -> None:
    page = (REPOSITORY / "contrib/docs/architecture.md").read_text()
    steps = re.findall(r"^\d+\. `(spoold/[^`]+)`(.*?)(?=^\d+\. |^\n|\Z)", page, re.MULTILINE | re.DOTALL)
    assert len(steps) > 20
    assert len([1 for _, text in steps if re.search(r"`[\w.]+\(\)`", text)]) > len(steps) - 3


TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_tests_that_pages_name_exist() -> None:
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "contrib/docs").rglob("*.md")]
    named = [(path, name) for page in pages for path, name in TEST.findall(page.read_text())]
    assert len(named) > 3
    assert [each for each in named if f"{each[1]}()" not in functions(REPOSITORY / each[0])] == []


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("`spoold/loop.py`: `Loop.run()`, `RETRY`, `Loop`", []),
        ("`spoold/gone.py`: `Loop.run()`", ["spoold/gone.py", "Loop.run()"]),
        ("`spoold/loop.py`: `Loop.walk()`", ["Loop.walk()"]),
        ("`spoold/loop.py`: `Wheel`", ["Wheel"]),
        ("`spoold/sandbox/inside/`: `phase.c`", []),
        ("`spoold/sandbox/inside/`: `gone.c`", ["gone.c"]),
        ("`spoold/sandbox/inside/phase.c`: `run_phase()`, `gone()`", ["gone()"]),
        ("`spoold/loop.py`\n\n`spoold/watch.py`: `Loop.run()`", ["Loop.run()"]),
        ("`spoold/loop.py`\n\n`Loop.run()`", ["Loop.run()"]),
    ],
)
def test_what_is_not_there_is_found(page: str, wrong: list[str]) -> None:
    assert unknown(page) == wrong
