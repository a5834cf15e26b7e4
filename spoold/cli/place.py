"""Where a command works: the spool, and the settings where it needs more of them than that.

Whoever submits or asks need not wait until all settings are read and checked, nor mend what is wrong with others of
them. So the spool alone is looked for first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spoold.client.address import DEFAULT, ELSEWHERE

if TYPE_CHECKING:
    from spoold.config import Settings

SPOOL = "spoold.spool"  # what a command's own --spool says, in the context's meta: for whom there is no place
DEFAULT_FILE = "/etc/spoold/spoold.toml"
R = TypeVar("R")


class Place:
    """What ``--config`` and ``--spool`` say; ``named`` is the latter, or None."""

    def __init__(self, config: str | None, named: str | None) -> None:
        self.config = config
        self.named = named

    @property
    def spool(self) -> str:
        """Return the spool: a directory, or where another host has it."""
        if self.named:
            return self.named
        file = self.config or os.environ.get("SPOOLD_CONFIG")
        if file is None and not os.path.exists(DEFAULT_FILE):
            return DEFAULT
        import tomllib  # noqa: PLC0415 - most have the spool in the environment

        try:
            with open(file or DEFAULT_FILE, "rb") as opened:
                path = tomllib.load(opened).get("spool", {}).get("path", DEFAULT)
        except (OSError, ValueError, AttributeError):
            path = None
        return path if isinstance(path, str) else self.settings.spool.path  # which says what is wrong with them

    @functools.cached_property
    def settings(self) -> Settings:
        """Return all settings; raises :class:`OperatorError`, also where the spool is not a directory here."""
        from msgspec.structs import replace  # noqa: PLC0415 - as below

        from spoold.config.file import load  # noqa: PLC0415 - clients need none of it, and it takes a while
        from spoold.model.errors import OperatorError  # noqa: PLC0415 - as above

        settings = load(self.config)
        if self.named is None:
            return settings
        if self.named.startswith(ELSEWHERE):
            raise OperatorError("this works on the host of the spool only: name its directory there")
        return replace(settings, spool=replace(settings.spool, path=self.named))


def pass_place(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the place as its first argument."""
    return click.pass_obj(command)


def pass_settings(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command all settings as its first argument."""

    @functools.wraps(command)
    def with_settings(place: Place, *args: Any, **kwargs: Any) -> R:
        return command(place.settings, *args, **kwargs)

    return click.pass_obj(with_settings)
