"""A builder as another user: reads settings, then expressions, a line of JSON each, and prints what came of each build.

For VERIFY in place of an expression the whole store is verified.

``python -m tests.nix.as_builder``, started by tests.nix.setups as that user, with what its unit would give it.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading

import msgspec

from spoold.config import Settings
from spoold.host import userns
from spoold.model.errors import SpooldError, TemporaryError
from spoold.nix.build import NixBuilder
from spoold.nix.verify import verify

VERIFY = "verify"
TRIES = 10  # processes that the kernel kills elsewhere, one after the other


def main() -> None:
    userns.at_start()
    builder = NixBuilder(msgspec.json.decode(sys.stdin.readline(), type=Settings))
    answer(prepared(builder))
    for number in itertools.count():
        line = sys.stdin.readline()
        if not line:
            return
        expression = msgspec.json.decode(line, type=str)
        if expression == VERIFY:
            answer(verify(builder.settings.nix))
            continue
        try:
            result = builder.build(f"test-{number}", expression, "default", threading.Event())
        except SpooldError as error:
            answer(f"{type(error).__name__}: {error}")
        else:
            answer(result)


def prepared(builder: NixBuilder) -> str:
    """Prepare it, again where the kernel killed a process of another test, as the daemon does after its rest."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(TemporaryError):
            return str(builder.prepare().bash)
    return str(builder.prepare().bash)


def answer(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
