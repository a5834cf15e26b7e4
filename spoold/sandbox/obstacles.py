"""What keeps a program from being started, in words for the client.

``inside/obstacles.c`` finds the facts. This module says what each of them means and what to do. Names come from the
job's files, so they are cut and printed with escapes.
"""

from __future__ import annotations

from collections.abc import Iterable

from spoold.sandbox.messages import Obstacle

LONGEST = 200  # bytes of a name that are printed
MACHINES = {
    "2": "SPARC", "3": "i386", "8": "MIPS", "20": "PowerPC", "21": "64-bit PowerPC", "22": "S/390", "40": "32-bit Arm",
    "43": "64-bit SPARC", "62": "x86-64", "183": "64-bit Arm", "243": "RISC-V", "258": "LoongArch",
}  # fmt: skip
FIND = "'#!/usr/bin/env NAME' finds a program of the packages that cutor.nix names"
ENDS = "Save it with Unix line ends, as dos2unix does"
# {file} is a file of the job, or an interpreter. {name} is what it needs.
WORDS = {
    "missing": "there is no {file} in the work directory",
    "dangling": "{file} is a symbolic link to a file that does not exist",
    "directory": "{file} is a directory",
    "special": "{file} is no regular file",
    "mode": "{file} is not executable any more",
    "unreadable": "{file} cannot be read, as its mode says, so no interpreter can run it",
    "unread": "{file} was never started. The shell that enters the environment ended before, for example as its hook "
    "exits or a limit is too small for it, or the hook changed the working directory",
    "interpreter": f"{{file}} asks for the interpreter {{name}}, which is not in the sandbox. {FIND}",
    "relative": f"{{file}} asks for the interpreter {{name}}, which is no absolute path and is not there. {FIND}",
    "no program": "{file} asks for the interpreter {name}, which is no executable file",
    "package": "{file} asks env for {name}, which is in no directory of PATH. Name a package in cutor.nix that has it",
    "nix-shell": "{file} asks env for 'nix-shell', which is not needed here: cutor.nix names the packages. Let the "
    "first line name the interpreter, such as '#!/usr/bin/env python3'",
    "late": "{file} has '#!' not at its very beginning, so bash runs it. Remove the blanks and empty lines before it",
    "one word": "{file} asks env for one program with the name {name}: env takes all that follows it as one word. "
    "Write '#!/usr/bin/env -S' to split it",
    "return": f"{{file}} has Windows line ends: its first line ends in a carriage return, which the kernel takes for a "
    f"part of the interpreter's name or argument. {ENDS}",
    "returns": f"{{file}} has Windows line ends: line {{number}} ends in a carriage return, which a shell takes for a "
    f"part of the line. {ENDS}",
    "old": f"{{file}} ends its lines by a carriage return alone, so all of it is one line to a shell. {ENDS}",
    "mark": "{file} begins with a byte order mark, which is neither '#!' nor a command. Save it as UTF-8 without one",
    "utf-16": "{file} is text in UTF-16, which no shell reads. Save it as UTF-8 without a byte order mark",
    "machine": "{file} is a program for another machine: {machine}. Compile it in compile.sh",
    "loader": "{file} is a program made elsewhere: it asks for the loader {name}, which is not in the sandbox. Compile "
    "it in compile.sh, link it statically, or change its loader by patchelf",
    "windows": "{file} is a program for Windows or DOS. Compile it in compile.sh",
    "macos": "{file} is a program for macOS. Compile it in compile.sh",
    "class": "{file} is a class of Java, which only java starts: name a JDK in cutor.nix, and let run.sh call it",
}


def told(obstacles: Iterable[Obstacle]) -> list[str]:
    """Return a note for each obstacle."""
    return [_told(each) for each in obstacles]


def _told(obstacle: Obstacle) -> str:
    name = obstacle.name[:LONGEST].decode(errors="replace")
    return WORDS[obstacle.kind.decode()].format(
        file=_file(obstacle.file), name=repr(name), number=name, machine=MACHINES.get(name, f"number {name}")
    )


def _file(file: bytes) -> str:
    """Return the name of a file, in quotes where it has anything unusual in it."""
    name = file[:LONGEST].decode(errors="replace")
    return name if name.isascii() and name.isprintable() and " " not in name else repr(name)
