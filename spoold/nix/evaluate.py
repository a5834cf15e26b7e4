"""From a client's expression to a derivation in the store. Nothing of the client's is evaluated outside a jail.

Theory of operation: nix-instantiate evaluates the expression in :func:`spoold.nix.confine.jail`, in restricted mode,
into a store that exists only for this evaluation. ``shell.nix`` turns the resulting shell into one derivation. That
derivation does not build the client's shell. It records the shell's environment (``capture.sh``), or what nix-shell
needs to enter the shell in the job's sandbox (``nix-shell.sh``). Then the derivation files are copied into the real
store. The copy demands signatures, except for content-addressed paths. So only paths can cross whose names prove their
contents, as those of derivations do.

The throw-away store is a copy of a template. The paths of the runtime are registered in the template's database, so the
derivation can refer to bash without a copy of bash.
"""

from __future__ import annotations

import os
import re
import shutil
from importlib import resources
from pathlib import Path
from threading import Event, Lock

import msgspec

from spoold.host import proc
from spoold.host.seccomp import filtering
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildLimits
from spoold.nix import cage, command, confine, measure
from spoold.nix.store import QUICK, Store

WORK = "/job"  # what ``./.`` is: the path at which the job runs, but only cutor.nix is there
DATABASE = "nix/var/nix/db"
FILES = 512 * 1024**2  # bytes of page cache, which the group counts but the evaluation's own limit does not
THROW_AWAY = 256 * 1024**2  # bytes that an evaluation may write into its own store
THROWN_FILES = 100_000  # files, likewise
TOO_MUCH = "the derivations of cutor.nix are too large: ask for fewer packages"
DERIVATION = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+\.drv")
JAILED = {"USER": "nobody", "HOME": "/nowhere", "NIX_CONF_DIR": "/nowhere", "NIX_USER_CONF_FILES": "", "TMPDIR": "/s"}


class Evaluation(msgspec.Struct, frozen=True):
    """How an evaluation ended. ``derivation`` is "" unless it succeeded."""

    finished: proc.Finished
    derivation: str


class Evaluator:
    """Evaluates for one store. ``bash``, ``coreutils`` and ``nix`` (or "") are store paths of the runtime."""

    def __init__(self, store: Store, bash: str, coreutils: str, nix: str) -> None:
        self.store, self.bash, self.coreutils, self.nix = store, bash, coreutils, nix
        self.template = store.room / ("template-with-nix" if nix else "template")
        self._copying = Lock()

    def prepare(self) -> None:
        """Make the template of the throw-away stores, unless the present one is still right.

        Raises :class:`TemporaryError` where it cannot be made.
        """
        mark = self.template / "registered"
        registration = self.store.ask(["nix-store", "--dump-db", *self._runtime_closure()])
        if mark.is_file() and mark.read_text() == registration:
            return
        with self.store.workspace() as scratch:
            loaded = self.store.run(["nix-store", "--load-db"], root=scratch / "store", stdin=registration.encode())
            if not loaded.ok:
                raise TemporaryError(f"cannot make {self.template}: {loaded.stderr.data.decode(errors='replace')}")
            fresh = scratch / "store" / DATABASE
            (fresh / "registered").write_text(registration)
            shutil.rmtree(self.template, ignore_errors=True)
            fresh.rename(self.template)

    def _runtime_closure(self) -> list[str]:
        programs = [path for path in (self.bash, self.coreutils, self.nix) if path]
        return self.store.ask(["nix-store", "-qR", *programs]).split()

    def evaluate(self, expression: str, nixpkgs: str, limits: BuildLimits, cancel: Event) -> Evaluation:
        """Evaluate ``expression`` in the jail, and copy its derivation to the store.

        Raises :class:`TemporaryError` where the copy fails.
        """
        with self.store.workspace() as workspace:
            own = workspace / "store"
            shutil.copytree(self.template, own / DATABASE)
            self._give_away(own)
            file = workspace / "cutor.nix"
            file.write_bytes(expression.encode("utf-8", "surrogateescape"))
            file.chmod(0o444)
            finished = self._in_jail(own, file, nixpkgs, limits, cancel)
            derivation = finished.stdout.data.decode(errors="replace").strip() if finished.ok else ""
            if derivation and not self.store.valid([derivation]):
                self._hand_over(own, derivation)
            return Evaluation(finished, derivation)

    def _give_away(self, own: Path) -> None:
        if os.geteuid() != 0:
            return
        uid = self.store.settings.jail_user
        for directory, _, files in os.walk(own):
            for path in (directory, *(os.path.join(directory, name) for name in files)):
                os.chown(path, uid, uid)

    def _in_jail(self, own: Path, file: Path, nixpkgs: str, limits: BuildLimits, cancel: Event) -> proc.Finished:
        argv = [proc.find("nix-instantiate"), "--store", "/s", *command.options(self.store.settings)]
        argv += ["--option", "fsync-metadata", "false", "-I", f"nixpkgs={nixpkgs}", "-I", f"job={WORK}"]
        argv += ["-I", "own=/s/nix/store"]  # the expression may read back what it put there itself
        script = _text("nix-shell.sh" if self.nix else "capture.sh")
        arguments = {"bash": self.bash, "coreutils": self.coreutils, "nix": self.nix, "script": script}
        for name, value in arguments.items():
            argv += ["--argstr", name, value]
        with cage.cage(limits.evaluation_memory + FILES) as group, group.alarms() as alarms, filtering() as seccomp:
            confined = confine.jail(
                [*argv, "-E", _text("shell.nix")],
                readable=[(str(self.store.on_disk(nixpkgs)), nixpkgs), (str(file), f"{WORK}/cutor.nix")],
                writable=(str(own), "/s"),
                directory=WORK,
                uid=self.store.settings.jail_user,
                seccomp=seccomp,
            )
            finished = proc.run(
                group.joining(confined),
                _bounds(limits),
                env=JAILED,
                cancel=cancel,
                watch=lambda: TOO_MUCH if measure.outgrown([own], size=THROW_AWAY, files=THROWN_FILES) else "",
                alarms=alarms,
                descriptors=[seccomp],
                pid_namespace=True,
            )
            return group.accounted(finished)

    def _hand_over(self, own: Path, derivation: str) -> None:
        if not DERIVATION.fullmatch(derivation):
            raise TemporaryError(f"the evaluator printed {derivation[:200]!r} instead of a derivation")
        # When two copies into a new store run at the same time, one of them fails.
        with self._copying:
            self._copy(own, derivation)

    def _copy(self, own: Path, derivation: str) -> None:
        self.store.ask(
            ["nix", "copy", "--derivation", "--from", str(own), "--to", str(self.store.root), derivation],
            msgspec.structs.replace(QUICK, wall=120),
        )


def _bounds(limits: BuildLimits) -> proc.Bounds:
    return proc.Bounds(
        wall=limits.evaluation_time,
        stdout=64 * 1024,
        stderr=limits.log,
        output=max(limits.log, 64 * 1024),
        grace=0.2,
        rlimits=proc.Rlimits(
            address_space=limits.evaluation_memory,
            cpu=int(limits.evaluation_time) + 1,
            file_size=THROW_AWAY,
            open_files=1024,
        ),
    )


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text()
