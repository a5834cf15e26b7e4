"""Where a command works: its spool, and all settings if it needs them.

Commands that submit or ask look for the address of the spool only. So their users need not wait until all settings are
read and checked, and errors in other settings do not stop them.
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

# key in the context's meta for a command's own --spool; completion has no Place, and looks there
SPOOL = "spoold.spool"
DEFAULT_FILE = "/etc/spoold/spoold.toml"
R = TypeVar("R")


class Place:
    """The values of ``--config`` and ``--spool``. ``named`` is the latter, or None."""

    def __init__(self, config: str | None, named: str | None) -> None:
        self.config = config
        self.named = named

    @property
    def spool(self) -> str:
        """Return the spool: a directory, or the address of one on another host."""
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
        return path if isinstance(path, str) else self.settings.spool.path  # loading the settings reports their error

    @functools.cached_property
    def settings(self) -> Settings:
        """Return all settings. Raises :class:`OperatorError`, also where the spool is on another host."""
        from msgspec.structs import replace  # noqa: PLC0415 - as below

        from spoold.config.file import load  # noqa: PLC0415 - clients do not need it, and it loads slowly
        from spoold.model.errors import OperatorError  # noqa: PLC0415 - as above

        settings = load(self.config)
        if self.named is None:
            return settings
        if self.named.startswith(ELSEWHERE):
            raise OperatorError("this works only on the host of the spool: run it there, with the directory as --spool")
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


def require_store(settings: Settings) -> None:
    """Raise :class:`OperatorError` unless the builder's Nix store is on this host."""
    from spoold.model.errors import OperatorError  # noqa: PLC0415 - as above

    try:
        os.stat(os.path.join(settings.nix.state, "nix"))
    except FileNotFoundError:
        raise OperatorError(
            f"{settings.nix.state} has no Nix store: run this on the builder's host, with its settings ([nix] state), "
            "once the builder has run"
        ) from None
    except PermissionError:
        pass  # the command says as which user to run it
