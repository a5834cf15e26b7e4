"""Engines: what can carry jobs. Each is a folder here with the functions of ``Engine``, and is known by its name.

An engine from elsewhere is a Python module that has these functions. ``[sandbox] engine`` then holds its dotted name.
Nothing outside an engine's folder imports from it: the executor gets its sandbox from here, and the doctor its
findings.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, cast

from spoold.config import Settings
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox


class Engine(Protocol):
    """The module of an engine."""

    def make(self, settings: Settings, runtime: Runtime) -> Sandbox:
        """Return a sandbox that is not prepared yet."""

    def examine(self, settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
        """Yield what the doctor is to say of the engine on this host, where possible with a job on trial.

        Without a ``runtime``, which a builder provides, no job can be tried. The doctor itself checks what concerns the
        jobs of every engine.
        """


FUNCTIONS = ("make", "examine")  # that an Engine has


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
        raise OperatorError(f"sandbox.engine: there is no {name!a}. Choose one of {', '.join(names())}") from error
    missing = [function for function in FUNCTIONS if not hasattr(found, function)]
    if missing:
        raise OperatorError(
            f"sandbox.engine: the module {module!a} is not an engine, since it has no function {missing[0]}"
        )
    return cast(Engine, found)
