"""Programs from the documentation that tests run."""

from __future__ import annotations

from tests.engines import REPOSITORY


def shell_client(usage: str = "submit SPOOL REQUEST.json") -> str:
    """Return the complete shell client from the spec's section on usage."""
    spec = (REPOSITORY / "spool-layout.md").read_text()
    return next(block for block in spec.split("```sh\n")[1:] if f"# usage: {usage}\n" in block).split("```")[0]
