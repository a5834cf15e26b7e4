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
from spoold.config.sandbox import DockerSettings as DockerSettings
from spoold.config.sandbox import OciSettings as OciSettings
from spoold.config.sandbox import SandboxSettings as SandboxSettings
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
        bool, setting("true if the spool is mounted from another host. inotify sees no changes there, so daemons poll")
    ] = False
    scan: Annotated[
        float, setting("how often the directories are scanned in full, even if no event came", "seconds", gt=0)
    ] = 5.0
    remote_scan: Annotated[
        float, setting("how often the directories of a remote spool are scanned", "seconds", gt=0)
    ] = 1.0
    settle: Annotated[
        float, setting("a file that does not parse is refused once it has not changed for this long", "seconds", ge=0)
    ] = 10.0
    upload: Annotated[
        float, setting("a file that is incomplete is refused this long after it was first seen", "seconds", gt=0)
    ] = 3600.0
    max_file: Annotated[int, setting("the largest file that a client may drop", "bytes", ge=1)] = 16 * MIB
    max_files: Annotated[int, setting("how many files a submission may have", ge=1)] = 1000
    answers: Annotated[
        Literal["acl", "owner"],
        setting(
            "how an owner can read a response. acl: the response belongs to the daemons, and an access control list "
            "lets its owner read it. owner: the response is given to its owner, for file systems without such lists. "
            "The owner can then change it"
        ),
    ] = "acl"
    published_by: Annotated[
        Literal["executor", "health"],
        setting(
            "which daemon makes a response readable for its owner. executor: the one that ran the submission. health: "
            "executors only commit responses, and health publishes them. Choose health if executors lack the rights "
            "to publish, as on nodes of a cluster. All daemons of a spool need the same value"
        ),
    ] = "executor"
    readers: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=READER)]],
        setting(
            "who may read all responses, besides their owners: user:NAME and group:NAME, or numbers in place of "
            "names. This needs answers = 'acl'"
        ),
    ] = []
    min_free: Annotated[
        int, setting("how much must be free on the spool's disk to take in submissions", "bytes", ge=0)
    ] = 256 * MIB
    min_free_inodes: Annotated[
        int, setting("how many inodes must be free on the spool's disk to take in submissions", ge=0)
    ] = 10_000

    def __post_init__(self) -> None:
        """Make the path absolute, since it is also the name by which an executor knows its own containers."""
        msgspec.structs.force_setattr(self, "path", os.path.abspath(self.path))


class ShareSettings(_Section, frozen=True):
    """What one owner may have in ``new/``, ``building/``, ``running/``, ``done/`` and ``quarantine/`` together.

    Above that, the owner's next files wait in ``incoming/``, and their jobs wait in ``new/``. Those of others go on.
    """

    bytes: Annotated[
        int,
        setting(
            "how much of the spool's disk an owner may use; if negative, a quarter of that file system", "bytes", ge=-1
        ),
    ] = -1
    entries: Annotated[
        int,
        setting(
            "how many entries an owner may have; if negative, as many as a quarter of the file system's inodes are "
            "enough for, at four inodes an entry",
            ge=-1,
        ),
    ] = -1


class LeaseSettings(_Section, frozen=True):
    """How long a worker may hold an entry, and how often an entry is tried."""

    renewal: Annotated[
        float, setting("how often a worker renews the mtime of the entry that it works on", "seconds", gt=0)
    ] = 5.0
    limit: Annotated[
        float, setting("an entry that was not renewed for this long goes back to the start", "seconds", gt=0)
    ] = 30.0
    check: Annotated[float, setting("how often health looks at the entries that workers hold", "seconds", gt=0)] = 5.0
    attempts: Annotated[int, setting("an entry is given up after this many failed attempts", ge=1, le=100)] = 3
    pause: Annotated[
        float,
        setting(
            "the pause before the second attempt; each further pause is twice as long, up to 300 s", "seconds", ge=0
        ),
    ] = 5.0


class ExecutorSettings(_Section, frozen=True):
    """How many programs run at once."""

    name: Annotated[str, setting("the name that tells executors on one spool apart"), msgspec.Meta(pattern=NAME)] = (
        "default"
    )
    slots: Annotated[
        int, setting("how many programs run at once; 0 means one per CPU that the executor may use", ge=0)
    ] = 0
    memory: Annotated[
        int,
        setting(
            "how much memory the programs that run at once may take together; 0 means the host's memory, less a tenth "
            "of it or 512 MiB, whichever is more",
            "bytes",
            ge=0,
        ),
    ] = 0
    drain: Annotated[
        float,
        setting(
            "how long a stopping executor lets its jobs run; after that they are put back and lose no attempt",
            "seconds",
            ge=0,
        ),
    ] = 60.0
    idle: Annotated[
        float,
        setting(
            "an executor of a pool ends after this long without a job or an answer; 0 means never", "seconds", ge=0
        ),
    ] = 0.0
    lifetime: Annotated[
        float,
        setting(
            "this long after its start, an executor of a pool takes no more jobs, drains and ends; 0 means never",
            "seconds",
            ge=0,
        ),
    ] = 0.0
    route_only: Annotated[
        bool,
        setting(
            "true makes this executor a router: it files builds, gives answers that need no sandbox, and leaves jobs "
            "to other executors. A router needs no engine and does not end for being idle"
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


class TurnsSettings(_Section, frozen=True):
    """The order of users who wait for one place, for a job or a build."""

    weights: Annotated[
        dict[str, Annotated[float, msgspec.Meta(gt=0, le=1000)]],
        setting(
            "how much of the time a user gets beside other users, who have 1. A key is a user's name, uid:NUMBER, or "
            "group:NAME for each member of a group, such as { alice = 2, 'group:staff' = 4 }. A user's own weight "
            "counts before those of groups, and of these the largest counts"
        ),
    ] = {}


class MetricsSettings(_Section, frozen=True):
    """Counts and times of the daemons, for the textfile collector of Prometheus' node_exporter."""

    directory: Annotated[
        str,
        setting(
            "the directory where each daemon keeps a file of its own, spoold-*.prom; empty means that nothing is "
            "measured"
        ),
    ] = ""
    interval: Annotated[float, setting("how often the files are written", "seconds", ge=1)] = 15.0
    status_page: Annotated[
        str,
        setting(
            "a page of counts and times for a browser, which health writes at the same interval. Give its name beside "
            "the files, such as status.html, or its path; empty means no page"
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
            "the pins that requests choose from, by name. Each is a directory, a tarball, a URL or a store path. A "
            "builder starts only if there is one called default"
        ),
    ] = {}
