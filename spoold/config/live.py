"""Which settings daemons take over while they run, at SIGHUP. All others need a restart."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from spoold.config import Settings

LIVE = (
    "spool.scan",
    "spool.settle",
    "spool.upload",
    "spool.max_file",
    "spool.max_files",
    "spool.min_free",
    "spool.min_free_inodes",
    "share",
    "lease.check",
    "executor.drain",
    "builder.failure_memory",
    "nix.fetch",
    "nix.fetch_inside",
    "limits.compile",
    "limits.run",
    "gc",
    "retention",
    "turns",
    "scale",
    "nixpkgs",
)


class Change(NamedTuple):
    """The outcome of reading the settings again: those that hold now, which are new, and which need a restart."""

    settings: Settings
    taken_over: list[str]
    left: list[str]


def take_over(now: Settings, wanted: Settings) -> Change:
    """Return ``now`` with the ``LIVE`` settings of ``wanted``, and which settings have changed."""
    held, fresh = msgspec.to_builtins(now), msgspec.to_builtins(wanted)
    changed = [
        f"{table}.{name}"
        for table in held
        for name in held[table] | fresh[table]
        if held[table].get(name) != fresh[table].get(name)
    ]
    for path in LIVE:
        table, _, name = path.partition(".")
        if name:
            held[table][name] = fresh[table][name]
        else:
            held[table] = fresh[table]
    live = [path for path in changed if is_live(path)]
    return Change(msgspec.convert(held, Settings), live, [path for path in changed if path not in live])


def is_live(path: str) -> bool:
    """Tell whether a setting (``table.name``) can be taken over without a restart."""
    return path in LIVE or path.partition(".")[0] in LIVE
