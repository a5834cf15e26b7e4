"""Bounds of the arguments and the environment that a program gets.

Spec: spool-layout.md, "Bounds".
"""

from __future__ import annotations

from spoold.model.errors import ClientError
from spoold.model.words import shown

MAX_ARGUMENT = 128 * 1024 - 1  # execve(2): MAX_ARG_STRLEN, the NUL included
MAX_ARGUMENTS = 1024 * 1024  # execve(2) allows a quarter of the stack limit, 2 MiB. Half of it is left to the shell
MAX_ENTRIES = 4096  # in args, and in env
WIRE_OVERHEAD = 64


def check_arguments(args: list[str], env: dict[str, str], below: str = "") -> None:
    """Raise :class:`ClientError` where a program could not get these arguments and variables.

    ``below`` is the part of the request that has them, as its keys begin: "", ``checker.`` or ``interactor.``.
    """
    check_total(size_of_args(args, below), size_of_env(env, below), below)


def size_of_args(args: list[str], below: str = "") -> int:
    """Return the bytes that ``args`` count as. Raises what ``check_arguments`` raises."""
    _check_number("args", len(args), below)
    return sum(_checked_string(each, f"{below}args[{index}]") for index, each in enumerate(args))


def size_of_env(env: dict[str, str], below: str = "", over: dict[str, str] | None = None) -> int:
    """Return how many bytes more the environment ``over`` counts as when ``env`` is laid over it."""
    over = over or {}
    replaced = [name for name in env if name in over]
    _check_number("env", len(env) + len(over) - len(replaced), below)
    for name in env:
        if not name or "=" in name:
            raise ClientError(f"{below}env: {shown(name)} is not a name: it is empty or has '=' in it")
    added = sum(_checked_string(f"{name}={value}", f"{below}env[{shown(name)}]") for name, value in env.items())
    return added - sum(_checked_string(f"{name}={over[name]}", "env") for name in replaced)


def check_total(args: int, env: int, below: str = "") -> None:
    """Raise :class:`ClientError` where arguments and environment together count as too many bytes."""
    if args + env > MAX_ARGUMENTS:
        raise ClientError(f"{below}args, env: {args + env} bytes together are more than {MAX_ARGUMENTS}")


def _check_number(key: str, many: int, below: str) -> None:
    if many > MAX_ENTRIES:
        raise ClientError(f"{below}{key}: {many} entries are more than {MAX_ENTRIES}")


def _checked_string(text: str, where: str) -> int:
    if "\0" in text:
        raise ClientError(f"{where}: a NUL is not allowed here")
    size = len(text.encode())
    if size > MAX_ARGUMENT:
        raise ClientError(f"{where}: {size} bytes are more than the {MAX_ARGUMENT} of one string")
    return size + WIRE_OVERHEAD
