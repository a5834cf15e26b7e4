"""Settings: what there is to set, typed and strict.

Every setting stands here once (some stand in ``model``), with its meaning, its unit and its default. The manual page is
made from these (``model.setting.describe``). Unknown keys are errors that name the key, since a setting that is
misspelt and ignored is worse than a daemon that does not start. ``config.file`` reads the settings, and ``config.live``
says which of them daemons take over while they run.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from spoold.config.nix import BuilderSettings as BuilderSettings
from spoold.config.nix import NixSettings as NixSettings
from spoold.model.collection import Rules
from spoold.model.limits import MIB, Limits
from spoold.model.retention import Rules as Retention
from spoold.model.scaling import ScaleSettings
from spoold.model.setting import setting

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of an executor: part of file names
READER = "^(user|group):."


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SpoolSettings(_Section, frozen=True):
    """The directory, and how it is watched.

    When less is free than ``min_free`` or ``min_free_inodes``, or than a tenth of a small file system, nothing more is
    taken in. When less than half of that is free, nothing more is run.
    """

    path: Annotated[str, setting("where the spool is")] = "/var/spool/spoold"
    remote: Annotated[
        bool, setting("true where the spool is mounted from another host: inotify sees nothing there, so poll")
    ] = False
    scan: Annotated[float, setting("a full look at the directories, also when no event came", "seconds", gt=0)] = 5.0
    remote_scan: Annotated[float, setting("the same where the spool is remote", "seconds", gt=0)] = 1.0
    settle: Annotated[
        float, setting("a file that does not parse is refused once it has not changed for so long", "seconds", ge=0)
    ] = 10.0
    upload: Annotated[
        float, setting("a file that is not whole is refused so long after it was first seen", "seconds", gt=0)
    ] = 3600.0
    max_file: Annotated[int, setting("the largest file that a client may drop", "bytes", ge=1)] = 16 * MIB
    max_files: Annotated[int, setting("how many files a submission may have", ge=1)] = 1000
    answers: Annotated[
        Literal["acl", "owner"],
        setting(
            "how an owner reads a response. acl: it is the daemons', and an access control list lets its owner read. "
            "owner: it is given away, where the file system keeps no lists; then its owner can change it"
        ),
    ] = "acl"
    published_by: Annotated[
        Literal["executor", "health"],
        setting(
            "who shows a response. executor: whoever ran it. health: executors only commit, and health lets the owner "
            "read; for executors that may not, as on nodes of a cluster. The same for all daemons of a spool"
        ),
    ] = "executor"
    readers: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=READER)]],
        setting("who may read all responses, beside their owners: user:NAME and group:NAME, or numbers; with acl only"),
    ] = []
    min_free: Annotated[int, setting("what must be free of the spool's disk", "bytes", ge=0)] = 256 * MIB
    min_free_inodes: Annotated[int, setting("how many inodes of it must be free", ge=0)] = 10_000

    def __post_init__(self) -> None:
        """Make the path absolute, since it is also the name by which an executor knows its own containers."""
        msgspec.structs.force_setattr(self, "path", os.path.abspath(self.path))


class ShareSettings(_Section, frozen=True):
    """What one owner may have in ``new/``, ``building/``, ``running/``, ``done/`` and ``quarantine/`` together.

    Above that, the owner's next files wait in ``incoming/``, and their jobs wait in ``new/``. Those of others go on.
    """

    bytes: Annotated[
        int, setting("how much of the spool's disk; if negative, a quarter of that file system", "bytes", ge=-1)
    ] = -1
    entries: Annotated[
        int,
        setting("how many; if negative, as many as a quarter of its inodes are enough for, four each", ge=-1),
    ] = -1


class LeaseSettings(_Section, frozen=True):
    """Who holds an entry, and for how long."""

    renewal: Annotated[float, setting("how often whoever works on an entry renews its mtime", "seconds", gt=0)] = 5.0
    limit: Annotated[float, setting("what is not renewed for so long goes back to the start", "seconds", gt=0)] = 30.0
    check: Annotated[float, setting("how often health looks at what is held", "seconds", gt=0)] = 5.0
    attempts: Annotated[int, setting("after so many attempts that failed an entry is given up", ge=1, le=100)] = 3
    pause: Annotated[
        float,
        setting("before the second attempt; before each further one it is twice as long, up to 300 s", "seconds", ge=0),
    ] = 5.0


class ExecutorSettings(_Section, frozen=True):
    """How many programs run at once."""

    name: Annotated[str, setting("tells executors on one spool apart"), msgspec.Meta(pattern=NAME)] = "default"
    slots: Annotated[
        int, setting("how many programs run at once; 0 means one per CPU that the executor may use", ge=0)
    ] = 0
    memory: Annotated[
        int,
        setting(
            "what programs that run at once may take together; 0 means what the host has, less a tenth of it and "
            "512 MiB at least",
            "bytes",
            ge=0,
        ),
    ] = 0
    drain: Annotated[
        float,
        setting(
            "for so long a stopping executor lets jobs run; then they are put back and lose no attempt", "seconds", ge=0
        ),
    ] = 60.0
    idle: Annotated[
        float,
        setting("an executor of a pool ends after so long without a job or an answer; 0 means never", "seconds", ge=0),
    ] = 0.0
    lifetime: Annotated[
        float,
        setting(
            "an executor of a pool takes no more jobs so long after its start, drains and ends; 0 means never",
            "seconds",
            ge=0,
        ),
    ] = 0.0
    route_only: Annotated[
        bool,
        setting(
            "true makes it a router: it files builds and gives answers that need no sandbox, leaves jobs to others, "
            "needs no engine, and does not end for being idle"
        ),
    ] = False

    @property
    def process(self) -> str:
        """Return the name that tells this executor's process from all others on a spool."""
        return f"{'router' if self.route_only else 'executor'}-{self.name}"

    @property
    def is_of_a_pool(self) -> bool:
        """Tell whether the executor ends by itself. Then nobody may ever start one of the same name again."""
        return bool(self.idle or self.lifetime)


class DockerSettings(_Section, frozen=True):
    """Docker, where that is the engine."""

    host: Annotated[str, setting("where the engine listens; empty means $DOCKER_HOST or the default socket")] = ""
    runtime: Annotated[
        str,
        setting(
            "one of the engine's OCI runtimes; empty means crun where the engine has it and a container starts with "
            "it, else the engine's own"
        ),
    ] = ""


class OciSettings(_Section, frozen=True):
    """runc or crun alone, where that is the engine."""

    runtime: Annotated[
        str,
        setting(
            "the OCI runtime, by its name or its path; empty means crun where that is installed and a container starts "
            "with it, else runc"
        ),
    ] = ""
    state: Annotated[
        str,
        setting(
            "where containers are kept, on a disk that lets programs start; empty means $STATE_DIRECTORY, as the unit "
            "sets it, or for root /var/lib/spoold-executor, or .local/state/spoold-executor of the user"
        ),
    ] = ""


class SandboxSettings(_Section, frozen=True):
    """Where programs run, whichever engine carries them."""

    engine: Annotated[
        str, setting("what carries jobs: docker; oci; or a module of Python's that provides an engine")
    ] = "docker"
    mode: Annotated[
        Literal["single-use", "recycled"],
        setting(
            "single-use gives each job a container of its own; recycled has a container serve jobs one after the "
            "other, each behind namespaces of its own"
        ),
    ] = "single-use"
    replace_after: Annotated[
        int, setting("a recycled container is replaced after so many jobs, or after anything unusual", ge=1)
    ] = 200
    replace_on_owner_change: Annotated[
        bool, setting("replace a recycled container before it serves a job of another user")
    ] = False
    waiting: Annotated[
        int,
        setting(
            "how many started containers wait for a job; if negative, as many as there are slots, and where they are "
            "not recycled more for bursts, up to 48, in a 32nd of the memory"
        ),
    ] = -1
    pin_cpus: Annotated[
        bool,
        setting(
            "whether each job runs on one CPU, which with no more slots than CPUs is its own; starting one takes "
            "some 20 ms longer, and several processes of one job share that CPU"
        ),
    ] = False
    view: Annotated[
        Literal["auto", "required", "off"],
        setting(
            "whether a job sees its own closure of the Nix store only: where that is possible, or else no job runs, "
            "or never"
        ),
    ] = "auto"


class TurnsSettings(_Section, frozen=True):
    """Whose job or build is next, where several users wait for one place."""

    weights: Annotated[
        dict[str, Annotated[float, msgspec.Meta(gt=0, le=1000)]],
        setting(
            "how much of the time a user gets beside others, who have 1: by name, by uid:NUMBER, or for each member of "
            "group:NAME, such as { alice = 2, 'group:staff' = 4 }; their own counts before those of groups, and of "
            "these the largest"
        ),
    ] = {}


class MetricsSettings(_Section, frozen=True):
    """What the daemons count and measure, for Prometheus, by way of the textfile collector of its node_exporter."""

    directory: Annotated[
        str, setting("where each daemon keeps a file of its own, spoold-*.prom; empty: nothing is measured")
    ] = ""
    interval: Annotated[float, setting("how often they are written", "seconds", ge=1)] = 15.0
    status_page: Annotated[
        str,
        setting(
            "a page of counts and times for a browser, which health writes as often: its name beside the files, such "
            "as status.html, or its path; empty: none"
        ),
    ] = ""


class Settings(_Section, frozen=True):
    """All settings."""

    spool: SpoolSettings = SpoolSettings()
    share: ShareSettings = ShareSettings()
    lease: LeaseSettings = LeaseSettings()
    executor: ExecutorSettings = ExecutorSettings()
    sandbox: SandboxSettings = SandboxSettings()
    docker: DockerSettings = DockerSettings()
    oci: OciSettings = OciSettings()
    builder: BuilderSettings = BuilderSettings()
    nix: NixSettings = NixSettings()
    limits: Limits = Limits()
    gc: Rules = Rules()
    retention: Retention = Retention()
    turns: TurnsSettings = TurnsSettings()
    metrics: MetricsSettings = MetricsSettings()
    scale: ScaleSettings = ScaleSettings()
    nixpkgs: Annotated[
        dict[str, str],
        setting(
            "the pins that requests choose from, by name: each a directory, a tarball, a URL or a store path; "
            "one called default must be there for a builder to start"
        ),
    ] = {}
