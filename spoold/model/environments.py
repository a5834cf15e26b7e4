"""The description of a file of exported environments.

Spec: spool-layout.md, "Environments from another host".
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from spoold.model.formats import Stored
from spoold.model.paths import StorePath, System


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """One build: its id on the host that exported it, its expression, and the name and store path of its pin."""

    build_id: str
    expression: str
    pin: str
    nixpkgs: StorePath


class Environments(Stored, frozen=True, kw_only=True):
    """The system and the runtime of the host that exported a file, and the builds in the file."""

    NEWEST: ClassVar[int] = 1

    system: System
    runtime: list[StorePath]
    builds: list[Carried]
