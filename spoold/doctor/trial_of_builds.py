"""Nix on trial: whether its options hold, whether evaluations are jailed, and what a build can see and change.

The options and the jail are tried in a state directory of the doctor's own. Only a build in Nix's sandbox needs the
real store, since the shell that runs in it comes from there. Where that store is another user's, this file is run as a
program, which makes the trial build as that user (:mod:`spoold.nix.seat`).
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec
from msgspec.structs import replace

from spoold.config import NixSettings
from spoold.host import proc, userns
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.findings import Finding, Subject
from spoold.model.job import BuildLimits, Runtime
from spoold.nix import confine, measure, seat
from spoold.nix.evaluate import JAILED
from spoold.nix.store import QUICK, Store

TRIAL_TIMEOUT = 120.0  # seconds for all trial builds
QUESTION = {"sandbox": "true", "sandbox-fallback": "false", "restrict-eval": "true"}
# A build tells how many network interfaces it has, whether it sees files of the host, and as which uid it runs.
LOOK = """
n=0; while read -r line; do n=$((n+1)); done </proc/net/dev
host=no; [ ! -e /etc/shadow ] && [ ! -e /root ] || host=yes
read -r _ outside _ </proc/self/uid_map; echo "$((n-2)) $host $UID $outside" >$out
"""
# A build tells whether it can change what it depends on.
WRITES = """
PATH=$tools/bin
if chmod u+w $tools/bin $tools/bin/true 2>&1 && echo changed >>$tools/bin/true; then echo written >$out
else echo kept >$out; fi
"""


def examine(settings: NixSettings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; without a ``runtime`` no build is tried."""
    yield from _walls(settings)
    yield from _builds(settings, runtime)


def _walls(settings: NixSettings) -> Iterator[Finding]:
    users = settings.build_users if seat.is_taken(settings) else ""
    with tempfile.TemporaryDirectory(prefix="spoold-doctor.") as directory:
        store = Store(replace(settings, state=directory, build_users=users))
        try:
            store.prepare()
            yield _effective(store)
            yield _jail(store, settings)
        except SpooldError as error:
            yield Subject("bubblewrap").refused(
                f"Nix programs cannot be confined: {error}",
                "an ordinary user needs user namespaces: sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0",
            )
        finally:
            measure.remove(Path(directory) / "nix")


def _effective(store: Store) -> Finding:
    """Ask Nix itself which options are in force, after its command line and its files."""
    what = Subject("options of Nix")
    shown = dict(line.split(" = ", 1) for line in store.ask(["nix", "show-config"]).splitlines() if " = " in line)
    wrong = [f"{name} is {shown.get(name)}" for name, wanted in QUESTION.items() if shown.get(name) != wanted]
    if wrong:
        return what.refused(", ".join(wrong), "use another version of Nix")
    return what.fine(", ".join(f"{name} = {value}" for name, value in QUESTION.items()))


def _jail(store: Store, settings: NixSettings) -> Finding:
    """Evaluate an expression in the jail that looks for a file that every host has."""
    what = Subject("jail of evaluations")
    expression = 'if builtins.pathExists "/etc/passwd" then "open" else "closed"'
    with store.workspace() as scratch:
        room = scratch / "s"
        room.mkdir()
        if os.geteuid() == 0:
            os.chown(room, settings.jail_user, settings.jail_user)
        options = ["--option", "restrict-eval", "false"]
        argv = [proc.find("nix-instantiate"), "--eval", "--store", "/s/store", *options, "-E", expression]
        inside = confine.jail(argv, readable=[], writable=(str(room), "/s"), directory="/s", uid=settings.jail_user)
        finished = proc.run(inside, QUICK, env=JAILED, pid_namespace=True)
    said = finished.stdout.data.decode(errors="replace").strip()
    if finished.ok and said == '"closed"':
        return what.fine("works, and hides the host's files")
    reason = finished.stderr.data.decode(errors="replace").strip() or said
    return what.refused(f"does not work: {reason}", "see bubblewrap(1)")


def _builds(settings: NixSettings, runtime: Runtime | None) -> list[Finding]:
    """Make a build that looks around itself, and one that tries to do harm."""
    what = Subject("Nix's build sandbox")
    if runtime is None:
        remedy = "start `spoold builder`, then ask the doctor again, as root"
        return [what.unknown("the runtime that a builder makes is missing, or closed to this user", remedy)]
    if not seat.is_taken(settings):
        try:
            question = msgspec.json.encode((settings, runtime))
            return msgspec.json.decode(seat.run(settings, __name__, question, TRIAL_TIMEOUT), type=list[Finding])
        except OperatorError as error:
            return [what.unknown(str(error), "run the doctor as root, or as that user")]
    store = Store(settings)
    try:
        with store.lock.shared(Event()):
            seen = _looked(store, runtime)
        return [_sandbox(what, seen), _inputs(settings, runtime)]
    except SpooldError as error:
        return [
            what.refused(f"does not work: {error}", "let the builder make namespaces, and give it users for builds")
        ]


def _sandbox(what: Subject, seen: str) -> Finding:
    interfaces, files, uid, outside = seen.split()
    if (interfaces, files) == ("1", "no"):
        return what.fine(f"works: no network, no files of the host, uid {uid} (on the host {outside})")
    return what.refused(f"is open: {interfaces} network interfaces, files of the host: {files}", "upgrade Nix")


def _inputs(settings: NixSettings, runtime: Runtime) -> Finding:
    """Let a build try to write to its inputs, in a store of its own that is thrown away."""
    what = Subject("inputs of builds")
    with Store(settings).workspace() as scratch:
        store = Store(replace(settings, state=str(scratch / "tried")))
        store.prepare()
        source = ["--from", str(Store(settings).root), "--to", str(store.root), runtime.bash, runtime.coreutils]
        # The real store runs the copy: the other store is below the directories that it may write to.
        Store(settings).ask(["nix", "copy", "--no-check-sigs", *source])
        written = _realised(store, WRITES, runtime)
    if written.strip() == "kept":
        return what.fine("a build that writes to its input is refused")
    return what.refused(
        "a build can write to its input, so one submission could rewrite the packages of another",
        'set nix.build_users = "auto", and restart the builder',
    )


def _looked(store: Store, runtime: Runtime) -> str:
    return _realised(store, LOOK, runtime)


def _realised(store: Store, script: str, runtime: Runtime) -> str:
    """Make a build that runs ``script``, and return what it wrote."""
    expression = f"""derivation {{
      name = "spoold-doctor-{uuid.uuid4().hex[:8]}"; system = "{runtime.system}";
      args = [ "-c" ''{_escaped(script)}'' ];
      builder = (builtins.storePath "{runtime.bash}") + "/bin/bash";
      tools = builtins.storePath "{runtime.coreutils}";
    }}"""
    argv = ["nix-instantiate", "--option", "restrict-eval", "false", "-E", expression]
    drv = store.ask(argv).strip().partition("!")[0]
    bounds = proc.Bounds(wall=60)
    finished = store.run_builders(
        ["nix-store", "--realise", drv], bounds, limits=BuildLimits(memory=1 << 30), cancel=Event()
    )
    if not finished.ok:
        raise OperatorError(finished.stderr.data.decode(errors="replace").strip())
    return store.on_disk(finished.stdout.data.decode().strip()).read_text()


def _escaped(script: str) -> str:
    return script.replace("${", "''${")


if __name__ == "__main__":
    userns.at_start()
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[NixSettings, Runtime])
    sys.stdout.buffer.write(msgspec.json.encode(_builds(*asked)))
