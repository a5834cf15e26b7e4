"""The Nix store of this spool, and the only way in which the rest of the room calls a Nix program on it.

Theory of operation: the store is a chroot store, physically ``<state>/nix/nix/store``, logically ``/nix/store``. It
needs no Nix of the host but the programs, and no daemon. Every program starts from an empty environment, with every
option that matters on its command line, and with an empty configuration directory: what the host's nix.conf says has
no say.

Jobs get the physical directory as their ``/nix/store``, so it must not be listable: names of store paths tell what
others use. Nix resets the mode of that directory whenever it starts with a build group; see :mod:`spoold.nix.seccomp`
for how it is kept from doing so.

Garbage collection sees direct roots only: symlinks in ``gcroots/spoold`` inside the store. An indirect root that a
collector cannot see counts as stale, and takes everything with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

from spoold.config import Nix
from spoold.host import proc
from spoold.model.errors import OperatorError, TemporaryError
from spoold.nix import confine

QUICK = proc.Bounds(wall=120, stdout=64 * 1024**2)
LOGICAL = "/nix/store"
BUILD_GROUP = "nixbld"
HOST_USER_LOCKS = "/nix/var/nix/userpool"
PASSED_TO_NETWORK = ("NIX_SSL_CERT_FILE", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Store:
    """One chroot store and the directories beside it."""

    def __init__(self, settings: Nix) -> None:
        self.settings = settings
        self.state = Path(settings.state).absolute()
        self.root = self.state / "nix"
        self.physical = self.root / "nix" / "store"
        self.roots = self.root / "nix/var/nix/gcroots/spoold"
        self.temporary = self.state / "tmp"
        self.configuration = self.state / "etc"

    def prepare(self) -> None:
        """Make the directories; remove what a daemon that was killed left in the temporary one."""
        try:
            for directory in (self.state, self.root, self.physical, self.roots, self.configuration):
                directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            self.temporary.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OperatorError(f"cannot make {error.filename}: {error.strerror}; set nix.state") from error
        self.close_listing()
        self._remove_abandoned()

    def close_listing(self) -> None:
        """Let others enter the store's directory, not list it."""
        if build_group():
            os.chown(self.physical, 0, grp.getgrnam(BUILD_GROUP).gr_gid)
            self.physical.chmod(0o1771)
        else:
            self.physical.chmod(0o711)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a directory that is gone afterwards; its lock tells others that its owner lives."""
        path = Path(tempfile.mkdtemp(dir=self.temporary))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    def _remove_abandoned(self) -> None:
        for path in self.temporary.iterdir():
            with contextlib.suppress(OSError):
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(lock)

    def run(
        self,
        argv: Sequence[str],
        bounds: proc.Bounds = QUICK,
        *,
        root: Path | None = None,
        stdin: bytes = b"",
        building: bool = False,
        network: bool = False,
        cancel: Event | None = None,
        watch: proc.Watch | None = None,
    ) -> proc.Finished:
        """Run a Nix program on this store (or on ``root``); ``building`` where it may have to start a builder."""
        options = ["--store", str(root or self.root), *self.options(building=building)]
        # `nix copy` wants its options after the name of the command.
        name_ends = 2 if argv[0] == "nix" else 1
        program = [proc.find(argv[0]), *argv[1:name_ends], *options, *argv[name_ends:]]
        with self.workspace() as scratch:
            return proc.run(
                confine.trusted(program, writable=[str(self.state), *_user_locks()], network=network),
                bounds,
                env=self.environment(scratch, network=network),
                stdin=stdin,
                cancel=cancel,
                watch=watch,
            )

    def ask(self, argv: Sequence[str], bounds: proc.Bounds = QUICK, *, network: bool = False) -> str:
        """Run a Nix program that has no business to fail, and return what it printed."""
        finished = self.run(argv, bounds, network=network)
        if not finished.ok:
            text = finished.stderr.data.decode(errors="replace").strip()
            raise TemporaryError(
                f"{argv[0]} failed ({finished.limit or finished.exit_code or finished.signal}): {text}"
            )
        return finished.stdout.data.decode(errors="replace")

    def environment(self, scratch: Path, *, network: bool) -> dict[str, str]:
        """Return the whole environment of a Nix program: no word of the host's but how to reach the network."""
        base = {
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "NIX_CONF_DIR": str(self.configuration),
            "NIX_USER_CONF_FILES": "",
        }
        if not _user_locks():
            base["NIX_STATE_DIR"] = str(self.root / "nix/var/nix")
        passed = {name: os.environ[name] for name in PASSED_TO_NETWORK if network and name in os.environ}
        return base | passed

    def options(self, *, building: bool) -> list[str]:
        """Return the options of every program on this store."""
        chosen = {
            "system": self.settings.system,
            "sandbox": "true",
            "sandbox-fallback": "false",
            "sandbox-paths": "",
            "build-users-group": build_group() if building else "",
            "substituters": " ".join(self.settings.substituters),
            "system-features": "",
            "builders": "",
            "max-jobs": "1",
            "gc-reserved-space": "0",
            "restrict-eval": "true",
            "allow-import-from-derivation": "false",
            "experimental-features": "nix-command",
        }
        if self.settings.trusted_public_keys:
            chosen["trusted-public-keys"] = " ".join(self.settings.trusted_public_keys)
        return [word for name, value in chosen.items() for word in ("--option", name, value)]

    def on_disk(self, path: str) -> Path:
        """Return where the store path ``path`` really is."""
        return self.physical / Path(path).relative_to(LOGICAL)

    def add_root(self, name: str, path: str) -> None:
        """Keep ``path`` from the collector under ``name``; replaces what had that name."""
        link = self.roots / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(path)
            return
        if os.readlink(link) != path:
            fresh = link.with_name(f".{link.name}.{os.getpid()}.{os.urandom(4).hex()}")
            fresh.symlink_to(path)
            fresh.replace(link)

    def valid(self, paths: Sequence[str]) -> bool:
        """Tell whether all of ``paths`` are in the store, whole and registered."""
        with self.database() as database:
            return all(database.execute("SELECT 1 FROM ValidPaths WHERE path = ?", [path]).fetchone() for path in paths)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the store's database to read it; an empty one where Nix has not made it yet."""
        name = self.root / "nix/var/nix/db/db.sqlite"
        if not name.exists():
            self.ask(["nix-store", "--init"])
        try:
            with contextlib.closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=30)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise TemporaryError(f"cannot read {name}: {error}") from error


def _user_locks() -> list[str]:
    """Where the host's own Nix, if there is one, locks the build users that we share with it.

    Who finishes a build kills every process of its build user: two at once would kill each other's builders.
    """
    return [HOST_USER_LOCKS] if build_group() and os.access(HOST_USER_LOCKS, os.W_OK) else []


def build_group() -> str:
    """Return the group whose members run builders, or "" where builders run as we do."""
    if os.geteuid() != 0:
        return ""
    try:
        return BUILD_GROUP if grp.getgrnam(BUILD_GROUP).gr_mem else ""
    except KeyError:
        return ""
