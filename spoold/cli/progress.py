"""The progress of many programs, on standard error: a bar on a terminal, and elsewhere a line from time to time."""

from __future__ import annotations

import sys
import time

import click

from spoold import client
from spoold.cli import render, waiting
from spoold.client.response import read

WIDTH = 24  # columns of the bar
PAUSE = 0.1  # seconds between two changes of the bar
SELDOM = 10.0  # seconds between two lines
SILENT = 5.0  # seconds without a result, after which it looks whether the oldest submission is taken in


class Progress:
    """Counts how many of ``total`` programs are done, and shows it."""

    def __init__(self, spool: client.Spool, total: int = 0) -> None:
        self._spool = spool
        self._total = total
        self._done = 0
        self._failed = 0
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began + (0.0 if self._live else SELDOM)
        self._silent_since = self._began
        self._hint = ""

    def expect(self, more: int) -> None:
        """Add programs to the total."""
        self._total += more

    @property
    def done(self) -> int:
        """Return how many are done."""
        return self._done

    @property
    def total(self) -> int:
        """Return how many there are to do."""
        return self._total

    @property
    def span(self) -> float:
        """Return for how many seconds it has gone on."""
        return time.monotonic() - self._began

    def count(self, *, failed: bool) -> None:
        """Count one more program that is done."""
        self._done += 1
        self._failed += failed
        self._silent_since, self._hint = time.monotonic(), ""
        if self._live and self._done == self._total:
            self._next = 0.0
        self.look(None)

    def look(self, oldest: client.Submission | None) -> None:
        """Show the progress, unless that was done a moment ago. If nothing comes, also show why ``oldest`` waits."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (PAUSE if self._live else SELDOM)
        if oldest and now > self._silent_since + SILENT:
            self._hint = self._why_silent(oldest)
            self._silent_since = now
        if self._live:
            filled = WIDTH * self._done // max(1, self._total)
            click.echo(f"\r\x1b[K[{'#' * filled}{'.' * (WIDTH - filled)}] {self._text()}", nl=False, err=True)
        else:
            click.echo(self._text(), err=True)

    def _text(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} of {self._total}{failed}, {render.span(self.span)}{self._hint}"

    def _why_silent(self, oldest: client.Submission) -> str:
        if self._spool.transport.is_dropped(oldest.file):
            return f"; {waiting.not_taken(self._spool, oldest)}. {waiting.LOOK_AT}"
        try:
            data, _ = self._spool.transport.look(oldest.id)
            return f"; {oldest.id}: {waiting.how_far(read(data))}" if data else ""
        except client.SpoolError:  # the wait itself reports what is wrong
            return ""

    def end(self) -> None:
        """Remove the bar."""
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)
