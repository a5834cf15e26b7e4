"""Names over which a user has mounted something, as far as other processes notice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def in_the_way(call: str, error: int, *names: str) -> Iterator[None]:
    """Make an operation fail on these names, as it does where a user has mounted something over them."""
    real = getattr(os, call)

    def fail(path: Any, *args: Any, **kwargs: Any) -> Any:
        if os.path.basename(path) in names:
            raise OSError(error, os.strerror(error), path)
        return real(path, *args, **kwargs)

    with mock.patch.object(os, call, fail):
        yield
