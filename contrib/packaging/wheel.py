"""A build hook of hatchling that puts the manual pages and the completions of shells into the wheel.

They are made as ``contrib/packaging/man`` makes them, and are installed into ``share`` of the wheel's environment. The
hook imports the commands, so a build needs all that they import: see ``[build-system]`` in pyproject.toml.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PREFIX = "/usr/local"  # for files that are not the distribution's; names of directories depend on it


class Hook(BuildHookInterface[Any]):
    """Adds the pages and completions to ``share``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Make the files, in a directory that is removed afterwards."""
        self._made = tempfile.TemporaryDirectory(prefix="spoold-wheel-")
        root = Path(self.root)
        sys.path[:0] = [str(root), str(root / "contrib" / "packaging")]
        try:
            from manual.__main__ import files  # noqa: PLC0415 - it is importable now
        except ModuleNotFoundError as error:
            sys.exit(f"{error}: the manual pages are made of the commands, which need what [build-system] requires")
        for path, text in files(PREFIX):
            source = Path(self._made.name, path)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(text)
            build_data["shared_data"][str(source)] = f"share/{path}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - as above
        """Remove the directory with the files."""
        self._made.cleanup()
