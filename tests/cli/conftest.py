"""The bench that turns by itself."""

from __future__ import annotations

from tests.turning import bench

__all__ = ["bench"]
