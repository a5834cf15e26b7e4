"""The bench whose actors run by themselves."""

from __future__ import annotations

from tests.turning import bench

__all__ = ["bench"]
