"""A report on many programs, as one page of HTML: ``write``.

Theory of operation. The page is one file that needs neither a server nor the network, so it can be sent, kept and
opened anywhere. It shows everything without a script. The script adds buttons that sort and fields that filter.
Everything in a response (names, outputs, messages) was written by strangers. So it enters the page through ``text``
only, which escapes and bounds it. The policy of the page (``model.page``) keeps anything else from running.

The page is bounded as well. All details together have ``detail.ROOM``. Programs that failed get a larger part of it.
The grid has ``table.CELLS``. The page says how much was left out; the responses have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from spoold import model
from spoold.cli import writing
from spoold.cli.report import overview, table, text
from spoold.cli.report.results import Result, of
from spoold.client import response as client
from spoold.model import page

__all__ = ["Row", "html", "write"]
STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("style.css", "script.js"))


class Row(NamedTuple):
    """A program: its name for people, its id ("" where it has none), and its response, None where there is none yet."""

    name: str
    id: str
    response: client.Response | model.response.Response | None


def write(path: str, title: str, rows: Iterable[Row], cases: Sequence[str] = (), made: str = "") -> int:
    """Write the page (see :func:`writing.write`), and return its size in bytes.

    ``cases`` are names of cases, in the order of their columns. Cases that it does not name come after them. ``made``
    is a line that says what made the page, and when. Raises OSError.
    """
    data = html(title, rows, cases, made).encode()
    writing.write(path, data)
    return len(data)


def html(title: str, rows: Iterable[Row], cases: Sequence[str] = (), made: str = "") -> str:
    """Return the page. Programs that failed come first, otherwise in the order of ``rows``."""
    found = [Result(row.name, row.id, read, of(read)) for row in rows for read in (_read(row.response),)]
    found.sort(key=lambda each: each.outcome.rank)
    names = list(dict.fromkeys([*cases, *(case.name for each in found for case in each.cases)]))
    head = f'<h1>{text.inline(title)}</h1>\n<p class="dim">{text.inline(made)}'
    body = f"{head}\n{overview.html(found)}\n{table.html(found, names)}"
    return page.document(text.plain(title), body, style=STYLE.read_text(), script=SCRIPT.read_text())


def _read(response: client.Response | model.response.Response | None) -> client.Response | None:
    if response is None or isinstance(response, client.Response):
        return response
    return client.read(msgspec.json.encode(response))
