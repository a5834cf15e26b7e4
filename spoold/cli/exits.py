"""Exit codes of both commands, and the one handler at the top.

| code | means |
|---|---|
| 0 | done; with ``--wait``: the submission ended with ``COMPLETED`` (``cancel``: with ``CANCELLED``) |
| 1 | it cannot be done: the text on stderr says why, and what to do |
| 2 | the command line is wrong |
| 3 | a bug of spoold's; the traceback is on stderr |
| 4 | waited as long as allowed; the submission is still on its way |
| 5 | with ``--wait``: the submission ended with another status than that |
| 130 | interrupted from the keyboard |
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import click

from spoold.cli.text import printable
from spoold.client.errors import SpoolError
from spoold.model.errors import SpooldError

OK, FAILED, USAGE, BUG, TIMED_OUT, NOT_COMPLETED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def timed_out(id_: str, timeout: float) -> int:
    """Say that a wait was not long enough; return the code for it."""
    click.echo(f"{id_}: no response within {timeout:g} s; it is not lost: ask again with `spoolctl status`", err=True)
    return TIMED_OUT


def run(command: Callable[..., object], name: str) -> None:
    """Run a click command, which is called ``name``, and end the process with a code of the table."""
    try:
        code = command(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE if isinstance(error, click.UsageError) else FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except (SpooldError, SpoolError, OSError) as error:
        print(f"{name}: {printable(str(error))}", file=sys.stderr)
        sys.exit(FAILED)
    except Exception:  # noqa: BLE001 - the handler of last resort says that it is our bug
        traceback.print_exc()
        sys.exit(BUG)
    sys.exit(code if isinstance(code, int) else OK)
