"""The fixtures that keep looks from taking time, as for the actors."""

from __future__ import annotations

from tests.actors.conftest import paced, unhurried

__all__ = ["paced", "unhurried"]
