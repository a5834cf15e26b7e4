"""Environments that the operator brought from another host: binary caches below the state, asked before all others.

Theory of operation: an import is a directory below ``imports``, which is root's: the builder reads it, and nobody else
than the operator puts something there. What is in it has no say by itself. An environment is evaluated and realised as
ever, and where one of these caches has a path under the name that was asked for, Nix takes it if a key of
``[nix] trusted_public_keys`` signed it, or if its content proves its name.
"""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY = "imports"


def caches(state: Path) -> list[str]:
    """Return the addresses of the imports that lie below a state; a name with a dot before it is of one on its way."""
    try:
        found = sorted(entry.path for entry in os.scandir(state / DIRECTORY) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [f"file://{path}?priority=0" for path in found if not os.path.basename(path).startswith(".")]
