"""Environments that the operator brought from another host: binary caches in the state directory, asked before others.

Theory of operation: an import is a directory below ``imports``. Root owns ``imports``, the builder reads it, and only
the operator puts something there. The contents of an import decide nothing by themselves. An environment is evaluated
and realised as always. Where an import has a path with the wanted name, Nix takes it if a key of
``[nix] trusted_public_keys`` signed it, or if its content proves its name.
"""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY = "imports"


def caches(state: Path) -> list[str]:
    """Return the URLs of the imports in a state directory. A name with a leading dot is an import still on its way."""
    try:
        found = sorted(entry.path for entry in os.scandir(state / DIRECTORY) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [f"file://{path}?priority=0" for path in found if not os.path.basename(path).startswith(".")]
