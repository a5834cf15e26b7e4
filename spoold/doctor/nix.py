"""The doctor's check of Nix: its version, the pins, who runs builds, how they are bounded, and where the store is."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from spoold.config import NixSettings, Settings
from spoold.doctor import sources, trial_of_builds
from spoold.host import accounts, cgroups, packages, proc, units, userns
from spoold.host.userns import Users
from spoold.model import holes
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding, Subject
from spoold.model.job import Runtime
from spoold.nix import cage, places, seat
from spoold.nix.evaluate import JAILED
from spoold.nix.places import BUILDER
from spoold.nix.store import LOGICAL, QUICK
from spoold.nix.users import find as find_users

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


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; without a ``runtime`` no build is tried."""
    missing = {program: package for program, package in NEEDED.items() if shutil.which(program) is None}
    if missing:
        wanted = " ".join(sorted(set(missing.values())))
        yield Subject("programs").refused(f"not installed: {', '.join(missing)}", f"apt-get install {wanted}")
        return
    yield _version()
    yield _pins(settings)
    yield from _private_caches(settings.nix)
    yield from _users(settings.nix)
    yield _bounds(settings.nix)
    yield from sources.examine(settings.nix)
    yield from _state(Path(settings.nix.state))
    yield from trial_of_builds.examine(settings.nix, runtime)


def _version() -> Finding:
    said = proc.run(["nix", "--version"], QUICK, env=JAILED).stdout.data.decode(errors="replace")
    found = re.search(r"\((Lix, like )?Nix\) (\S+)", said)
    if found is None:
        return Subject("Nix").unknown(f"spoold does not know which holes {said.strip()!a} has", "see its advisories")
    return holes.finding("Lix" if found.group(1) else "Nix", found.group(2), *packages.of("nix"))


def _pins(settings: Settings) -> Finding:
    what = Subject("nixpkgs")
    if "default" not in settings.nixpkgs:
        remedy = (
            'put [nixpkgs] default = "..." into the settings: a directory, a tarball, a URL or a store path; where '
            "only Debian's packages can be reached, spoold-nixpkgs-debian makes one"
        )
        return what.refused("no nixpkgs.default is set", remedy)
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
        return what.refused(f"missing: {', '.join(gone)}", "correct [nixpkgs] in the settings")
    if closed:
        return what.unknown(f"closed to this user: {', '.join(closed)}", "run the doctor as root")
    return what.fine(", ".join(f"{name}: {path}" for name, path in settings.nixpkgs.items()))


def _private_caches(settings: NixSettings) -> Iterator[Finding]:
    """Check the files for private caches: the builder reads both of them, and builds read the certificates too."""
    for name, path, secret in (("netrc", settings.netrc, True), ("certificates", settings.certificates, False)):
        what = Subject(f"nix.{name}")
        try:
            found = os.stat(path) if path else None
        except OSError as error:
            yield what.refused(f"{path}: {error.strerror}; the builder fetches nothing", "correct the setting")
            continue
        if found is None:
            continue
        if secret and stat.S_IMODE(found.st_mode) & 0o007:
            yield what.warning(f"{path} can be read by all users", f"chown {BUILDER} {path}; chmod 400 {path}")
        elif not secret and settings.fetch and not stat.S_IMODE(found.st_mode) & 0o004:
            yield what.warning(f"builds need {path} to download, and their users cannot read it", f"chmod 644 {path}")
        else:
            yield what.fine(path)


def _users(settings: NixSettings) -> Iterator[Finding]:
    what = Subject("users that run builds")
    builder = seat.owner(settings)
    if not settings.build_users:
        yield what.refused(
            "builds run as the builder's own user (nix.build_users is empty), so each build "
            "can rewrite the packages that all others run; do this only if all submissions are your own",
            'set nix.build_users = "auto", and restart the builder',
        )
        return
    if not seat.is_taken(settings) and os.geteuid() != 0:
        yield what.unknown("the store belongs to another user", "run the doctor as root, or as that user")
        return
    if builder not in (None, os.geteuid()):
        yield from _ours_alone(settings, builder)
        users = userns.group_members(userns.BUILD_GROUP)
        if users is None:
            detail = f"the builder's unit needs a group {userns.BUILD_GROUP} with members, and there is none"
            yield what.refused(detail, "systemd-sysusers spoold.conf; systemctl restart spoold-builder")
            return
    else:
        try:
            found = find_users(settings)
        except OperatorError as error:
            yield what.refused(str(error))
            return
        assert found is not None  # noqa: S101 - for mypy: the settings ask for users
        users = found.users
    yield what.fine(f"{len(users.uids)} of {users.group}, and they own nothing in the store")
    yield _shared_uids(users)


def _ours_alone(settings: NixSettings, builder: int) -> Iterator[Finding]:
    """Check that the store is the unit's user's: an ordinary user could not remove the files of another one."""
    wanted = accounts.uid_of(BUILDER)
    if wanted is not None and wanted != builder and settings.state == NixSettings().state:
        yield Subject(f"nix.state {settings.state}").warning(
            f"belongs to {accounts.user_name(builder)}, and the builder's unit runs as {BUILDER}",
            f"systemctl stop spoold-builder; chown -hR {BUILDER}: {settings.state}/nix/nix; spoolctl init",
        )


def _shared_uids(users: Users) -> Finding:
    """Check that nobody else has these uids: Nix ends a build by killing all processes with the uid of its user."""
    what = Subject("uids of build users")
    uids = set(users.uids.values())
    others = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid in uids and entry.pw_name not in users.uids]
    if others:
        shared = ", ".join(sorted(others))
        detail = f"{shared} have the same uids, so the end of a build would kill all their processes"
        return what.refused(detail, "give them other uids")
    return what.fine("nobody else has them")


def _bounds(settings: NixSettings) -> Finding:
    what = Subject("limits of builds")
    builder = seat.owner(settings)
    unit = {}
    if builder not in (None, os.geteuid()):
        unit = units.properties(f"{BUILDER}.service", "ControlGroup", "Delegate", "DelegateControllers")
    if _delegated(unit) if unit else cage.available():
        return what.fine("memory and processes are bounded by a control group")
    mend = "run the builder as root or under its unit, with the controllers memory and pids available"
    if not cgroups.delegable():
        mend += "; or boot with systemd.unified_cgroup_hierarchy=1"
    judged = what.warning if unit or os.geteuid() == 0 else what.unknown
    return judged(
        "no control group can be made here: the memory of builds has no bound, and whenever the host runs short of "
        "memory all builds have to start again",
        mend,
    )


def _delegated(unit: dict[str, str]) -> bool:
    """Tell whether a unit's daemon can make groups: where it runs by the groups that exist, else by its settings."""
    if not cgroups.delegable():
        made = Path(f"{cgroups.MOUNT}/memory{unit['ControlGroup']}/{cgroups.OF_THE_UNIT}")
        return not unit["ControlGroup"] or made.is_dir()
    group = cgroups.MOUNT / unit["ControlGroup"].lstrip("/")
    if unit["ControlGroup"]:
        return "memory" in (group / "cgroup.subtree_control").read_text().split()
    return unit["Delegate"] == "yes" and "memory" in unit["DelegateControllers"].split()


def _state(state: Path) -> Iterator[Finding]:
    what = Subject(f"nix.state {state}")
    store = state / "nix/nix/store"
    try:
        found, inside = state.stat(), store.stat()
        wrong = places.examine(str(state))
    except FileNotFoundError:
        yield what.note("not made yet: the builder makes it when it starts")
        return
    except PermissionError:
        yield what.unknown("closed to this user", "run the doctor as the builder's user, or as root")
        return
    if wrong:
        detail = f"the builder's account could replace the store with something else: {'; '.join(wrong)}"
        yield what.refused(detail, "systemctl stop spoold.target 'spoold-*'; spoolctl init, as root")
    elif stat.S_IMODE(found.st_mode) & 0o007:
        mode = stat.S_IMODE(found.st_mode)
        detail = f"mode {mode:04o}: users of this host can see which packages others use"
        yield what.warning(detail, f"chmod o= {state}")
    else:
        yield what.fine("closed to other users")
    if inside.st_mode & stat.S_IROTH:
        remedy = f"chmod o-r {store}, which the builder also does when it starts"
        yield Subject(str(store)).warning("can be listed: a job could see which packages others use", remedy)
