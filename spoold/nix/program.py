"""Nix as a store path, for jobs that start nix-shell themselves (``nix.enter``).

Theory of operation: jobs get the pin's own Nix where the pin has one. Else they get a copy of the host's Nix. For the
copy the program, the libraries that it is linked to and the loader are put into one store path. Scripts in there start
the program by that loader. The path refers only to the bash of the runtime.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from spoold.host import proc
from spoold.model.errors import OperatorError
from spoold.nix import confine
from spoold.nix.store import Store

PROGRAMS = ("nix", "nix-shell", "nix-store")  # one program, which acts by the name that it is called with
START = """#!{bash}/bin/bash
here=${{BASH_SOURCE[0]%/bin/*}}
exec "$here/lib/{loader}" --library-path "$here/lib" "$here/libexec/{name}" "$@"
"""


class _Copy(msgspec.Struct, frozen=True):
    """A copy that was made: the fingerprint of the files, and the store path of the copy."""

    fingerprint: str
    path: str


def of_pin(store: Store, pin: str) -> bool:
    """Tell whether a nixpkgs has Nix."""
    # A recent nixpkgs copies directories of its own into the store to read them, so the store has to be writable.
    words = [
        "--eval",
        "--read-write-mode",
        "--option",
        "restrict-eval",
        "false",
        "-E",
        "{ pin }: (import pin { }) ? nix",
    ]
    return store.ask(["nix-instantiate", *words, "--argstr", "pin", str(store.on_disk(pin))]).strip() == "true"


def of_host(store: Store, bash: str) -> str:
    """Return the store path of a copy of the host's Nix. Make the copy where none is there or the host's has changed.

    Raises :class:`OperatorError` where Nix cannot be copied.
    """
    program = os.path.realpath(proc.find("nix-shell"))
    files = confine.closure((program,))
    fingerprint = _fingerprint([bash, *files])
    memory = store.room / "host-nix.json"
    remembered = _remembered(memory)
    if remembered is not None and remembered.fingerprint == fingerprint and store.valid([remembered.path]):
        return remembered.path
    with store.workspace() as scratch:
        tree = scratch / "nix"
        _lay_out(tree, program, [file for file in files if file != program], bash)
        path = store.ask(["nix-store", "--add", str(tree)]).strip()
    memory.write_bytes(msgspec.json.encode(_Copy(fingerprint, path)))
    return path


def _remembered(memory: Path) -> _Copy | None:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=_Copy)
    except (OSError, msgspec.DecodeError):
        return None


def _lay_out(tree: Path, program: str, libraries: list[str], bash: str) -> None:
    for directory in ("bin", "lib", "libexec"):
        (tree / directory).mkdir(parents=True)
    for library in libraries:
        shutil.copyfile(library, tree / "lib" / os.path.basename(library))
    loader = next((name for name in map(os.path.basename, libraries) if name.startswith("ld-")), None)
    if loader is None:
        raise OperatorError(f"{program} cannot be copied for jobs, since it names no loader among its libraries")
    (tree / "lib" / loader).chmod(0o755)
    shutil.copyfile(program, tree / "libexec" / PROGRAMS[0])
    (tree / "libexec" / PROGRAMS[0]).chmod(0o755)
    for name in PROGRAMS:
        if name != PROGRAMS[0]:
            (tree / "libexec" / name).symlink_to(PROGRAMS[0])
        start = tree / "bin" / name
        start.write_text(START.format(bash=bash, loader=loader, name=name))
        start.chmod(0o755)


def _fingerprint(files: list[str]) -> str:
    """Return a digest that changes with the state of ``files``. The name of a store path alone tells its state."""
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file) if os.path.exists(file) else None
        state = f"{status.st_size}\0{status.st_mtime_ns}" if status else ""
        digest.update(f"{file}\0{state}\n".encode())
    return digest.hexdigest()
