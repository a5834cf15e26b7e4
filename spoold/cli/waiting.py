"""Waiting for a response: what is said meanwhile, and how a wait that was interrupted goes on.

A submission is never lost by that: its id is said before, and again where the wait ends early.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from spoold import client
from spoold.cli import exits, reading
from spoold.cli.record import Record
from spoold.cli.text import printable
from spoold.client.directory import Directory
from spoold.client.response import Response, read

SOON = 2.0  # seconds in which a file that is whole is taken in, where nothing is in the way
PAUSE = 0.3  # seconds between two looks at how far it is
LOOK_AT = "Look at `spoolctl top`, `systemctl status 'spoold-*'` and `df`"


class Teller:
    """Says on standard error how far a submission is, each time that ``look`` is called and it has changed.

    On a terminal that is one line, which ``end`` removes. A ``brief`` one says there what happens until the program
    runs, and elsewhere only that nothing takes it in: for whom the program's output is what they want to see.
    """

    def __init__(self, spool: client.Spool, submission: client.Submission, *, brief: bool = False) -> None:
        self._spool = spool
        self._submission = submission
        self._began = time.monotonic()
        self._next = 0.0
        self._is_taken = False
        self._said = ""
        self._live = sys.stderr.isatty()
        self._brief = brief

    def look(self) -> Response | None:
        """Say what is new; return the response so far where it was looked at."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + PAUSE
        if not self._is_taken and self._spool.transport.is_dropped(self._submission.file):
            if now > self._began + SOON:
                self._say(f"{not_taken(self._spool, self._submission)}. {LOOK_AT}")
            return None
        self._is_taken = True
        try:
            data, _ = self._spool.transport.look(self._submission.id)
            response = None if data is None else read(data)
        except client.SpoolError:  # the wait itself tells what is wrong
            return None
        if response is not None:
            self._tell(response)
        return response

    def _tell(self, response: Response) -> None:
        if not self._brief:
            self._say(how_far(response))
        elif response.status == "RUNNING":
            self.end()
        elif self._live:
            self._say(how_far(response))

    def _say(self, text: str) -> None:
        if text == self._said:
            return
        self._said = text
        if self._live:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        else:
            click.echo(f"{self._submission.id}: {text}", err=True)

    def end(self) -> None:
        """Remove the line."""
        if self._live and self._said:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._said = ""


def drop(spool: client.Spool, data: bytes, id_: str, name: str) -> client.Submission:
    """Submit a request, and write it down; ``name`` is what it was made of. An interrupt says what may have become."""
    try:
        submission = spool.submit(data, id=id_)
    except KeyboardInterrupt:
        Record(spool).add(id_, name)
        click.echo(f"\n{id_}: perhaps it was submitted. `spoolctl status {id_}` tells", err=True)
        raise
    Record(spool).add(submission.id, name)
    return submission


def how_far(response: Response) -> str:
    """Return in a few words how far a submission is."""
    build = response.waiting_for
    if build is not None:
        what = "its dependencies are built" if build.state == "building" else "its dependencies wait to be built"
        fetched = f", {now.paths} of {now.all_paths} store paths are fetched" if (now := build.fetching) else ""
        return f"{what} (build {printable(build.build_id[:12])}){fetched}"
    if response.cases is not None:
        return f"running: {len(response.cases)} cases have ended"
    words = {"pending": "queued", "COMPILING": "compiling", "RUNNING": "running"}
    return words.get(response.status, printable(response.status.lower().replace("_", " ")))


def not_taken(spool: client.Spool, submission: client.Submission) -> str:
    """Say why a file lies in the drop box still."""
    transport, file = spool.transport, submission.file
    return reading.why_not_taken(transport.path("incoming", file) if isinstance(transport, Directory) else file)


def wait(
    spool: client.Spool,
    submissions: list[client.Submission],
    timeout: float,
    meanwhile: Callable[[], object],
    shown: Callable[[client.Submission], int],
    *,
    any_of: bool = False,
) -> int:
    """Wait for submissions, and show each as it is done; return the largest of the exit codes that ``shown`` returns.

    ``any_of``: the first is enough.
    """
    ids = " ".join(submission.id for submission in submissions)
    code = exits.OK
    try:
        for done in spool.as_completed(submissions, timeout=timeout, meanwhile=meanwhile):
            code = max(code, shown(done))
            if any_of:
                break
    except client.TimedOutError:
        left = [submission.id for submission in submissions if not submission.done]
        return exits.timed_out(" ".join(left), timeout)
    except KeyboardInterrupt:
        return interrupted(ids)
    return code


def interrupted(ids: str) -> int:
    """Say how a wait that was interrupted goes on; return the code for it."""
    click.echo(f"\n{ids}: it goes on. `spoolctl wait {ids}` waits again, `spoolctl cancel` ends it", err=True)
    return exits.INTERRUPTED
