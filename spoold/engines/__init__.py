"""Engines: what can carry jobs. Each is a folder here, with a function ``make``, and is known by the folder's name.

An engine from elsewhere is a module of Python's that has such a function; ``[sandbox] engine`` has its dotted name.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from spoold.config import Settings
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox


class Engine(Protocol):
    """The module of an engine."""

    def make(self, settings: Settings, runtime: Runtime) -> Sandbox:
        """Return a sandbox that is not prepared yet."""


def names() -> list[str]:
    """Return the engines that come with spoold."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)


def find(name: str) -> Engine:
    """Return the engine that the settings call ``name``; raises :class:`OperatorError` where there is none."""
    module = name if "." in name else f"{__name__}.{name}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or ""):
            raise OperatorError(f"sandbox.engine {name!a} needs the module {error.name}: install it") from error
        raise OperatorError(f"sandbox.engine: there is no {name!a}; there is: {', '.join(names())}") from error
    if not hasattr(found, "make"):
        raise OperatorError(f"sandbox.engine: the module {module!a} has no function make, so it is no engine")
    return cast(Engine, found)
