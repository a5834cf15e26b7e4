"""The types of objects that an object of some type contains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec


def structs_in(hint: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield them, the type itself first."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
        for field in msgspec.structs.fields(hint):
            yield from structs_in(field.type)
    for part in get_args(hint):
        yield from structs_in(part)
