"""The settings: each says what it means, and what it does not know it refuses."""

from __future__ import annotations

import msgspec
import pytest

from spoold.config import Settings, decode
from spoold.model.setting import Described, describe

ALL = [each for section in describe(Settings()) for each in section.settings]


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: f"{setting.section}.{setting.name}")
def test_a_setting_says_what_it_means(setting: Described) -> None:
    assert len(setting.description) > 8
    assert not setting.description.endswith("."), "it is put into sentences and tables"
    assert setting.unit in ("", "seconds", "bytes")
    if isinstance(setting.default, float):
        assert setting.unit == "seconds"


def test_all_settings_are_described() -> None:
    """What is encoded of the defaults is what is described, no more and no less."""

    def leaves(table: object, path: str = "") -> set[str]:
        if not isinstance(table, dict) or path == ".nixpkgs":
            return {path}
        return {leaf for key, value in table.items() for leaf in leaves(value, f"{path}.{key}")}

    described = {f".{each.section}.{each.name}".replace("..", ".") for each in ALL}
    assert described == leaves(msgspec.to_builtins(Settings()))


def test_bounds_hold() -> None:
    with pytest.raises(msgspec.ValidationError, match="attempts"):
        decode(b"[lease]\nattempts = 0\n")
    with pytest.raises(msgspec.ValidationError, match="memory"):
        decode(b"[limits.run.default]\nmemory = 0\n")


def test_a_choice_is_one_of_those_described() -> None:
    mode = next(each for each in ALL if each.name == "mode")
    assert mode.choices == ("single-use", "recycled")
