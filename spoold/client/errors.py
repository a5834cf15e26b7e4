"""What goes wrong for a client. A program that failed, or was refused, is no error: its response says so."""

from __future__ import annotations


class SpoolError(Exception):
    """Root of everything that this library raises on purpose. The text says what happened, then what to do."""


class RequestError(SpoolError):
    """What is to be submitted cannot be: the text says what is wrong with it."""


class UnreachableError(SpoolError):
    """There is no spool, or its host does not answer."""

    is_wrong_place = False  # whether no spool is where one was named: then nothing is to be waited for


class NoSpoolError(UnreachableError):
    """There is no spool where one was named."""

    is_wrong_place = True


class AnswerError(SpoolError):
    """An answer cannot be used: it is another user's, answers something else, or is no response."""


class TimedOutError(SpoolError, TimeoutError):
    """No response came in time. Nothing is lost: the submission goes on, and can be waited for again."""
