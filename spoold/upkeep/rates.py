"""How fast a spool goes: the counts in the files that its daemons write for Prometheus (``host.textfile``).

Other users write these files. So a path that is no file, is too long or cannot be read counts as having no counts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

from spoold.host import fsops
from spoold.host.textfile import files_of

MOST = 1 << 22  # bytes of a file
LARGEST = 1e15  # a value that is larger, or negative, counts as 0: no daemon counts so far
COUNTED = ("spoold_responses_total", "spoold_dropped_total")
OUTCOME = re.compile(r'\b(?:status|outcome)="(\w+)"')


class Rates:
    """The counts of a spool's daemons, and how fast they grow between two times at which a daemon wrote its file."""

    def __init__(self, directory: str, spool: str) -> None:
        self._directory, self._spool = directory, spool
        self._before: dict[str, tuple[float, dict[str, float]]] = {}
        self._rates: dict[str, dict[str, float]] = {}

    def look(self) -> tuple[dict[str, float] | None, dict[str, float] | None]:
        """Return the totals, and the growth of each per second. Either is None where nothing is known (yet)."""
        totals: dict[str, float] = {}
        for path, written, text in texts(self._directory, self._spool):
            counts: dict[str, float] = {}
            for name, value in _counted(text):
                counts[name] = counts.get(name, 0.0) + value
                totals[name] = totals.get(name, 0.0) + value
            self._compare(path, written, counts)
        rates: dict[str, float] = {}
        for growth in self._rates.values():
            for name, value in growth.items():
                rates[name] = rates.get(name, 0.0) + value
        return totals or None, rates or None

    def _compare(self, path: str, written: float, counts: dict[str, float]) -> None:
        before = self._before.get(path)
        if before and written > before[0]:
            span = written - before[0]
            # A daemon that was restarted counts from 0.
            grown = {name: value - before[1].get(name, 0.0) for name, value in counts.items()}
            self._rates[path] = {name: max(0.0, value) / span for name, value in grown.items()}
        if before is None or written > before[0]:
            self._before[path] = (written, counts)


def texts(directory: str, spool: str, since: float = 0.0) -> Iterator[tuple[str, float, str]]:
    """Yield the path, the time of writing and the text of each file that was written after ``since``."""
    for path in files_of(directory, spool):
        try:
            written, data = os.lstat(path).st_mtime, fsops.read(path, MOST)
        except OSError:
            continue  # its daemon has ended
        if data is not None and written >= since:
            yield path, written, data.decode(errors="replace")


def gauge(text: str, name: str, label: str = "") -> list[float]:
    """Return the values of a series in a text, with this label."""
    return [value for series, labels, value in _lines(text) if series == name and label in labels]


def _counted(text: str) -> Iterator[tuple[str, float]]:
    """Yield each outcome that is counted in a text, and its count."""
    for series, labels, value in _lines(text):
        found = OUTCOME.search(labels) if series in COUNTED else None
        if found:
            yield found[1], value


def _lines(text: str) -> Iterator[tuple[str, str, float]]:
    """Yield the name of each series in a text, its labels and its value.

    The time that this takes grows with the length of the text alone, whatever the text is.
    """
    for line in text.split("\n"):
        if line.startswith("spoold_"):
            series, _, rest = line.partition("{")
            labels, closed, value = rest.rpartition("} ")
            if closed:
                yield series, labels, _number(value)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and 0 <= value <= LARGEST else 0.0
