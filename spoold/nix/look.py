"""The program that looks at the files of a running build, as root of the namespace that builders are in.

The files of builders belong to the builders' own user and are closed to the daemon. :mod:`spoold.nix.looker` starts
this program and tells it where to look. To start quickly it imports little: of spoold only the two modules that do the
looking, which import nothing else of spoold.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import time
from typing import Any

from spoold.nix.hidden import Ledger, processes_of, unnamed
from spoold.nix.measure import measured

TICK, REST = 0.05, 60.0  # the least and the most seconds between two looks


def main() -> None:
    """Look again and again, and print the result of each look as one line of JSON.

    A line holds the bytes found, the limit that is passed or "", ``wrote`` and ``at_most`` of the Ledger, and whether
    the look was asked for. The first line of standard input tells where to look: ``places``, ``size`` and ``files`` as
    for ``measured``, ``uid`` and ``disk``. Nameless files of ``uid`` on the device ``disk`` count, and so do the bytes
    that processes of ``uid`` write. With ``uid`` -1 neither counts. A byte after that line asks for a look at once.
    Else the program rests ten times as long as a look takes, REST at most. It ends at the end of standard input.
    """
    order = json.loads(sys.stdin.readline())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ledger, asked = Ledger(), False
    while True:
        began = time.monotonic()
        used, said = _looked(order)
        if order["uid"] >= 0:
            ledger.look(processes_of(order["uid"]))
        print(json.dumps((used, said, ledger.wrote, ledger.at_most, asked)), flush=True)
        ready, _, _ = select.select([0], [], [], min(REST, max(TICK, 10 * (time.monotonic() - began))))
        asked = bool(ready)
        if asked and not os.read(0, 4096):
            return


def _looked(order: dict[str, Any]) -> tuple[int, str]:
    try:
        hidden = unnamed(processes_of(order["uid"]), order["disk"]) if order["uid"] >= 0 else 0
    except OverflowError as error:
        return 0, str(error)
    return measured(order["places"], size=order["size"], files=order["files"], unnamed=hidden)
