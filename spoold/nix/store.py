"""The Nix store of this spool. All modules of ``spoold.nix`` call Nix programs through this one.

Theory of operation: the store is a chroot store, physically ``<state>/nix/nix/store``, logically ``/nix/store``. It
needs only the programs of the host's Nix, and no daemon. Every program starts with an empty environment, with every
option that matters on its command line, and with an empty configuration directory, so that the host's nix.conf is not
read. It runs as root of the namespace that the users of builds are in (:mod:`spoold.nix.users`). Outside of that
namespace the store's contents can only be read.

Jobs get the physical directory as their ``/nix/store``. So it must not be listable, since names of store paths tell
what others use. Nix resets the mode of that directory whenever it starts with a build group, and no option prevents
that. The mode is set back within milliseconds. Where there is no build group, Nix leaves the mode as it is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

from spoold.config import NixSettings
from spoold.host import launch, proc
from spoold.host.seccomp import filtering
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.nix import cage, command, confine, door, looker, measure, places, users, workspaces
from spoold.nix.lock import BuildLock
from spoold.nix.roots import Roots

QUICK = proc.Bounds(wall=120, stdout=64 * 1024**2)
CLOSURE = """
WITH RECURSIVE closure(id) AS (
    SELECT id FROM ValidPaths WHERE path = ?
    UNION SELECT reference FROM Refs JOIN closure ON Refs.referrer = closure.id
)
SELECT path, narSize FROM ValidPaths WHERE id IN closure
"""
CLOSED = 0o711
CLOSED_TO_ALL_BUT_GROUP = 0o1771
LOGICAL = "/nix/store"


class Store:
    """One chroot store and the directories beside it."""

    def __init__(self, settings: NixSettings) -> None:
        self.settings = settings
        self.state = Path(settings.state).absolute()
        self.root = self.state / "nix"
        self.physical = self.root / "nix" / "store"
        self.roots = Roots(self.root / "nix/var/nix/gcroots/spoold")
        self.room = self.state / places.ROOM
        self.lock = BuildLock(self.room)
        self.temporary = self.room / "tmp"
        self.configuration = self.room / "etc"

    def prepare(self) -> None:
        """Make the directories. Remove the temporary files that a killed daemon left behind.

        Raises :class:`OperatorError` where a directory cannot be made.
        """
        try:
            places.create(str(self.state))
            for directory in (self.roots.directory, self.configuration):
                directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            self.temporary.mkdir(exist_ok=True, mode=0o700)
            if self.state.stat().st_uid == os.geteuid() and self.physical.stat().st_uid == os.geteuid():
                # One user owns all of it. The state is closed, since it tells what everybody's environments are made
                # of. Jobs see no part of it by a path.
                self.state.chmod(0o700)
        except OSError as error:
            raise OperatorError(
                f"cannot make {error.filename}: {error.strerror}; set nix.state, or run `spoolctl init` as root"
            ) from error
        self.close_listing()
        workspaces.remove_abandoned(self.temporary, self.remove)

    @property
    def users(self) -> users.BuildUsers | None:
        """Return the users that run builders, see :func:`spoold.nix.users.find`."""
        return users.find(self.settings)

    @property
    def _entering(self) -> launch.Entering | None:
        return None if self.users is None else self.users.namespace.entering

    def close_listing(self) -> None:
        """Let others enter the store's directory and not list it. Nix gives it to the group of the users of builds."""
        wanted = CLOSED_TO_ALL_BUT_GROUP if self.users else CLOSED
        if stat.S_IMODE(self.physical.stat().st_mode) != wanted:
            self.physical.chmod(wanted)

    @contextlib.contextmanager
    def _kept_closed(self) -> Iterator[None]:
        """Close the listing again as soon as Nix opens it, which it does when it starts with a build group."""
        ended = Event()

        def keep() -> None:
            interval = 0.001
            while not ended.wait(interval):
                self.close_listing()
                interval = min(0.05, interval * 1.02)  # a few milliseconds for most of the first second

        keeper = Thread(target=keep, name="keep the store closed")
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            self.close_listing()

    def workspace(self) -> contextlib.AbstractContextManager[Path]:
        """Make a directory that is removed afterwards, see :mod:`spoold.nix.workspaces`."""
        return workspaces.one(self.temporary, self.remove)

    def remove(self, path: Path) -> None:
        """Remove a tree, also what users of builds left in it, see :func:`spoold.nix.measure.remove`."""
        measure.remove(path, self._entering or list)

    def run(
        self,
        argv: Sequence[str],
        bounds: proc.Bounds = QUICK,
        *,
        root: Path | None = None,
        stdin: bytes = b"",
        readable: Sequence[str] = (),
        network: bool = False,
        fetch: door.Fetch | None = None,
        cancel: Event | None = None,
        watch: proc.Watch | None = None,
    ) -> proc.Finished:
        """Run a Nix program that starts no builder, on this store or on the one at ``root``.

        It sees the state directory and the paths ``readable``. With ``fetch`` it gets a door, and with ``network`` the
        host's network.
        """
        program = command.line(argv, str(root or self.root), self.settings)
        with contextlib.ExitStack() as held:
            scratch = held.enter_context(self.workspace())
            way = held.enter_context(door.opened(self.settings, fetch, self._entering)) if fetch else None
            confined = confine.trusted(
                program,
                is_root=self.is_root,
                readable=readable,
                writable=[str(self.state)],
                network=network,
                namespace=way.namespace if way else -1,
                authorities=self.settings.certificates,
            )
            return proc.run(
                confined,
                bounds,
                env=self._environment(scratch, network=network) | (way.variables if way else {}),
                stdin=stdin,
                cancel=cancel,
                watch=watch,
                alarms=[way.alarm] if way else [],
                descriptors=[way.namespace] if way else [],
                pid_namespace=True,
                entering=self._entering,
            )

    def run_builders(
        self,
        argv: Sequence[str],
        bounds: proc.Bounds,
        *,
        limits: BuildLimits,
        cancel: Event,
        places: Sequence[Path] = (),
        fetch: door.Fetch | None = None,
    ) -> proc.Finished:
        """Run a Nix program that may start builders, without network, in a cage and under ``limits``.

        ``places`` are the paths that builders write to, beside their temporary directory. With ``fetch`` the program
        gets a door, and ``fetch`` gets a report on the bytes that went through. Raises :class:`TemporaryError` after a
        cancel while it waits for a user, and where a shared limit or the host's was reached.
        """
        with contextlib.ExitStack() as held:
            user = held.enter_context(self.users.one(cancel)) if self.users else None
            entering = user.namespace.entering if user else None
            way = held.enter_context(door.opened(self.settings, fetch, entering)) if fetch else None
            scratch = held.enter_context(self.workspace())
            group = held.enter_context(cage.cage(limits.memory))
            seccomp = held.enter_context(filtering())
            look = held.enter_context(
                looker.looking(
                    [scratch, *places],
                    size=limits.output,
                    files=limits.files,
                    uid=user.uid if user else -1,
                    namespace=user.namespace if user else None,
                )
            )
            held.enter_context(self._kept_closed())
            confined = confine.trusted(
                command.line(self._building(scratch, argv), str(self.root), self.settings, user.group if user else ""),
                is_root=self.is_root,
                helpers=self._build_hook,
                writable=[str(self.state)],
                users=user.files(scratch) if user else None,
                seccomp=seccomp,
                namespace=way.namespace if way else -1,
                authorities=self.settings.certificates,
            )
            finished = proc.run(
                group.joining(confined),
                bounds,
                env=self._environment(scratch, network=False) | (way.variables if way else {}),
                cancel=cancel,
                watch=look,
                alarms=[*held.enter_context(group.alarms()), *([way.alarm] if way else [])],
                descriptors=[seccomp, *([way.namespace] if way else [])],
                pid_namespace=True,
                entering=entering,
            )
            return group.accounted(finished)

    @property
    def is_root(self) -> bool:
        """Tell whether Nix programs run as root, also as root of a user namespace."""
        return os.geteuid() == 0 or self.users is not None

    def _building(self, scratch: Path, argv: Sequence[str]) -> list[str]:
        """Return ``argv`` with builds in ``scratch``, where their files are counted and do not outlive this call.

        Nix has them in $TMPDIR up to 2.29, and in its own state from then on. A version that does not know the option
        would print a warning into the client's log.
        """
        knows = re.search(r"^build-dir = ", self._shown, re.MULTILINE)
        return [argv[0], "--option", "build-dir", str(scratch), *argv[1:]] if knows else list(argv)

    @functools.cached_property
    def _shown(self) -> str:
        """Return the options that this version of Nix knows, with their values, one on a line."""
        return self.ask(["nix", "show-config"])

    @functools.cached_property
    def _build_hook(self) -> list[str]:
        """Return the program that Nix asks whether another machine would build. It has to exist to answer no."""
        hook = re.search(r"^build-hook = (\S+)", self._shown, re.MULTILINE)
        return [hook.group(1)] if hook and os.path.exists(hook.group(1)) else []

    def _environment(self, scratch: Path, *, network: bool) -> dict[str, str]:
        state = self.root / "nix/var/nix"
        return command.environment(scratch, self.configuration, state, network=network)

    def ask(self, argv: Sequence[str], bounds: proc.Bounds = QUICK, *, readable: Sequence[str] = ()) -> str:
        """Run a Nix program and return its output. Raises :class:`TemporaryError` where it fails."""
        finished = self.run(argv, bounds, readable=readable)
        if not finished.ok:
            text = finished.stderr.data.decode(errors="replace").strip()
            raise TemporaryError(
                f"{argv[0]} failed ({finished.limit or finished.exit_code or finished.signal}): {text}"
            )
        return finished.stdout.data.decode(errors="replace")

    def on_disk(self, path: str) -> Path:
        """Return where the store path ``path`` is on disk."""
        return self.physical / Path(path).relative_to(LOGICAL)

    def valid(self, paths: Sequence[str]) -> bool:
        """Tell whether all ``paths`` are in the store, whole and registered."""
        with self.database() as database:
            return all(database.execute("SELECT 1 FROM ValidPaths WHERE path = ?", [path]).fetchone() for path in paths)

    def sizes_of(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the sizes in bytes of the paths among ``paths`` that are in the store, whole and registered."""
        with self.database() as database:
            query = "SELECT path, narSize FROM ValidPaths WHERE path = ?"
            return {row[0]: row[1] or 0 for path in paths for row in database.execute(query, [path])}

    def closure(self, paths: Sequence[str]) -> list[str]:
        """Return ``paths`` and all paths that they refer to, directly or not, sorted."""
        with self.database() as database:
            found = {row[0] for path in paths for row in database.execute(CLOSURE, [path])}
        return sorted(found)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the store's database to read it. Make an empty one first where there is none.

        Raises :class:`TemporaryError` where it cannot be read.
        """
        name = self.root / "nix/var/nix/db/db.sqlite"
        if not name.exists():
            self.ask(["nix-store", "--init"])
        try:
            with contextlib.closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=30)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise TemporaryError(f"cannot read {name}: {error}") from error
