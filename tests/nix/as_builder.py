"""A builder that runs as another user. It reads settings, then expressions as lines of JSON, and prints each result.

VERIFY in place of an expression verifies the whole store.

tests.nix.setups starts ``python -m tests.nix.as_builder`` as that user, with the rights of its unit.
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
TRIES = 10  # how often the kernel may kill processes elsewhere before a test gives up


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
    """Prepare the builder.

    Try again after the kernel killed another test's process, as the daemon does after its rest.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(TemporaryError):
            return str(builder.prepare().bash)
    return str(builder.prepare().bash)


def answer(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
