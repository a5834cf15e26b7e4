"""Exit codes of both commands, and the one handler at the top.

| code | means |
|---|---|
| 0 | done; with ``--wait``: the submission ended with ``COMPLETED`` (``cancel``: with ``CANCELLED``) |
| 1 | it cannot be done: the text on stderr says why, and what to do |
| 2 | the command line is wrong |
| 3 | a bug in spoold; the traceback is on stderr |
| 4 | no response within the allowed time; the submission is still on its way |
| 5 | the program failed: ``RUN_FAILED``, ``COMPILE_FAILED`` or ``DEPENDENCIES_FAILED`` (``cancel``: it had ended) |
| 6 | the request was refused: ``REJECTED``, also before it was sent |
| 7 | the service failed: ``INTERNAL_ERROR``, or it cannot be reached |
| 8 | the submission was cancelled |
| 130 | interrupted from the keyboard |
| 141 | the reader of standard output closed it; a program that SIGPIPE ended has this code too |

If the program ended by itself, ``run`` ends with the program's exit code. If a signal ended the program, that is 128
plus the number of the signal. So codes 4 to 8 may also be the program's: ``--json`` tells.

With ``--json`` an error is also ``{"error": TEXT, "exit_code": CODE}`` on standard output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from spoold.cli.text import printable
from spoold.client.errors import SpoolError, UnreachableError
from spoold.model.errors import SpooldError

if TYPE_CHECKING:
    import click

OK, FAILED, USAGE, BUG, TIMED_OUT, NOT_COMPLETED, REFUSED, SERVICE, CANCELLED, INTERRUPTED = (*range(9), 130)
OF_STATUS = {"COMPLETED": OK, "REJECTED": REFUSED, "INTERNAL_ERROR": SERVICE, "CANCELLED": CANCELLED}
PIPE_CLOSED = 141  # as for a program that SIGPIPE ended


def of(status: str, wanted: str) -> int:
    """Return the exit code for a submission that ended with ``status``, where ``wanted`` is the status of success."""
    return OK if status == wanted else OF_STATUS.get(status, NOT_COMPLETED) or NOT_COMPLETED


def timed_out(ids: str, timeout: float) -> int:
    """Say that the time to wait is over, and return the exit code for that."""
    say(f"{ids}: no response within {timeout:g} s. Nothing is lost: `spoolctl wait {ids}` waits again", TIMED_OUT)
    return TIMED_OUT


def say(text: str, code: int) -> None:
    """Say what went wrong: to a person, and with ``--json`` also to a program."""
    print(text, file=sys.stderr)
    _tell_program(text, code)


def _tell_program(text: str, code: int) -> None:
    if "--json" in sys.argv:
        import json  # noqa: PLC0415 - few commands use --json, and fewer of them fail

        try:
            print(json.dumps({"error": text, "exit_code": code}), flush=True)
        except OSError:  # standard output may be what failed
            nobody_reads()


def nobody_reads() -> int:
    """Discard further output, since the reader of standard output has closed it. Return the exit code for that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return PIPE_CLOSED


def _open_outputs() -> None:
    """Discard output that goes to a closed descriptor. Otherwise the next opened file would get that number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def run(command: Callable[..., object], name: str) -> NoReturn:
    """Run a click command called ``name``, and end the process with a code of the table."""
    import click  # noqa: PLC0415 - daemons do without it

    def called() -> object:
        try:
            return command(prog_name=name, standalone_mode=False)
        except click.ClickException as error:
            _show_usage(error)
        except click.Abort:
            sys.exit(INTERRUPTED)

    guard(called, name)


def guard(main: Callable[[], object], name: str) -> NoReturn:
    """Call the main function of the program ``name``, and end the process with a code of the table."""
    _open_outputs()
    stdout = sys.stdout
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(nobody_reads())
    except SystemExit as error:
        # click replaces standard output when nobody reads it, and rich ends the program. Both would end with 1.
        if sys.stdout is not stdout or isinstance(error.__context__, BrokenPipeError):
            sys.exit(nobody_reads())
        raise
    except (SpooldError, SpoolError, OSError) as error:
        code = _code(error)
        say(f"{name}: {printable(_said(error))}", code)
        sys.exit(code)
    except Exception as error:  # noqa: BLE001 - the last handler reports any other error as a bug of ours
        import traceback  # noqa: PLC0415 - only here

        traceback.print_exc()
        _tell_program(f"{name}: a bug in spoold: {type(error).__name__}; the traceback is on stderr", BUG)
        sys.exit(BUG)
    sys.exit(code if isinstance(code, int) else OK)


def _show_usage(error: click.ClickException) -> NoReturn:
    code = error.exit_code  # that of a usage error is 2
    error.show()
    _tell_program(error.format_message(), code)
    sys.exit(code)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'reading or writing failed'}: {error.strerror}"
    return str(error)


def _code(error: Exception) -> int:
    if isinstance(error, UnreachableError) and not error.is_wrong_place:
        return SERVICE
    return REFUSED if getattr(error, "is_refusal", False) else FAILED
