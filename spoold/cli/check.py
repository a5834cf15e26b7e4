"""``spoolctl check``: name the files of the spool that no state explains, and what is to be done about them."""

from __future__ import annotations

import os

import click
import msgspec
from rich.console import Console
from rich.table import Table

from spoold.cli import exits, render
from spoold.cli.options import JSON
from spoold.cli.place import pass_settings
from spoold.cli.text import printable
from spoold.config import Settings
from spoold.host import fsops
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Kept
from spoold.spool import layout
from spoold.spool.store import Spool
from spoold.upkeep.check import Check
from spoold.upkeep.repair import repair as carry_out
from spoold.upkeep.unexplained import Action, Unexplained


@click.command(short_help="Find files that no state explains, and repair them.")
@click.option("--repair", is_flag=True, help="Repair each file as the output says.")
@JSON
@pass_settings
def command(settings: Settings, *, repair: bool, as_json: bool) -> int:
    """Name every file of the spool that no state explains, and say what would be done about it.

    The daemons may run meanwhile. They clean up by themselves what a crash leaves. This command is for files that they
    cannot know of: files that were put there by hand, were restored from elsewhere, or were changed by a broken disk.
    --repair does what is said of each file. An unreadable file goes to quarantine/ with the reason, and is never
    deleted.

    \b
    Examples:
      spoolctl check
      spoolctl check --repair

    Exit codes: 0 all is explained or repaired, 1 something is to be repaired.
    """
    layout.check(settings.spool.path)
    role = f"check-{os.getpid()}"
    check = Check(settings, role)
    try:
        with Console(stderr=True, quiet=as_json).status("looking at every file"):
            found = check.unexplained()
            repaired = [each for each in found if repair and _repair(check.spool, each)]
    finally:
        fsops.remove(os.path.join(settings.spool.path, "tmp", f"{role}{Kept.PROBE}"))
    if as_json:
        shown = [
            {"path": _text(each.path), "why": each.why, "action": each.action, "repaired": each in repaired}
            for each in found
        ]
        click.echo(msgspec.json.encode({"unexplained": shown}))
    else:
        _show(found, repaired)
    left = [each for each in found if each not in repaired and each.action is not Action.LEAVE]
    return exits.FAILED if left else exits.OK


def _repair(spool: Spool, found: Unexplained) -> bool:
    try:
        carry_out(spool, found)
    except LeaseLostError:
        return False  # a worker has claimed it meanwhile
    except OSError as error:
        click.echo(f"{printable(_text(found.path))}: {printable(str(error))}", err=True)
        return False
    return found.action is not Action.LEAVE


def _text(path: str) -> str:
    """Return a name as text, whatever bytes it contains."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _show(found: list[Unexplained], repaired: list[Unexplained]) -> None:
    console = render.console()
    if found:
        table = Table("file", "why", "what to do", box=None, pad_edge=False)
        for each in found:
            what = f"done: {each.action}" if each in repaired else str(each.action)
            table.add_row(printable(_text(each.path)), printable(each.why), what)
        console.print(table)
    left = sum(each not in repaired and each.action is not Action.LEAVE for each in found)
    hint = ": `spoolctl check --repair` does it" if left else ""
    console.print(f"{len(found)} files that no state explains, {left} to repair{hint}")
