"""Time limits that are beside ``problem.yaml``: in ``.timelimit`` and in ``domjudge-problem.ini``.

The older format has no key for a time limit, so judges write it there when they export a package. In the newer format
no file whose name begins with a period counts.
"""

from __future__ import annotations

import math
from pathlib import Path

from spoold.cli.grading.cases import content
from spoold.cli.text import printable
from spoold.model.errors import ClientError

FILE, OF_DOMJUDGE, KEY = ".timelimit", "domjudge-problem.ini", "timelimit"


def beside(path: Path, *, newer: bool) -> float | None:
    """Return the time limit in seconds that a file of the package states; None where there is none.

    Raises :class:`ClientError` where it is no number above 0.
    """
    file, ini = path / FILE, path / OF_DOMJUDGE
    if not newer and file.exists():
        return _seconds(_text(file), file)
    for line in _text(ini).splitlines() if ini.exists() else ():
        key, separator, value = line.partition("=")
        if separator and key.strip() == KEY:
            return _seconds(value.strip().strip("'\""), ini)
    return None


def _text(path: Path) -> str:
    return content(str(path)).decode(errors="replace")


def _seconds(text: str, path: Path) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ClientError(f"{printable(str(path))}: a time limit has to be a number of seconds above 0")
    return seconds
