"""The program that looks at a build while that runs, as root of the namespace that builders are in.

What builders make belongs to their own user and is closed to the daemon. :mod:`spoold.nix.looker` starts this program
and says what to look at. Of spoold it imports the two modules that look, which import no further one, and little else.
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

TICK, REST = 0.05, 60.0  # seconds between two looks, at least and at most


def main() -> None:
    """Look again and again, and print each time what was found: the bytes, the limit that is passed or "", what Ledger
    says, and whether it was asked for.

    The first line of standard input says what to look at: ``places``, ``size`` and ``files`` as for ``measured``, and
    ``uid``, whose files without a name on the device ``disk`` count, and whose writing (-1: nobody's). A byte after it
    asks for a look at once; else a look comes after ten times as long as one takes, REST at most. The end of standard
    input is the end.
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
