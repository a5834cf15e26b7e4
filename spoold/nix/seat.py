"""Run a program as the store's owner, with the rights of the builder's unit. Tools that root runs need this.

Files that root made in the store would block the builder. So the program runs as the builder's user. It begins with two
capabilities, as the unit's daemon does. So nothing that this user can write may decide what code the program runs. The
interpreter uses no variable of the environment, no directory of the user and no site module, and gets the module path
of root's own process. After the program has given up the two capabilities, another process of that user can trace it.
So the program gets only pipes from root, and no terminal that somebody could type into.
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
    """Return the uid of the builder's own user. Return None where the builder is root or not known yet."""
    try:
        return os.stat(os.path.join(settings.state, "nix/nix/store")).st_uid or None
    except OSError:
        return accounts.uid_of(BUILDER)


def is_taken(settings: NixSettings) -> bool:
    """Tell whether this user runs the builder: they own the store, or may make it where there is none."""
    found = owner(settings)
    if found is not None or os.geteuid() == 0:
        return (found or 0) == os.geteuid()
    # A directory that this user may not look at counts as missing.
    there = next(path for path in Path(settings.state).absolute().parents if os.path.exists(path))
    return os.access(there, os.W_OK)


def run(settings: NixSettings, module: str, question: bytes, seconds: float) -> bytes:
    """Run ``module`` as a program in the builder's place, with ``question`` as its input. Return its output.

    ``seconds`` bounds its time. Raises :class:`OperatorError` where it cannot be run or fails, with its last message.
    """
    uid = owner(settings)
    name = accounts.user_name(uid) if uid is not None else BUILDER
    gid = accounts.gid_of(GROUP)
    # Only the unit's own user may have the two capabilities, even for a moment.
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
        raise OperatorError(f"the program that ran as {name} took more than {seconds:g} s and was ended")
    if not done.ok:
        said = done.stderr.data.decode(errors="replace").strip().splitlines()[-1:]
        raise OperatorError(f"the program that ran as {name} failed: {''.join(said)}")
    return done.stdout.data
