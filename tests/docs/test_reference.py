"""contrib/docs/reference.md has everything that the commands, the settings and the schemas say, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from spoold.cli import ctl, roles
from tests.engines import REPOSITORY

PAGE = REPOSITORY / "contrib/docs/reference.md"
PROGRAM = PAGE.with_suffix(".py")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    checked = subprocess.run([sys.executable, PROGRAM, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_a_page_that_is_not_current_is_found(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference.md").write_text(PAGE.read_text() + "more\n")
    monkeypatch.setattr(reference, "PAGE", tmp_path / "reference.md")
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    with pytest.raises(SystemExit, match="not current"):
        reference.main()


@pytest.mark.parametrize(("name", "command"), [("spoolctl", ctl.command), ("spoold", roles.command)])
def test_every_command_has_its_part(name: str, command: click.Group) -> None:
    text = PAGE.read_text()
    for inner in command.commands:
        assert f"\n### {name} {inner}\n" in text


def test_a_schema_in_words(reference: ModuleType) -> None:
    words = {
        "a list of a string": {"type": "array", "items": {"type": "string"}},
        "*File* or a string": {"anyOf": [{"$ref": "#/$defs/File"}, {"type": "null"}, {"type": "string"}]},
        "a whole number from -100 to 100": {"type": "integer", "minimum": -100, "maximum": 100},
        "`run` or `build`": {"enum": ["run", "build"]},
        "an object of a number": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    assert {said: reference._words(value) for said, value in words.items()} == dict(zip(words, words, strict=True))
