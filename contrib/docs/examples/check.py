"""Wait for the examples' responses, show them in a table, and compare each with what its .expect says.

Every directory with an .expect is an example, and its name is the submission's id. Exit codes: 0 all is as expected,
1 something differs or did not come in time. The lines below the table say what.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spoold.cli import reading
from spoold.cli.render import seconds
from spoold.cli.text import printable
from spoold.client.directory import Directory
from spoold.model.response import FINAL, Outcome, Response, Status

LOOK = 0.1  # seconds between two looks at the spool
NEWS = 10.0  # seconds between two lines of progress where there is no terminal
CONTAINED = ("stdout", "stderr", "reason", "outputs", "cases")
FAILED = frozenset(Outcome) - {Outcome.OK, Outcome.SKIPPED}
PHASES = ("dependencies", "compile", "run")


class Example(NamedTuple):
    """An example: its name, its subject, and pairs of a part of the response and the text expected there."""

    name: str
    about: str
    expected: tuple[tuple[str, str], ...]


def examples(directory: Path) -> list[Example]:
    """Return the examples below ``directory``, by name."""
    return [_example(path) for path in sorted(directory.glob("*/.expect"))]


def _example(path: Path) -> Example:
    pairs = []
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        pairs.append((key, value.strip()))
    about = " ".join(value for key, value in pairs if key == "about")
    return Example(path.parent.name, about, tuple(pair for pair in pairs if pair[0] != "about"))


def differences(example: Example, response: Response | None) -> list[str]:
    """Return what is not as expected, in words."""
    if response is None or response.status not in FINAL:
        return [f"{example.name}: no response in time"]
    found = []
    for part, wanted in example.expected:
        value: object = response
        for name in part.split("."):
            value = getattr(value, name)
        right = wanted in str(value) if part.rpartition(".")[2] in CONTAINED else wanted == str(value)
        if not right:
            found.append(f"{example.name}: {part} is {printable(str(value))!r}, expected {wanted!r}")
    return found


def table(shown: dict[Example, Response | None]) -> Table:
    """Return the table of all examples, as far as they have come."""
    made = Table("example", "what it shows", "status", "", *PHASES, "what came of it", box=None, pad_edge=False)
    for column in made.columns[4:7]:
        column.justify = "right"
    for column in (made.columns[0], *made.columns[2:7]):
        column.no_wrap = True  # the two other columns give way where the terminal is narrow
    for example, response in shown.items():
        if response is None:
            made.add_row(example.name, one_line(example.about), Text("on its way", style="dim"))
            continue
        final, wrong = response.status in FINAL, differences(example, response)
        mark = Text("differs", style="bold red") if wrong else Text("as expected", style="green")
        made.add_row(
            example.name,
            one_line(example.about),
            Text(response.status, style="bold" if final else "dim"),
            mark if final else "",
            *(seconds(getattr(response, phase).time) for phase in PHASES),
            one_line(told(response)),
        )
    return made


def one_line(text: str) -> Text:
    """Return ``text`` for a cell, which cuts it where it is too long."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def told(response: Response) -> str:
    """Return the line that tells most about the outcome."""
    if response.status is Status.REJECTED:
        return str(response.reason)
    phase = next(
        (phase for phase in (response.dependencies, response.compile) if phase.outcome in FAILED), response.run
    )
    lines = (phase.stdout or phase.stderr).splitlines()
    line = next((line for line in lines if "error" in line), lines[0] if lines else "")
    word = phase.signal if phase.outcome is Outcome.SIGNALLED else str(phase.outcome)
    return line if phase.outcome is Outcome.OK else ": ".join(filter(None, [word, line]))


def follow(spool: str, todo: list[Example], timeout: float, console: Console) -> dict[Example, Response | None]:
    """Show the table until every response is there, for ``timeout`` seconds at most."""
    shown: dict[Example, Response | None] = dict.fromkeys(todo)
    deadline, news = time.monotonic() + timeout, time.monotonic() + NEWS
    with Live(table(shown), console=console, auto_refresh=False) as live:
        while True:
            for example, response in shown.items():
                if response is None or response.status not in FINAL:
                    shown[example] = reading.look(Directory(spool), example.name)
            open_ = [example.name for example, seen in shown.items() if seen is None or seen.status not in FINAL]
            live.update(table(shown), refresh=console.is_terminal)
            if not open_ or time.monotonic() >= deadline:
                return shown
            if not console.is_terminal and time.monotonic() >= news:
                print(f"==> waiting for {', '.join(open_)}", file=sys.stderr)
                news += NEWS
            time.sleep(LOOK)  # as a client does, since they may not list done/, and so cannot watch it


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("spool", help="the spool that the examples were submitted to")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="(default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # to give the terminal its cursor back
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 170
    shown = follow(options.spool, examples(Path(__file__).parent), options.timeout, console)
    wrong = [text for example, response in shown.items() for text in differences(example, response)]
    console.print()  # a table that is not redrawn ends without one
    for text in wrong:
        console.print(text, soft_wrap=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
