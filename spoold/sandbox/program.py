"""The program that starts in containers as their root: supervisor and porter, made from the source in ``inside``.

Theory of operation. Root in a container may run only what comes from where root alone can write. The Nix store is no
such place, since the builder's user writes it. So root runs one static program, and the image holds nothing else that
runs. A package brings the program, compiled when the package was built (``PACKAGED``). Without it, the host's C
compiler compiles the program here when an image is made. Compiler and source are refused where anybody but root, or the
user that runs spoold, can change them or put others in their place (``host.ownership``). An executor of a pool lives
for minutes, and the compiler takes seconds. So what was compiled can be kept for the next one, in a directory of this
user's. After a day it is compiled anew, since the compiler and its library may have been mended.

Facts that both sides of the wire have to agree on are written down once, in modules of the host. The program gets them
as the header ``facts.h``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from spoold.host import fsops, ownership
from spoold.model.errors import OperatorError
from spoold.sandbox import facts, obstacles, seccomp

SOURCE = Path(__file__).parent / "inside"
IN_IMAGE = "/spoold/sbin/supervisor"  # in a directory that is closed to jobs
PORTER = "porter"  # with this argument the program is the porter
PACKAGED = Path(__file__).parents[2] / "supervisor"  # beside the package ``spoold``
FLAGS = ("-std=gnu11", "-O2", "-static", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-s")
KEPT_FOR = 86400.0  # seconds
COMPILE_TIMEOUT = 600.0  # seconds; it takes ten, and many times that where the machine has much else to do
REMEDY = (
    "It decides what starts as root in containers, so only root may be able to change it: mend owner and mode, or "
    "install the package, which has the program compiled"
)


def content(kept: str = "") -> bytes:
    """Return the program's file; raises :class:`OperatorError` where there is none, or somebody could change it.

    Where it is compiled here, it is kept in the directory ``kept``, if one is named.
    """
    if PACKAGED.exists():
        return Path(ownership.settled(str(PACKAGED), REMEDY)).read_bytes()
    return _kept(Path(kept)) if kept else _compiled(identity())


def _kept(directory: Path) -> bytes:
    path = directory / f"program-{identity()[:16]}"
    if _is_young(path):
        return Path(ownership.settled(str(path), REMEDY)).read_bytes()
    made = _compiled(identity())
    with contextlib.suppress(OSError):  # then the next process compiles again
        for old in directory.glob("program-*"):
            if not _is_young(old):
                old.unlink()
        private = f"{path}.{uuid.uuid4().hex}"
        fsops.write_private(private, made, mode=0o500)
        fsops.replace(private, str(path))
    return made


def _is_young(path: Path) -> bool:
    made = fsops.mtime(str(path))
    return made is not None and 0 <= time.time() - made < KEPT_FOR


def identity() -> str:
    """Return a hash of the program as it is here: its source and its facts."""
    seen = hashlib.sha256(header().encode())
    for path in sources():
        seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()


@functools.lru_cache(maxsize=1)
def _compiled(_: str) -> bytes:
    compiler = shutil.which("cc")
    if compiler is None:
        raise OperatorError(
            "there is no C compiler to make the program that runs in containers: install one (on Debian gcc and "
            "libc6-dev), or the package of spoold, which brings it"
        )
    ownership.settled(compiler, REMEDY)
    for path in sources():
        ownership.settled(str(path), REMEDY, also={os.stat(__file__).st_uid})
    with tempfile.TemporaryDirectory(prefix="spoold-") as place:
        target = Path(place) / "supervisor"
        compile_to(target, compiler)
        return target.read_bytes()


def compile_to(
    target: Path, compiler: str = "cc", flags: Iterable[str] = FLAGS, code: Iterable[Path] | None = None
) -> None:
    """Compile the program, or other ``code``; raises :class:`OperatorError` with the compiler's message."""
    with tempfile.TemporaryDirectory(prefix="spoold-") as place:
        (Path(place) / "facts.h").write_text(header())
        files = [str(path) for path in code or sources() if path.suffix == ".c"]
        command = [compiler, *flags, f"-I{place}", f"-I{SOURCE}", *files, "-o", str(target.absolute())]
        try:
            done = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT, check=False, cwd=place)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OperatorError(f"the program that runs in containers cannot be compiled: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:1000]
        raise OperatorError(f"the program that runs in containers cannot be compiled by {compiler}: {said}")


def sources() -> list[Path]:
    """Return the files of the source."""
    return sorted(path for path in SOURCE.iterdir() if path.suffix in (".c", ".h"))


def header() -> str:
    """Return ``facts.h``."""
    network = ((f"/proc/sys/{name.replace('.', '/')}", value) for name, value in facts.NETWORK.items())
    steps = (f"{{{', '.join(map(str, step))}}}" for step in seccomp.program(os.uname().machine))
    lines = ["#pragma once", *(f"#define {name} {value}" for name, value in facts.NUMBERS.items())]
    lines += [
        f'#define KEPT "{facts.KEPT}"',
        f'#define LINE "{facts.LINE}/{facts.LINE_NAME}"',
        f"#define LIMITS_V1 {_strings(facts.LIMITS_V1)}",
        f"#define LIMITS_V2 {_strings(facts.LIMITS_V2)}",
        f"#define NETWORK {', '.join(f'{{{_strings(pair)}}}' for pair in network)}",
        f"#define FILTER {', '.join(steps)}",
    ]
    lists = {
        "KINDS": obstacles.WORDS,
        "ETC": facts.ETC,
        "HIDDEN_FILES": facts.HIDDEN_FILES,
        "HIDDEN_DIRECTORIES": facts.HIDDEN_DIRECTORIES,
    }
    for name, words in lists.items():
        lines.append(f"static const char *const {name}[] __attribute__((unused)) = {{{_strings(words)}}};")
    return "".join(f"{line}\n" for line in lines)


def _strings(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]))
