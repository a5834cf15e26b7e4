from __future__ import annotations


class Threadless:
    """The answers of an actor that runs no thread of its own and does nothing that takes long."""

    def hurry(self) -> None:
        """Do nothing: there is nothing to finish."""

    def stuck(self, patience: float) -> str:  # noqa: ARG002 - all actors are called alike
        """Return "": the loop looks after its own thread."""
        return ""
