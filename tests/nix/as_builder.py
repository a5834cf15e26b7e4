"""A builder as another user: reads settings, then expressions, a line of JSON each, and prints what came of each build.

For VERIFY in place of an expression the whole store is verified.

``python -m tests.nix.as_builder``, started by tests.nix.setups as that user, with what its unit would give it.
"""

from __future__ import annotations

import itertools
import sys
import threading

import msgspec

from spoold.config import Settings
from spoold.host import userns
from spoold.model.errors import SpooldError
from spoold.nix.build import NixBuilder
from spoold.nix.verify import verify

VERIFY = "verify"


def main() -> None:
    userns.at_start()
    builder = NixBuilder(msgspec.json.decode(sys.stdin.readline(), type=Settings))
    answer(str(builder.prepare().bash))
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


def answer(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
