"""Building and entering what was built, for all tests of this directory."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from threading import Event

import msgspec

from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Runtime
from spoold.model.response import Outcome
from spoold.model.states import State
from spoold.model.submission import Dependencies
from spoold.nix.build import NixBuilder
from spoold.spool.builds import BuildStore
from tests.waiting import PATIENCE, until

SHELL = "{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { %s }\n"
# A shell with structured attributes. Its hook reads them.
STRUCTURED = """with rec { pkgs = import <nixpkgs> { }; }; derivation {
  name = "s"; builder = "none"; system = builtins.currentSystem; stdenv = pkgs.stdenvNoCC;
  __structuredAttrs = true; words = [ "a" "b c" ]; map = { k = "v w"; };
  shellHook = "export SEEN=\\"\\${words[1]}/\\${map[k]}\\"";
}"""
Copy = Callable[[], NixBuilder]
_numbers = itertools.count()


def build(builder: NixBuilder, expression: str) -> BuildResult:
    """Build ``expression`` under an id of its own."""
    return builder.build(f"test-{next(_numbers)}", expression, "default", Event())


def shell(builder: NixBuilder, attributes: str) -> str:
    """Build a shell with these attributes, and return its store path."""
    result = build(builder, SHELL % attributes)
    assert result.phase.outcome is Outcome.OK, result.phase.stderr
    return result.shell


def file(builds: BuildStore, builder: NixBuilder, expression: str) -> str:
    """Build ``expression`` for the Build store under its proper id, as a builder does. Return the id."""
    runtime = builder.prepare()
    pin = runtime.nixpkgs["default"]
    build_id = ids.build_id(expression, pin, runtime.system, runtime.nix)
    builds.runtime.provide(runtime)
    builds.request(Dependencies(build_id=build_id, expression=expression, nixpkgs=pin))
    builds.queue.claim(Entry(build_id, 1), State.NEW, State.BUILDING)
    builds.finish(Entry(build_id, 1), builder.build(build_id, expression, "default", Event()), 0.0)
    builds.uses.note(build_id, 0)
    return build_id


def processes_with(word: str) -> list[int]:
    """Return the processes with ``word`` in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in text and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def children_with(word: str) -> list[int]:
    """Return those of these processes that are our children, because others build on this host as well."""
    return [pid for pid in processes_with(word) if _parent(pid) == os.getpid()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it ended meanwhile
        return 0


def until_runs(command: str) -> None:
    """Wait until a builder runs a command."""
    words = command.replace(" ", "\0")
    until(lambda: bool(processes_with(words)))


def limited(builder: NixBuilder, **limits: float) -> NixBuilder:
    """Return a builder on the same store with other limits."""
    settings = builder.settings
    changed = msgspec.structs.replace(
        settings.builder, limits=msgspec.structs.replace(settings.builder.limits, **limits)
    )
    fresh = NixBuilder(msgspec.structs.replace(settings, builder=changed))
    fresh.prepare()
    return fresh


@functools.cache
def runtime_of(builder: NixBuilder) -> Runtime:
    """Return the runtime that a builder provides. It is cached, because this takes a moment."""
    return builder.prepare()


def enter(builder: NixBuilder, captured: str, script: str, *arguments: str, binds: tuple[str, ...] = ()) -> bytes:
    """Run ``script`` in a captured shell, in a root that holds only the store. Return what it printed."""
    runtime = runtime_of(builder)
    command = ["bwrap", "--unshare-all", "--clearenv", "--ro-bind", str(builder.store.physical), "/nix/store"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/job", "--chdir", "/job", *binds]
    bash = [f"{runtime.bash}/bin/bash", "--norc", "--noprofile", "-c", f". {captured}/enter.sh\n{script}", "bash"]
    finished = subprocess.run([*command, "--", *bash, *arguments], check=False, capture_output=True, timeout=PATIENCE)
    assert finished.returncode == 0, finished.stderr.decode()
    assert finished.stderr == b""
    return finished.stdout


def execute(builder: NixBuilder, captured: str, *command: str, said: bytes | tuple[bytes, ...] = b"") -> bytes:
    """Enter a captured shell as the sandbox does, with its script, and become ``command`` there.

    ``said`` is what the end of its stderr has to be, or one of several; where it is empty, all of it.
    """
    runtime = runtime_of(builder)
    root = ["bwrap", "--unshare-all", "--clearenv", "--ro-bind", str(builder.store.physical), "/nix/store"]
    root += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/usr/bin", "--chdir", "/tmp"]
    if runtime.nix:  # nix-shell needs a home and rm, as in the sandbox
        root += ["--setenv", "HOME", "/tmp", "--setenv", "PATH", f"{runtime.coreutils}/bin:{runtime.bash}/bin"]
    root += ["--symlink", f"{runtime.coreutils}/bin/env", "/usr/bin/env"]
    root += ["--symlink", f"{runtime.bash}/bin/bash", "/bin/sh"]
    with resources.as_file(resources.files("spoold.sandbox") / "enter.sh") as script:
        root += ["--ro-bind", str(script), "/enter.sh"]
        with open(os.memfd_create("words"), "w+b") as words:
            words.write(b"".join(os.fsencode(word) + b"\0" for word in (captured, *command)))
            words.seek(0)
            bash = [f"{runtime.bash}/bin/bash", "--norc", "--noprofile", "/enter.sh", str(words.fileno())]
            finished = subprocess.run(
                [*root, "--", *bash], check=False, capture_output=True, timeout=PATIENCE, pass_fds=[words.fileno()]
            )
    assert finished.returncode == 0, finished.stderr.decode()
    assert finished.stderr.endswith(said) if said else finished.stderr == b"", finished.stderr.decode()
    return finished.stdout


def nix_shell(builder: NixBuilder, expression: Path, script: str) -> bytes:
    """Run ``script`` in ``nix-shell --pure``, with our store in place of /nix. Only for scripts of our own."""
    runtime = runtime_of(builder)
    nix = builder.store.physical.parent.parent
    command = ["bwrap", "--dev-bind", "/", "/", "--bind", f"{nix}/nix", "/nix", "--chdir", "/", "--clearenv"]
    if os.geteuid() == 0:
        command += ["--cap-add", "ALL"]
    environment = {"NIX_BUILD_SHELL": f"{runtime.bash}/bin/bash", "NIX_USER_CONF_FILES": "", "HOME": "/nowhere"}
    for name, value in (
        environment | {"NIX_CONF_DIR": "/nowhere", "PATH": os.environ["PATH"], "USER": "nobody"}
    ).items():
        command += ["--setenv", name, value]
    program = ["nix-shell", "--pure", "--option", "substituters", "", "--option", "build-users-group", ""]
    program += ["-I", f"nixpkgs={runtime.nixpkgs['default']}", "--run", script, str(expression)]
    finished = subprocess.run([*command, "--", *program], check=False, capture_output=True, timeout=PATIENCE)
    assert finished.returncode == 0, finished.stderr.decode()
    return finished.stdout
