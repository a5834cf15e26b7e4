"""Errors of the client library.

A program that failed or was refused is not an error: its response says so.
"""

from __future__ import annotations


class SpoolError(Exception):
    """The base of all errors that this library raises on purpose. Texts say what happened, then what to do."""


class RequestError(SpoolError):
    """A request cannot be submitted. The text says what is wrong with it."""


class UnreachableError(SpoolError):
    """There is no spool, or its host does not answer."""

    is_wrong_place = False  # True where there is no spool at that address, so that waiting does not help


class NoSpoolError(UnreachableError):
    """There is no spool at the address that was given."""

    is_wrong_place = True


class AnswerError(SpoolError):
    """An answer cannot be used: it is another user's, or answers another request, or is not a response."""


class TimedOutError(SpoolError, TimeoutError):
    """No response came in time. The submission goes on, and can be waited for again."""
