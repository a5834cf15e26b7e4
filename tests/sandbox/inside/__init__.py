"""The supervisor and its parts as programs on this host, compiled with sanitizers, in a root of their own."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spoold.sandbox import program

SANITIZED = ("-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra")
STRICT = (*SANITIZED, "-Werror")
UNITS = Path(__file__).with_name("units.c")


def supervisor(place: Path) -> Path:
    """Compile the supervisor into ``place``."""
    target = place / "supervisor"
    program.compile_to(target, flags=STRICT)
    return target


def units(place: Path) -> Path:
    """Compile a program of the supervisor's parts into ``place``."""
    target = place / "units"
    # units.c includes these, except main.c
    included = ("main.c", "apart.c", "cell.c", "live.c", "obstacles.c", "outputs.c", "snapshot.c")
    others = [path for path in program.sources() if path.name not in included]
    program.compile_to(target, flags=STRICT, code=[*others, UNITS])
    return target


def without_views(place: Path, *flags: str) -> Path:
    """Compile a supervisor that cannot make a view into ``place``, see ``no_view.c``."""
    target = place / "supervisor"
    others = [path for path in program.sources() if path.name != "store.c"]
    program.compile_to(target, flags=(*program.FLAGS, *flags), code=[*others, UNITS.with_name("no_view.c")])
    return target


def in_a_root(tried: Path, work: Path, *, binds: Sequence[str] = ()) -> list[str]:
    """Return the command that starts ``tried`` in a small root, with ``work`` as its /job."""
    return [
        *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--die-with-parent", "--cap-add", "ALL"),
        *("--tmpfs", "/", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--dir", "/nix/store"),
        *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin"),
        *("--perms", "1777", "--tmpfs", "/tmp", "--bind", str(work), "/job", "--ro-bind", str(tried), "/tried"),
        *binds,
        "/tried",
    ]


class Parts:
    """Parts of the supervisor that obey orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, order: str) -> str:
        """Give an order, and return the answer."""
        self.say(order)
        return self.answer()

    def say(self, order: str) -> None:
        """Give an order."""
        assert self.process.stdin
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def has_answered(self, patience: float = 0.0) -> bool:
        """Tell whether an answer comes within ``patience`` seconds."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], patience)[0])

    def answer(self) -> str:
        """Return the next answer."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def numbers(self, order: str) -> list[int]:
        """Give an order, and return the numbers of the answer."""
        return list(map(int, self(order).split()))


@contextmanager
def parts(command: list[str]) -> Iterator[Parts]:
    """Yield the parts that ``command`` starts. They must end without an error."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="backslashreplace"
    ) as process:
        yield Parts(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0
