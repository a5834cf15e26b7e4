"""Waiting for a response: what is said meanwhile, and how to go on after an interrupted wait.

A submission is not lost by that: its id is printed before the wait, and again where the wait ends early.
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

SOON = 2.0  # seconds after which a complete file should have been taken in
PAUSE = 0.3  # seconds between two looks at how far it is
LOOK_AT = "Look at `spoolctl top`, `systemctl status 'spoold-*'` and `df`"


class Teller:
    """Says on standard error how far a submission is, when ``look`` is called and the state has changed.

    On a terminal this is one line, which ``end`` removes. With ``brief`` the line ends when the program runs, since the
    user wants to see the program's output. Where there is no terminal, ``brief`` reports only that nothing takes it in.
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
        """Say what is new. Return the response so far, or None where this call did not read it."""
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
        except client.SpoolError:  # the wait itself reports what is wrong
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
    """Submit a request, and record it; ``name`` is what it was made from.

    After an interrupt, say how to find out more.
    """
    try:
        submission = spool.submit(data, id=id_)
    except KeyboardInterrupt:
        Record(spool).add(id_, name)
        click.echo(f"\n{id_}: perhaps it was submitted. `spoolctl status {id_}` tells whether", err=True)
        raise
    Record(spool).add(submission.id, name)
    return submission


def how_far(response: Response) -> str:
    """Return in a few words how far a submission is."""
    build = response.waiting_for
    if build is not None:
        what = "its dependencies are being built" if build.state == "building" else "its dependencies wait to be built"
        fetched = f", {now.paths} of {now.all_paths} store paths have been fetched" if (now := build.fetching) else ""
        return f"{what} (build {printable(build.build_id[:12])}){fetched}"
    if response.cases is not None:
        return (
            "running: 1 case has ended" if (ended := len(response.cases)) == 1 else f"running: {ended} cases have ended"
        )
    words = {"pending": "queued", "COMPILING": "compiling", "RUNNING": "running"}
    return words.get(response.status, printable(response.status.lower().replace("_", " ")))


def not_taken(spool: client.Spool, submission: client.Submission) -> str:
    """Return why a file is still in the drop box."""
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
    """Wait for submissions, and call ``shown`` for each that is done. Return the largest exit code that it returned.

    With ``any_of`` the first submission that is done ends the wait.
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
    """Say how to go on after an interrupted wait. Return the exit code for that."""
    click.echo(f"\n{ids}: it continues. `spoolctl wait {ids}` waits again, `spoolctl cancel` ends it", err=True)
    return exits.INTERRUPTED
