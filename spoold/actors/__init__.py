from __future__ import annotations


class Threadless:
    """Answers for an actor that runs no thread of its own and does nothing that takes long."""

    def hurry(self) -> None:
        """Do nothing: there is nothing to finish."""

    def stuck(self, patience: float) -> str:  # noqa: ARG002 - all actors are called alike
        """Say nothing: the loop's own thread is looked after."""
        return ""
