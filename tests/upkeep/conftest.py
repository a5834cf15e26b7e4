"""No look takes any time here either."""

from __future__ import annotations

from tests.actors.conftest import paced, unhurried

__all__ = ["paced", "unhurried"]
