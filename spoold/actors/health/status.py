"""The status page: how much waits and for how long, who works, and how fast it goes, for people with a browser.

Health writes it where ``[metrics] status_page`` says, each time that health is measured, in the thread that does so.
The page has only counts and times, no ids, names or outputs. So anybody may see it, and everybody can read the file.
The page is replaced in one step, and the browser reloads it by itself. When health ends, the page says so, and stays.
When health is killed, nobody writes the page any more. Then its one script says how old the page is.

What fails: a page that cannot be made or written stops no work. The log warns once, until the page can be written
again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.metrics import DROPPED, STATES
from spoold.model import plots
from spoold.model.ids import Kept
from spoold.model.page import document, escaped
from spoold.model.response import FINAL
from spoold.model.spans import span
from spoold.model.states import ALWAYS, Role
from spoold.upkeep.depth import Depth, Measure, holders
from spoold.upkeep.rates import Rates, gauge, texts

log = Log(Role.HEALTH)
MEANING = dict(
    zip(
        STATES,
        ("dropped", "waits for a worker", "waits for its dependencies", "runs", "builds that wait", "builds that run"),
        strict=True,
    )
)
TAKEN = {"accepted": "taken in"}  # by intake: not the result of a case
HISTORY = 3600.0  # seconds that the plot goes back
LATE = 4  # intervals after which a daemon's file is out of date, and this page too
LATEST = 60.0  # seconds at least until the page is out of date, since clocks of readers are not exact
LARGEST = 1e12  # larger numbers would not fit into a row of a small screen
ANSWERS = tuple(sorted(FINAL))
STYLE = "\ntable{margin:.3rem 0 1rem;width:100%;max-width:40rem}\nth,td{padding:.2rem .4rem}\n"
SCRIPT = """
(() => {
"use strict";
const late = document.getElementById("late"), made = Number(late.dataset.made), most = Number(late.dataset.most);
function tell() {
  const age = Date.now() / 1000 - made;
  const ago = age < 7200 ? `${Math.round(age / 60)} min` : `${Math.round(age / 3600)} h`;
  const said = `This page was last written ${ago} ago, by the clock of this device. ` +
    "Health does not run, or cannot write the page, or a clock is wrong.";
  if (late.textContent !== (age > most ? said : "")) late.textContent = age > most ? said : "";
}
tell();
setInterval(tell, 1000);
})();
"""


class StatusPage:
    """The page of one spool. ``measure`` has what was found in it last."""

    def __init__(self, settings: Settings, measure: Measure) -> None:
        where = settings.metrics
        self._path = os.path.join(where.directory, where.status_page) if where.status_page and where.directory else ""
        self._private = os.path.join(os.path.dirname(self._path), f".{os.path.basename(self._path)}.tmp")
        self._settings, self._measure = settings, measure
        self._rates = Rates(where.directory, settings.spool.path)
        self._history: deque[float] = deque(maxlen=max(2, round(HISTORY / where.interval)))  # answers a minute
        self._writing = threading.Lock()
        self._ended = False
        self._said = False

    def __call__(self) -> None:
        """Write the page, where the settings ask for one."""
        if self._path:
            self._write(self._html)

    def end(self) -> None:
        """Write a last page, which says that health was stopped. Another thread can no longer replace it."""
        if self._path:
            self._write(self._last, last=True)

    def _write(self, make: Callable[[], str], *, last: bool = False) -> None:
        try:
            data = make().encode()
            with self._writing:
                if not self._ended:
                    self._ended = last
                    fsops.write_private(self._private, data, mode=0o644, sync=False)
                    fsops.replace(self._private, self._path)
            self._said = False
        except Exception as error:  # noqa: BLE001 - the metrics are written after any error
            if not self._said:
                log.warning("the status page cannot be written; trying again", file=self._path, error=error)
            self._said = True

    def _last(self) -> str:
        return _page(f"<p>Health, which writes this page, was stopped at {_now()}.", self._interval)

    @property
    def _interval(self) -> float:
        return max(1.0, self._settings.metrics.interval)

    def _html(self) -> str:
        measured = [text for *_, text in texts(self._directory, self._root, time.time() - LATE * self._interval)]
        totals, rates = self._rates.look()
        if rates is not None:
            self._history.append(60 * sum(rates.get(name, 0.0) for name in ANSWERS))
        most = max(LATEST, LATE * self._interval)
        parts = [
            f"<p>As of {_now()}; written every {self._interval:g} s.",
            f'<p id="late" class="x" role="alert" data-made="{time.time():.0f}" data-most="{most:.0f}"></p>',
            _queue(self._measure.found, self._measure.at, measured),
            _workers(self._root, self._measure.at, self._settings.lease.limit, measured),
            _flow(totals, rates, list(self._history), self._interval),
        ]
        return _page("\n".join(parts), self._interval, SCRIPT)

    @property
    def _directory(self) -> str:
        return self._settings.metrics.directory

    @property
    def _root(self) -> str:
        return self._settings.spool.path


def _page(body: str, interval: float, script: str = "") -> str:
    return document("spoold", f"<h1>spoold</h1>\n{body}", style=STYLE, script=script, refresh=max(5.0, interval))


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. All columns but the first hold numbers."""
    heads = "".join(f'<th scope="col"{_number(at)}>{each}' for at, each in enumerate(headings))
    body = "\n".join(
        f'<tr><th scope="row">{escaped(row[0])}' + "".join(f'<td class="n">{escaped(each)}' for each in row[1:])
        for row in rows
    )
    return f"<h2>{caption}</h2>\n<table><thead><tr>{heads}</thead>\n<tbody>{body}</tbody></table>"


def _number(column: int) -> str:
    return ' class="n"' if column else ""


def _queue(found: Sequence[Depth], at: float, measured: Sequence[str]) -> str:
    """Return how much is in each state. Only intake may count the dropped files, so that number is its metric."""
    rows = []
    dropped = [value for text in measured for value in gauge(text, "spoold_entries", f'state="{STATES[0]}"')]
    if dropped:
        oldest = [value for text in measured for value in gauge(text, "spoold_oldest_seconds", f'state="{STATES[0]}"')]
        rows.append((MEANING[STATES[0]], _count(max(dropped)), span(max(oldest, default=0.0)) if max(dropped) else ""))
    else:
        rows.append((MEANING[STATES[0]], "not known", ""))
    for depth in found:
        oldest_here = span(max(0.0, at - depth.oldest[0].since)) if depth.oldest else ""
        rows.append((MEANING[depth.state], str(depth.number), oldest_here))
    return _table("Queue", ("state", "entries", "oldest"), rows)


def _workers(root: str, at: float, limit: float, measured: Sequence[str]) -> str:
    """Return how many daemons of each role give signs of life, on all hosts, and how many entries they hold."""
    known, alive = Counter[str](), Counter[str]()
    for name in fsops.names(os.path.join(root, "tmp")):
        if name.endswith(Kept.HOST):
            role = _role(name)
            known[role] += 1
            renewed = fsops.mtime(os.path.join(root, "tmp", name))
            alive[role] += renewed is not None and at - renewed < limit
    held = Counter[str]()
    for holder in holders(root):
        held[_role(holder.name)] += len(holder.held)
    rows = [
        (role, f"{alive[role]} of {known[role]}" if known[role] else "none", str(held[role]) if role in held else "")
        for role in Role
        if known[role] or role in ALWAYS
    ]
    slots, busy = (
        sum(value for text in measured for value in gauge(text, f"spoold_{name}")) for name in ("slots", "slots_busy")
    )
    told = f"<p>{_count(busy)} of {_count(slots)} slots are in use." if slots else ""
    return _table("Workers", ("role", "alive", "work on"), rows) + told


def _role(name: str) -> str:
    """Return the role of a worker, from its name or its file's name: ``executor-default.host``."""
    return name.partition(".")[0].partition("-")[0]


def _flow(
    totals: dict[str, float] | None, rates: dict[str, float] | None, history: Sequence[float], interval: float
) -> str:
    """Return what came of submissions since the daemons started, and how fast."""
    counted = totals or {}
    rows = [
        (
            TAKEN.get(name, name.replace("_", " ").lower()),
            _count(counted[name]),
            _count(60 * rates.get(name, 0.0), digits=1) if rates else "",
        )
        for name in (*DROPPED.labels["outcome"], *ANSWERS)
        if counted.get(name)
    ]
    back = span(len(history) * interval)
    most = _count(max(history, default=0.0), digits=1)
    plot = plots.bars(history, f"Answers a minute in the last {back}, {most} at most", 48)
    drawn = f"<p>Answers a minute, in the last {back}:</p>{plot}" if plot else ""
    return _table("What came of it", ("outcome", "so far", "a minute"), rows) + drawn


def _count(number: float, digits: int = 0) -> str:
    return f"over {LARGEST:.0e}" if number > LARGEST else f"{number:.{digits}f}"
