"""Bounds of what a program gets as its arguments and its environment.

Spec: spool-layout.md, "Bounds".
"""

from __future__ import annotations

from spoold.model.errors import ClientError
from spoold.model.words import shown

MAX_ARGUMENT = 128 * 1024 - 1  # execve(2): MAX_ARG_STRLEN, the NUL included
MAX_ARGUMENTS = 1024 * 1024  # execve(2): a quarter of the stack limit is 2 MiB; half of it is left to the shell's own
MAX_ENTRIES = 4096  # of args, and of env
WIRE_OVERHEAD = 64


def check_arguments(args: list[str], env: dict[str, str], below: str = "") -> None:
    """Raise :class:`ClientError` where a program could not get these; ``below`` is in which part of a request."""
    for key, many in (("args", len(args)), ("env", len(env))):
        if many > MAX_ENTRIES:
            raise ClientError(f"{below}{key}: {many} entries are more than {MAX_ENTRIES}")
    total = 0
    for index, argument in enumerate(args):
        total += _checked_string(argument, f"{below}args[{index}]") + WIRE_OVERHEAD
    for name, value in env.items():
        if not name or "=" in name:
            raise ClientError(f"{below}env: {shown(name)} is not a name: it is empty or has '=' in it")
        total += _checked_string(f"{name}={value}", f"{below}env[{shown(name)}]") + WIRE_OVERHEAD
    if total > MAX_ARGUMENTS:
        raise ClientError(f"{below}args, env: {total} bytes together are more than {MAX_ARGUMENTS}")


def _checked_string(text: str, where: str) -> int:
    if "\0" in text:
        raise ClientError(f"{where}: a NUL is not allowed here")
    size = len(text.encode())
    if size > MAX_ARGUMENT:
        raise ClientError(f"{where}: {size} bytes are more than the {MAX_ARGUMENT} of one string")
    return size
