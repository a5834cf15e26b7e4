"""Structured logs: one record a line, ``key=value``, values quoted so that no client can forge a record.

Records go to stderr, with the time. Where stderr is systemd-journald's, they go to journald itself, with fields to
search by (``host.journal``).

A value is printed as it is when it is made of plain characters, else as an ASCII JSON string: newlines, escape
sequences and anything outside ASCII come out escaped, and long values are cut.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from spoold.host.journal import JournalHandler
from spoold.host.metrics import LOG_MESSAGES

PLAIN = re.compile(r"[A-Za-z0-9_./:@+,-]{1,200}")
LONGEST = 2000
PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # sd-daemon(3), syslog(3)


class _Formatter(logging.Formatter):
    """Makes the line of a record; ``start`` makes what stands before its fields."""

    def __init__(self, start: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._start = start

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname.lower(), "actor": record.name.rpartition(".")[2]}
        fields |= getattr(record, "fields", {})
        fields["msg"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._start(record) + " ".join(f"{key}={quoted(value)}" for key, value in fields.items())


def _time(record: logging.LogRecord) -> str:
    return _second(int(record.created))


@lru_cache(maxsize=1)
def _second(since_epoch: int) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S%z', time.localtime(since_epoch))} "


def _prefix(record: logging.LogRecord) -> str:
    return f"<{PRIORITY[record.levelname]}>"  # journald takes the level of a line from this, and adds the time itself


def quoted(value: object) -> str:
    """Return ``value`` as one printable ASCII word or quoted string."""
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    return json.dumps(text if len(text) <= LONGEST else text[:LONGEST] + f"... ({len(text)} characters)")


class Log:
    """A logger whose records carry fields: ``log.info("claimed", submission=id, attempt=2)``."""

    def __init__(self, actor: str) -> None:
        self._logger = logging.getLogger(f"spoold.{actor}")

    def debug(self, message: str, **fields: object) -> None:
        """Log something that only a developer wants to see."""
        self._logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: object) -> None:
        """Log the ordinary course of things."""
        self._count_and_log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Log something that somebody should look at, some time."""
        self._count_and_log(logging.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Log something that is broken."""
        self._count_and_log(logging.ERROR, message, fields)

    def bug(self, message: str, **fields: object) -> None:
        """Log the exception that is being handled, with where it came from."""
        self._count_and_log(logging.ERROR, message, fields, exc_info=sys.exc_info())

    def _count_and_log(self, level: int, message: str, fields: dict[str, object], **more: Any) -> None:
        LOG_MESSAGES.add(logging.getLevelName(level).lower())
        self._logger.log(level, message, extra={"fields": fields}, **more)


def set_up(*, level: str, journal: bool) -> None:
    """Send the records of spoold to stderr, or to journald itself where ``journal`` says that stderr is journald's."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_prefix if journal else _time))
    if journal:
        handler = JournalHandler(_Formatter(lambda _: ""), handler, PRIORITY)
    # Our lines have none of these, and the library would find them out for each record (see "Optimization" in its
    # documentation).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger("spoold")
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    # While watchdog is being stopped, it warns of events that still come, in a format of its own.
    logging.getLogger("watchdog").setLevel(logging.ERROR)
