"""What tests run of what the pages say."""

from __future__ import annotations

from tests.engines import REPOSITORY


def shell_client(usage: str = "submit SPOOL REQUEST.json") -> str:
    """Return the whole client that the spec has of this usage."""
    spec = (REPOSITORY / "spool-layout.md").read_text()
    return next(block for block in spec.split("```sh\n")[1:] if f"# usage: {usage}\n" in block).split("```")[0]
