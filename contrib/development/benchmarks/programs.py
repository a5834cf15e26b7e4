"""The programs that are measured: a trivial one, one in Python, one that is compiled and then run.

A spool gets each program as files. A peer gets one shell script, which writes the same files and does the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Program:
    """A program: ``suffix`` ends the names of its results, ``packages`` are attributes of nixpkgs."""

    suffix: str
    output: str
    files: dict[str, str]
    packages: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """Return the name for readers."""
        return self.suffix.lstrip("-") or "trivial"

    @property
    def expression(self) -> str:
        """Return the cutor.nix, "" for the default shell."""
        packages = " ".join(f"pkgs.{name}" for name in self.packages)
        return f"{{ pkgs ? import <nixpkgs> {{}} }}: pkgs.mkShell {{ packages = [ {packages} ]; }}" if packages else ""

    @property
    def request(self) -> bytes:
        """Return the submission."""
        files = self.files | ({"cutor.nix": self.expression} if self.expression else {})
        return json.dumps({"files": [{"name": name, "content": text} for name, text in files.items()]}).encode()

    @property
    def script(self) -> str:
        """Return a shell script that does the same in an empty directory, which it may write to."""
        steps = ["compile.sh", "run.sh"]
        sources = {name: text for name, text in self.files.items() if name not in steps}
        written = [f"cat >{name} <<'END OF FILE'\n{text}END OF FILE\n" for name, text in sources.items()]
        return "set -e\n" + "".join([*written, *(self.files[step] for step in steps if step in self.files)])


TRIVIAL = Program("", "hi\n", {"run.sh": "echo hi\n"})
PYTHON = Program(
    "-python",
    "[1, 4, 9]\n",
    {
        "run.sh": "echo 1 2 3 | python3 squares.py\n",
        "squares.py": "import sys\nprint([int(word) ** 2 for word in sys.stdin.read().split()])\n",
    },
    ("python3",),
)
COMPILE = Program(
    "-compile",
    "42\n",
    {
        "compile.sh": "gcc -O1 -o sum sum.c\n",
        "run.sh": "echo 20 22 | ./sum\n",
        "sum.c": "#include <stdio.h>\n"
        'int main(void) { int a, b; if (scanf("%d %d", &a, &b) != 2) return 1; printf("%d\\n", a + b); return 0; }\n',
    },
    ("gcc",),
)
# The trivial one in an environment of its own. The environment is known when it is measured, so that no Nix process is
# on the way of a job.
OWN = Program(
    "-own", TRIVIAL.output, TRIVIAL.files | {"cutor.nix": "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { OWN = 1; }\n"}
)
PROGRAMS = (TRIVIAL, PYTHON, COMPILE)
