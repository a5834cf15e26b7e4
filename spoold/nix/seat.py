"""Do something as the user whose store it is, with the rights of the builder's unit: for tools that root runs.

What root made in that store would be in the builder's way. The program begins with two capabilities, as the unit's
does. So nothing that this user can write has a say in what it runs: the interpreter looks at no variable, no directory
of theirs and no site, and gets the paths of root's own. Another process
of that user can trace the program once it has given up the two. So the program has nothing of root's but pipes, and no
terminal that somebody could type into.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from spoold.config import NixSettings
from spoold.host import accounts, proc
from spoold.model.errors import OperatorError
from spoold.nix.places import BUILDER, GROUP

MOST = 16 * 1024**2  # bytes of an answer
RIGHTS = "+setuid,+setgid"  # see systemd/spoold-builder.service
_START = (
    "import sys; module, *sys.path = sys.argv[1:]; import runpy; sys.argv = [module]; "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def owner(settings: NixSettings) -> int | None:
    """Return the uid of the builder's own user, None where it is root, or not known yet."""
    try:
        return os.stat(os.path.join(settings.state, "nix/nix/store")).st_uid or None
    except OSError:
        return accounts.uid_of(BUILDER)


def is_taken(settings: NixSettings) -> bool:
    """Tell whether the builder is this user's: by whose the store is, or who may make it."""
    found = owner(settings)
    if found is not None or os.geteuid() == 0:
        return (found or 0) == os.geteuid()
    there = next(path for path in Path(settings.state).absolute().parents if os.path.exists(path))  # or is closed to us
    return os.access(there, os.W_OK)


def run(settings: NixSettings, module: str, question: bytes, seconds: float) -> bytes:
    """Run ``module`` as a program in the builder's place, ``question`` on its input; return what it prints.

    Raises :class:`OperatorError` where it cannot be run or fails, and says what it said.
    """
    uid = owner(settings)
    name = accounts.user_name(uid) if uid is not None else BUILDER
    gid = accounts.gid_of(GROUP)
    # Two capabilities, be it for a moment, are for the unit's own user alone.
    may = gid is not None and uid is not None and uid == accounts.uid_of(BUILDER)
    if os.geteuid() != 0 or not may:
        who = "root, or as that user" if may else "that user"
        raise OperatorError(f"the store {settings.state} is {name}'s: run this as {who}")
    command = [
        *(proc.find("setpriv"), f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}", "--", sys.executable),
        *("-I", "-S", "-c", _START, module, *filter(None, sys.path)),
    ]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent"}
    bounds = proc.Bounds(wall=seconds, stdout=MOST)
    done = proc.run(command, bounds, env=environment, stdin=question)
    if done.limit:
        raise OperatorError(f"it took more than {seconds:g} s as {name}, and was ended")
    if not done.ok:
        said = done.stderr.data.decode(errors="replace").strip().splitlines()[-1:]
        raise OperatorError(f"it could not be done as {name}: {''.join(said)}")
    return done.stdout.data
