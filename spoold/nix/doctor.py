"""The doctor's look at Nix: its version, its walls, who runs builds, and where the store is.

The walls are tried in a state directory of the doctor's own. Only the last check, a build in Nix's sandbox, needs the
real store, since the shell that runs in it comes from there.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec
from msgspec.structs import replace

from spoold.config import Nix, Settings
from spoold.host import accounts, packages, proc, units
from spoold.model import holes
from spoold.model.errors import OperatorError, SpooldError
from spoold.model.findings import Finding, Level
from spoold.model.job import Runtime
from spoold.nix import cage, command, confine, measure
from spoold.nix.evaluate import JAILED
from spoold.nix.store import LOGICAL, QUICK, Store

BUILDER = "spoold-builder"  # the user of the unit
# Programs and the Debian packages that they are in.
NEEDED = {
    "nix": "nix-bin",
    "nix-store": "nix-bin",
    "nix-instantiate": "nix-bin",
    "bwrap": "bubblewrap",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "prlimit": "util-linux",
    "ldd": "libc-bin",
}
QUESTION = {"sandbox": "true", "sandbox-fallback": "false", "restrict-eval": "true"}
# What a build can see: how many network interfaces, whether files of the host, and whether it is the host's root.
LOOK = """
n=0; while read -r line; do n=$((n+1)); done </proc/net/dev
host=no; [ ! -e /etc/shadow ] && [ ! -e /root ] || host=yes
read -r _ outside _ </proc/self/uid_map; echo "$((n-2)) $host $UID $outside" >$out
"""


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield what is found; without a ``runtime`` no build is tried."""
    missing = {program: package for program, package in NEEDED.items() if shutil.which(program) is None}
    if missing:
        wanted = " ".join(sorted(set(missing.values())))
        yield Finding(Level.REFUSED, "programs", f"not installed: {', '.join(missing)}", f"apt-get install {wanted}")
        return
    yield _version()
    yield _pins(settings)
    yield from _users(settings.nix)
    yield _bounds(settings.nix)
    yield from _state(Path(settings.nix.state))
    yield from _walls(settings.nix)
    yield _build(settings.nix, runtime)


def _version() -> Finding:
    said = proc.run(["nix", "--version"], QUICK, env=JAILED).stdout.data.decode(errors="replace")
    found = re.search(r"\(Nix\) (\S+)", said)
    if found is None:
        return Finding(
            Level.UNKNOWN, "Nix", f"which holes {said.strip()!a} has is not known here", "see its advisories"
        )
    return holes.finding("Nix", found.group(1), packages.version_of("nix"))


def _pins(settings: Settings) -> Finding:
    if "default" not in settings.nixpkgs:
        remedy = (
            'put [nixpkgs] default = "..." into the settings: a directory, a tarball, a URL or a store path; where '
            "only Debian's packages can be reached, spoold-nixpkgs-debian makes one"
        )
        return Finding(Level.REFUSED, "nixpkgs", "no nixpkgs.default is set", remedy)
    gone, closed = [], []
    for name, path in settings.nixpkgs.items():
        try:
            if path.startswith("/") and not path.startswith(f"{LOGICAL}/"):  # those may be in our own store alone
                os.stat(path)
        except PermissionError:
            closed.append(f"{name} ({path})")
        except OSError:
            gone.append(f"{name} ({path})")
    if gone:
        return Finding(Level.REFUSED, "nixpkgs", f"not there: {', '.join(gone)}", "correct [nixpkgs] in the settings")
    if closed:
        return Finding(Level.UNKNOWN, "nixpkgs", f"closed to this user: {', '.join(closed)}", "run the doctor as root")
    return Finding(Level.FINE, "nixpkgs", ", ".join(f"{name}: {path}" for name, path in settings.nixpkgs.items()))


def _users(settings: Nix) -> Iterator[Finding]:
    what = "users that run builds"
    builder = _builder(settings)
    if builder not in (None, os.geteuid()):
        yield Finding(Level.FINE, what, f"{accounts.user_name(builder)}, in user namespaces")
        yield from _ours_alone(settings, builder)
        return
    if os.geteuid() != 0:
        yield Finding(Level.NOTE, what, "only root can give builds users of their own; run by the user of this command")
        return
    try:
        group = command.build_group(settings)
    except OperatorError as error:
        yield Finding(Level.REFUSED, what, str(error))
        return
    if group:
        members = grp.getgrnam(group).gr_mem
        yield Finding(Level.FINE, what, f"{len(members)} members of {group}")
        yield _shared_uids(members)
    else:
        name = command.USUAL_GROUP
        yield Finding(
            Level.WARNING,
            what,
            f"there is no group {name}: builds run as root, in nothing but Nix's sandbox",
            f"groupadd --system {name}; for n in $(seq {command.USERS}); do useradd --system --no-create-home "
            f"--home-dir /var/empty --shell /usr/sbin/nologin --no-user-group --gid {name} --groups {name} {name}$n; "
            "done",
        )


def _builder(settings: Nix) -> int | None:
    """Return the uid of the builder's own user, None where it is root, or not known yet."""
    try:
        return os.stat(settings.state).st_uid or None
    except OSError:
        return accounts.uid_of(BUILDER)


def _ours_alone(settings: Nix, builder: int) -> Iterator[Finding]:
    """Nothing else may have made files in the store of an ordinary user: he could not remove them."""
    wanted = accounts.uid_of(BUILDER)
    if wanted is not None and wanted != builder and settings.state == Nix().state:
        yield Finding(
            Level.WARNING,
            f"nix.state {settings.state}",
            f"belongs to {accounts.user_name(builder)}, and the unit's user is {BUILDER}",
            f"systemctl stop spoold-builder; chown -R {BUILDER}: {settings.state}",
        )


def _shared_uids(members: list[str]) -> Finding:
    """Nix ends a build by killing all processes of its user, and so whatever else has that uid."""
    what = "uids of build users"
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_name in members}
    others = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid in uids and entry.pw_name not in members]
    if others:
        shared = ", ".join(sorted(others))
        return Finding(
            Level.REFUSED, what, f"{shared}: the end of a build would kill all their processes", "give them other uids"
        )
    return Finding(Level.FINE, what, "nobody else's")


def _bounds(settings: Nix) -> Finding:
    what = "limits of builds"
    builder = _builder(settings)
    if (os.geteuid() != 0 or builder is not None) and not cage.delegable():
        return Finding(
            Level.NOTE,
            what,
            "cgroup v1 gives control groups to root alone: of an ordinary user's builds none is bounded in memory by "
            "itself, but all together by the unit's MemoryMax=",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    unit = {}
    if builder not in (None, os.geteuid()):
        unit = units.properties(f"{BUILDER}.service", "ControlGroup", "Delegate", "DelegateControllers")
    if _delegated(unit) if unit else cage.available():
        return Finding(Level.FINE, what, "memory and processes are bounded by a control group")
    return Finding(
        Level.WARNING if unit or os.geteuid() == 0 else Level.UNKNOWN,
        what,
        "no control group can be made here: builds are not bounded in memory",
        "run the builder as root or under systemd with Delegate=yes; the controllers memory and pids must be there",
    )


def _delegated(unit: dict[str, str]) -> bool:
    """Tell whether a unit gives groups to make: by what its daemon has made, before it runs by what is to be."""
    group = cage.MOUNT / unit["ControlGroup"].lstrip("/")
    if unit["ControlGroup"]:
        return "memory" in (group / "cgroup.subtree_control").read_text().split()
    return unit["Delegate"] == "yes" and "memory" in unit["DelegateControllers"].split()


def _state(state: Path) -> Iterator[Finding]:
    what = f"nix.state {state}"
    store = state / "nix/nix/store"
    try:
        found, inside = state.stat(), store.stat()
    except FileNotFoundError:
        yield Finding(Level.NOTE, what, "not made yet: the builder does that when it starts")
        return
    except PermissionError:
        yield Finding(Level.UNKNOWN, what, "closed to this user", "run the doctor as the builder's user, or as root")
        return
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        yield Finding(
            Level.WARNING, what, f"mode {mode:04o}: users of this host see what others use", f"chmod 0700 {state}"
        )
    else:
        yield Finding(Level.FINE, what, "closed to other users")
    if inside.st_mode & stat.S_IROTH:
        remedy = f"chmod o-r {store}; the builder does that when it starts"
        yield Finding(Level.WARNING, str(store), "can be listed: a job could see what others use", remedy)


def _walls(settings: Nix) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="spoold-doctor.") as directory:
        store = Store(replace(settings, state=directory))
        try:
            store.prepare()
            yield _effective(store)
            yield _jail(store, settings)
        except SpooldError as error:
            yield Finding(
                Level.REFUSED,
                "bubblewrap",
                f"Nix programs cannot be confined: {error}",
                "an ordinary user needs user namespaces: sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0",
            )
        finally:
            measure.remove(Path(directory) / "nix")


def _effective(store: Store) -> Finding:
    """Ask Nix itself what holds, after all options and files."""
    shown = dict(line.split(" = ", 1) for line in store.ask(["nix", "show-config"]).splitlines() if " = " in line)
    wrong = [f"{name} is {shown.get(name)}" for name, wanted in QUESTION.items() if shown.get(name) != wanted]
    if wrong:
        return Finding(Level.REFUSED, "options of Nix", ", ".join(wrong), "use another version of Nix")
    return Finding(Level.FINE, "options of Nix", ", ".join(f"{name} = {value}" for name, value in QUESTION.items()))


def _jail(store: Store, settings: Nix) -> Finding:
    """Evaluate something in the jail, and have the expression look for a file that every host has."""
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
        return Finding(Level.FINE, "jail of evaluations", "works, and sees nothing of the host")
    reason = finished.stderr.data.decode(errors="replace").strip() or said
    return Finding(Level.REFUSED, "jail of evaluations", f"does not work: {reason}", "see bubblewrap(1)")


def _build(settings: Nix, runtime: Runtime | None) -> Finding:
    """Build something in the real store that looks around itself."""
    what = "Nix's build sandbox"
    if runtime is None:
        remedy = "start `spoold builder`, then ask the doctor again, as root"
        return Finding(Level.UNKNOWN, what, "what a builder has made is not there, or closed to this user", remedy)
    if not os.access(settings.state, os.W_OK):
        return Finding(Level.UNKNOWN, what, "the store is closed to this user", "run the doctor as root")
    if os.geteuid() == 0 and (builder := _builder(settings)) is not None:
        return _build_as(builder, settings, runtime, what)
    store = Store(settings)
    try:
        with store.lock.shared(Event()):
            seen = _looked(store, runtime)
    except SpooldError as error:
        return Finding(Level.REFUSED, what, f"does not work: {error}", "the builder needs namespaces and, best, root")
    interfaces, files, uid, outside = seen.split()
    if (interfaces, files) == ("1", "no"):
        return Finding(Level.FINE, what, f"works: no network, no files of the host, uid {uid} (on the host {outside})")
    return Finding(
        Level.REFUSED, what, f"is open: {interfaces} network interfaces, files of the host: {files}", "upgrade Nix"
    )


def _build_as(builder: int, settings: Nix, runtime: Runtime, what: str) -> Finding:
    """Try it as the builder's user: what root makes in his store would be in his way."""
    question = msgspec.json.encode((settings, runtime))
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        user=builder,
        group=os.stat(settings.state).st_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": ":".join(filter(None, sys.path))},
        input=question,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=Finding)
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    name = accounts.user_name(builder)
    detail = f"it could not be tried as {name}: {''.join(said)}"
    return Finding(Level.UNKNOWN, what, detail, f"run the doctor as {name}")


def _looked(store: Store, runtime: Runtime) -> str:
    expression = f"""derivation {{
      name = "spoold-doctor-{uuid.uuid4().hex[:8]}"; system = "{runtime.system}"; args = [ "-c" ''{_escaped(LOOK)}'' ];
      builder = (builtins.storePath "{runtime.bash}") + "/bin/bash";
    }}"""
    argv = ["nix-instantiate", "--option", "restrict-eval", "false", "-E", expression]
    drv = store.ask(argv).strip().partition("!")[0]
    bounds = proc.Bounds(wall=60)
    finished = store.run_builders(
        ["nix-store", "--realise", drv], bounds, memory=1 << 30, cancel=Event(), watch=lambda *_: ""
    )
    if not finished.ok:
        raise OperatorError(finished.stderr.data.decode(errors="replace").strip())
    return store.on_disk(finished.stdout.data.decode().strip()).read_text()


def _escaped(script: str) -> str:
    return script.replace("${", "''${")


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(_build(*msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Nix, Runtime])))
    )
