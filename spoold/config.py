"""Settings: one TOML file, typed and strict.

Every setting stands here once, with its unit and its default. Unknown keys are errors that name the key, since a
setting that is misspelt and ignored is worse than a daemon that does not start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from spoold.model.collection import Rules
from spoold.model.errors import OperatorError
from spoold.model.job import BuildLimits
from spoold.model.limits import MIB, Limits, PhaseRange
from spoold.model.retention import Rules as Retention

DEFAULT_PATH = "/etc/spoold/spoold.toml"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Spool(_Section, frozen=True):
    """The directory, and how it is watched. Times in seconds, sizes in bytes.

    Below ``min_free`` bytes or ``min_free_inodes``, or a tenth of a small file system, nothing more is taken in; below
    half of that, nothing more is run.
    """

    path: str = "/var/spool/spoold"
    remote: bool = False  # true where the spool is mounted from another host: inotify sees nothing there, so poll
    scan: float = 5.0  # a full look at the directories, also when no event came
    remote_scan: float = 1.0
    settle: float = 10.0  # a file that does not parse is refused once it has not changed for so long
    max_file: int = 16 * MIB
    max_files: int = 1000
    min_free: int = 256 * MIB
    min_free_inodes: int = 10_000


class Lease(_Section, frozen=True):
    """Who holds an entry, and for how long. Seconds, but for ``attempts``.

    ``pause`` is what passes before the second attempt; before each further one it is twice as long, up to 300 s.
    """

    renewal: float = 5.0
    limit: float = 30.0
    check: float = 5.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    pause: float = 5.0


class Executor(_Section, frozen=True):
    """How many programs run at once; 0 slots means one per CPU. ``name`` tells executors on one host apart.

    ``drain``: seconds for which a stopping executor lets jobs run; then they are put back and lose no attempt.
    """

    name: str = "default"
    slots: int = 0
    drain: float = 60.0


class Docker(_Section, frozen=True):
    """The engine. An empty ``host`` means $DOCKER_HOST or the default socket.

    ``runtime`` is one of the engine's OCI runtimes; empty means crun where the engine has it and a container starts
    with it, else the engine's own.

    ``mode``: "single-use" gives each job a container of its own; in "recycled" a container serves jobs one after the
    other, each behind namespaces of its own, until it has served ``replace_after``, or something unusual happened, or,
    with ``replace_on_owner_change``, the next job is another user's. ``waiting``: how many started containers wait for
    a job; as many as there are slots if negative, none if 0. ``view``: whether a job sees its own closure of the Nix
    store only: where that is possible, or else no job runs, or never.
    """

    host: str = ""
    runtime: str = ""
    mode: Literal["single-use", "recycled"] = "single-use"
    replace_after: Annotated[int, msgspec.Meta(gt=0)] = 200
    replace_on_owner_change: bool = False
    waiting: int = -1
    view: Literal["auto", "required", "off"] = "auto"


class Builder(_Section, frozen=True):
    """Builds of dependencies. ``failure_memory``: seconds for which a failed build is answered from memory.

    ``parallel`` builds run at once. One that takes more than ``patience`` seconds makes room for others that wait: it
    becomes one of up to ``slow`` more, or is put back until it may. With 0 each keeps its place to the end.
    """

    parallel: int = 2
    patience: float = 5.0
    slow: int = 4
    failure_memory: float = 60.0
    limits: BuildLimits = BuildLimits()


class Nix(_Section, frozen=True):
    """Nix and its store. The store is ``<state>/nix``; ``substituters`` are the binary caches to ask, none if empty.

    When the builder runs as root, ``jail_user`` is the uid under which expressions are evaluated, and ``build_users``
    the group whose members run builds; "auto" is nixbld where the host has it. Without one ("") builds run as root, in
    nothing but Nix's sandbox.

    ``enter``: what sets up the environment of a job's phases in its sandbox: what the builder captured of it, or
    nix-shell itself, each time.
    """

    state: str = "/var/lib/spoold"
    system: str = "x86_64-linux"
    substituters: list[str] = []
    trusted_public_keys: list[str] = []
    jail_user: int = 60705  # not nobody, whom other programs run as: no system gives this one out
    build_users: str = "auto"
    enter: Literal["captured", "nix-shell"] = "captured"


class Settings(_Section, frozen=True):
    """All of it. ``nixpkgs`` maps names of pins to a directory, a tarball, a URL or a store path; ``gc`` says when
    dependencies are unused, ``retention`` how long what is finished is kept.
    """

    spool: Spool = Spool()
    lease: Lease = Lease()
    executor: Executor = Executor()
    docker: Docker = Docker()
    builder: Builder = Builder()
    nix: Nix = Nix()
    limits: Limits = Limits()
    gc: Rules = Rules()
    retention: Retention = Retention()
    nixpkgs: dict[str, str] = {}


def load(path: str | None) -> Settings:
    """Read settings from ``path``; without one, from $SPOOLD_CONFIG or /etc/spoold/spoold.toml, or the defaults.

    Raises :class:`OperatorError`, which names the file and the key.
    """
    chosen = path or os.environ.get("SPOOLD_CONFIG")
    if chosen is None and not os.path.exists(DEFAULT_PATH):
        return Settings()
    name = chosen or DEFAULT_PATH
    try:
        return decode(Path(name).read_bytes())
    except OSError as error:
        raise OperatorError(f"{name}: {error.strerror}; name a readable file with --config") from error
    except msgspec.DecodeError as error:
        raise OperatorError(f"{name}: {error}") from error


def decode(text: bytes) -> Settings:
    """Decode TOML; a phase's limits may name only what differs from the built-in values."""
    raw = msgspec.toml.decode(text)
    for phase, kinds in raw.get("limits", {}).items() if isinstance(raw.get("limits"), dict) else ():
        base = getattr(Limits(), phase, None)
        if isinstance(base, PhaseRange) and isinstance(kinds, dict):
            raw["limits"][phase] = msgspec.to_builtins(base) | {
                kind: msgspec.to_builtins(getattr(base, kind, {})) | values for kind, values in kinds.items()
            }
    return msgspec.convert(raw, Settings)
