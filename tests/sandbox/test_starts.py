"""How run.sh and compile.sh start. Where one cannot, notes tell the client facts about the files."""

from __future__ import annotations

import struct
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.model.job import JobFile, JobResult, Runtime
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.sandbox import obstacles as words
from spoold.sandbox.messages import Obstacle
from spoold.sandbox.verdict import is_possible
from tests.conftest import build_shell
from tests.sandbox.conftest import RUN_DEFAULT, AnySandbox, Run, make_job
from tests.sandbox.test_verdict import done as account_of

pytestmark = pytest.mark.docker

LOADER = b"/lib64/ld-linux-x86-64.so.2"
BESIDE = {
    "text": (b"no program\n", 0o644),
    "program": (b"#!/usr/bin/env bash\necho by program $0 $1\n", 0o755),
    "nested": (b"#!/opt/python3\n", 0o755),
}


def elf(machine: int = 62, interpreter: bytes = LOADER) -> bytes:
    """Return the beginning of a 64-bit program that needs a loader."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(interpreter) + 1
    return header + struct.pack("<IIQQQQQQ", 3, 4, 120, 0x400078, 0x400078, size, size, 1) + interpreter + b"\0"


def start(sandbox: AnySandbox, shell: str, script: bytes, **beside: Any) -> JobResult:
    """Run a job with this run.sh and the files of BESIDE."""
    job = make_job("", shell=shell, **beside)
    files = [JobFile("run.sh", script, 0o755), *(JobFile(name, *rest) for name, rest in BESIDE.items())]
    job = replace(job, files=files + [file for file in job.files if file.name != "run.sh"])
    return sandbox.run(job, lambda *_: None, threading.Event())


# Scripts that start, and their output.
BEGIN = {
    "bash": (b"set -o | grep posix; echo $0 ${BASH##*/} $#", "posix          \toff\n./run.sh bash 2\n"),
    "source without a path": (b"source text 2>/dev/null; echo still here", "still here\n"),
    "usr bin bash": (b"#!/usr/bin/bash\necho $0 $#", "./run.sh 2\n"),
    "usr bin sh": (b"#!/usr/bin/sh\nset -o | grep posix", "posix          \ton\n"),
    "bin sh": (b"#! /bin/sh -e \necho $-", "ehB\n"),
    "bin bash": (b"#!/bin/bash -u\necho $-", "huB\n"),
    "env": (b"#!/usr/bin/env bash\necho $0", "./run.sh\n"),
    "env that splits": (b"#!/usr/bin/env -S A=b bash -eu\necho $- $A", "ehuB b\n"),
    "a relative interpreter": (b"#!program\n", "by program program ./run.sh\n"),
    "no interpreter": (b"#!\necho $0", "./run.sh\n"),
    "blanks for an interpreter": (b"#! \t \necho $0", "./run.sh\n"),
    "nothing": (b"", ""),
    "one byte": (b":", ""),
    "a zero byte in a later line": (b"echo a\necho b\0c\n", "a\nbc\n"),
    "a comment": (b"# !/no/such\necho a", "a\n"),
}


@pytest.mark.parametrize("name", BEGIN)
def test_what_begins(sandbox: AnySandbox, plain_shell: str, name: str) -> None:
    script, printed = BEGIN[name]
    done = start(sandbox, plain_shell, script, args=("a", "b c"))
    assert (done.run.stdout, done.run.exit_code, done.notes) == (printed, 0, [])


@pytest.mark.parametrize("script", ["", "#!/bin/bash\n", "#!/usr/bin/env -S bash\n"])
def test_variables_change_nothing_of_how_it_begins(run: Run, script: str) -> None:
    script += "set -o | grep posix; echo $0 ${BASH##*/} $SHLVL $#"
    plain, given = (run(script, args=("a", ""), env=env).run.stdout for env in ({}, {"A.B": "c", "ENV": "/job/none"}))
    assert plain == given == "posix          \toff\n./run.sh bash 2 2\n"


def test_compile_begins_in_the_same_way(run: Run) -> None:
    result = run("true", compile_sh="function a-b { echo $0 $SHLVL; }; a-b; exec nosuch; echo never")
    assert (result.compile.stdout, result.compile.exit_code) == ("./compile.sh 2\n", 127)


# Scripts that don't start, the exit code, and text of the only note ("" for no note).
STOP = {
    "python of a distribution": (b"#!/usr/bin/python3\n", 127, "run.sh asks for the interpreter '/usr/bin/python3'"),
    "a path of the client's": (b"#!/home/me/v env/bin/python -u\n", 127, "interpreter '/home/me/v', which is not"),
    "a relative interpreter": (b"#!python3\n", 127, "'python3', which is no absolute path"),
    "a nested interpreter": (b"#!/job/nested\n", 127, "/job/nested asks for the interpreter '/opt/python3'"),
    "an interpreter that is text": (b"#!/job/text\n", 126, "'/job/text', which is no executable file"),
    "an interpreter that is a directory": (b"#!/tmp\n", 126, "'/tmp', which is no executable file"),
    "env of another place": (b"#!/bin/env bash\n", 127, "the interpreter '/bin/env', which is not in the sandbox"),
    "env without a package": (b"#!/usr/bin/env nosuch\n", 127, "run.sh asks env for 'nosuch'"),
    "env -S without a package": (b"#!/usr/bin/env -S A=b nosuch -u\n", 127, "run.sh asks env for 'nosuch'"),
    "a code of what env found": (b"#!/usr/bin/env bash\nexit 127", 127, ""),
    "env -S with options": (b"#!/usr/bin/env -S -i A=b nosuch -u\n", 127, "run.sh asks env for 'nosuch'"),
    "env -S with an option that has an argument": (b"#!/usr/bin/env -S -u PATH nosuch\n", 127, ""),
    "a code after env -C": (b"#!/usr/bin/env -S -C /job bash\nexit 127", 127, ""),
    "a code after several options of env": (b"#!/usr/bin/env -iS bash\nexit 127", 127, ""),
    "a code after options and words": (b"#!/usr/bin/env -vS bash -u\nexit 127", 127, ""),
    "a code after quotes": (b"#!/usr/bin/env -S 'bash' \"-u\"\nexit 127", 127, ""),
    "a code after a variable": (b"#!/usr/bin/env -S PATH=${PATH} ${BASH_}bash\nexit 127", 127, ""),
    "env with words": (b"#!/usr/bin/env bash -u\n", 127, "one program with the name 'bash -u'"),
    "env and a nested one": (b"#!/usr/bin/env ./nested\n", 127, "./nested asks for the interpreter '/opt/python3'"),
    "line ends": (b"#!/bin/sh\r\necho\r\n", 127, "its first line ends in a carriage return"),
    "line ends after env": (b"#!/usr/bin/env python3\r\n", 127, "its first line ends in a carriage return"),
    "line ends after an argument": (b"#!/bin/sh -e\r\n", 1, "its first line ends in a carriage return"),
    "line ends without an interpreter": (b"echo a\r\nexit 3\r\n", 2, "line 1 ends in a carriage return"),
    "line ends of old": (b"echo a\rexit 3\r", 0, "a carriage return alone"),
    "line ends later": (b"#!/usr/bin/env bash\ntrue\nfalse\r\n", 127, "line 3 ends in a carriage return"),
    "line ends that fail nothing": (b"echo a\r\n", 0, "line 1 ends in a carriage return"),
    "line ends that are no shell's": (b"#!/job/program\ntrue\r\n", 0, ""),
    "an empty line first": (b"\n#!/usr/bin/env python3\nimport os\n", 127, "'#!' not at its very beginning"),
    "blanks first": (b"  #!/bin/sh\nexit 3", 3, "'#!' not at its very beginning"),
    "an empty line that fails nothing": (b"\n#!/bin/sh\nexit 0", 0, ""),
    "a script for nix-shell": (
        b"#!/usr/bin/env nix-shell\n#!nix-shell -i sh -p jq\n",
        127,
        "'nix-shell', which is not needed",
    ),
    "a mark": (b"\xef\xbb\xbf#!/bin/sh\nexit 0\n", 0, "begins with a byte order mark"),
    "utf-16": ("echo a\n".encode("utf-16"), 126, "is text in UTF-16"),
    "a program with a loader": (elf(), 127, f"asks for the loader '{LOADER.decode()}'"),
    "a program of musl": (elf(interpreter=b"/lib/ld-musl-x86_64.so.1"), 127, "'/lib/ld-musl-x86_64.so.1'"),
    "a program of another machine": (elf(183), 126, "another machine: 64-bit Arm"),
    "a program of an odd machine": (elf(999), 126, "another machine: number 999"),
    "a program of nothing": (b"\x7fELF", 126, ""),
    "a program of windows": (b"MZ\x90\0\3\0\0\0", 126, "for Windows"),
    "a program of macos": (b"\xcf\xfa\xed\xfe\x07\0\0\1", 126, "for macOS"),
    "a program of macos for several machines": (b"\xca\xfe\xba\xbe\0\0\0\2\1\0\0\7", 126, "for macOS"),
    "a class of java": (b"\xca\xfe\xba\xbe\0\0\0\x34\0\x1d", 126, "is a class of Java"),
    "a class of java of 1996": (b"\xca\xfe\xba\xbe\0\3\0\x2d\0\x1d", 126, "is a class of Java"),
    "half of the beginning of a class": (b"\xca\xfe\xba\xbe\0", 126, ""),
    "a zero byte": (b"a\0b\n", 126, ""),
    "a code of its own": (b"exit 127", 127, ""),
    "another code of its own": (b"#!/usr/bin/env bash\nexit 126", 126, ""),
    "a command that is not there": (b"nosuch", 127, ""),
    "times that are set to nought": (b"touch -d @0 run.sh; exit 3", 3, ""),
    "a script that removes itself": (b"rm run.sh; exit 127", 127, "there is no run.sh in the work directory"),
}
MACHINE_BOUND = {"a program with a loader", "a program of musl"}


@pytest.mark.parametrize("name", STOP)
def test_what_does_not_begin_is_noted(sandbox: AnySandbox, runtime: Runtime, plain_shell: str, name: str) -> None:
    if name in MACHINE_BOUND and not runtime.system.startswith("x86_64-"):
        pytest.skip("the program is for x86-64")
    script, code, note = STOP[name]
    done = start(sandbox, plain_shell, script)
    assert done.run.exit_code == code, done.run.stderr
    assert done.run.outcome is (Outcome.NONZERO_EXIT if code else Outcome.OK)
    assert (len(done.notes), note in "".join(done.notes)) == (int(bool(note)), True), done.notes


# Things that compile.sh may do to run.sh, with the exit code and the note.
SPOILED = {
    "chmod 644 run.sh": (126, "run.sh is not executable any more"),
    "chmod 111 run.sh": (126, "run.sh cannot be read"),
    "rm run.sh": (127, "there is no run.sh in the work directory"),
    "rm run.sh; mkdir run.sh": (126, "run.sh is a directory"),
    "rm run.sh; mkfifo run.sh": (126, "run.sh is no regular file"),
    "ln -sf nowhere run.sh": (127, "run.sh is a symbolic link to a file that does not exist"),
    "ln -sf /dev/null run.sh": (126, "run.sh is no regular file"),
    "ln -sf loop run.sh; ln -s run.sh loop": (126, ""),
    "ln -sf /proc/self/fd/0 run.sh": (0, ""),
    "ln -sf /proc/self/fd/1 run.sh": (126, "run.sh is no regular file"),
    "ln -sf /proc/1/mem run.sh": (126, "run.sh is not executable any more"),
    "mkdir d; printf '#!/job/d/x' >run.sh; chmod 0 d": (126, "'/job/d/x', which is no executable file"),
    "printf '#!/proc/self/fd/1' >run.sh": (126, "which is no executable file"),
    "chmod 0 .": (126, ""),
}


@pytest.mark.parametrize("compile_sh", SPOILED)
def test_what_compile_leaves_is_noted_as_it_is(run: Run, compile_sh: str) -> None:
    """The supervisor looks only at regular files, with the job's rights. Nothing makes it wait, or takes its input."""
    code, note = SPOILED[compile_sh]
    done = run("true", compile_sh=f"trap 'exit 0' EXIT; {compile_sh}", stdin=b"true")
    assert (done.compile.outcome, done.run.exit_code) == (Outcome.OK, code), done.run.stderr
    assert note in "".join(done.notes)
    assert len(done.notes) == int(bool(note))


def test_programs_beside_the_script_are_noted_where_it_fails(run: Run) -> None:
    files = {"a.out": elf(183), "b.sh": b"#!/usr/bin/python3\n", "c.sh": b"#!/bin/sh\n", "d.txt": b"#!/none\n"}
    for script, code, named in (
        ("./b.sh; ./a.out", 126, ["a.out", "b.sh"]),
        ("./a.out; ./b.sh", 127, ["a.out", "b.sh"]),
        ("exit 127", 127, []),
        ("cat d.txt; exit 126", 126, []),
        ("./b.sh; true", 0, []),
    ):
        done = run(f"sleep 0.05; chmod +x a.out b.sh c.sh; {script}", files=files)
        assert (done.run.exit_code, [note.partition(" ")[0] for note in done.notes]) == (code, named), script


def test_a_look_that_takes_long_is_given_up(run: Run, runtime: Runtime) -> None:
    """It would have to look for each of these in each directory of PATH, 4 million times, by a path of any length."""
    script = (
        "for n in {1..200}; do echo '#!/usr/bin/env nosuch' >$n; done; sleep 0.05; chmod +x *; cat * >seen; exit 127"
    )
    done = run(script, env={"PATH": f"{'x:' * 20000}{runtime.coreutils}/bin"})
    assert (done.run.exit_code, done.run.stderr, done.notes) == (127, "", [])


@pytest.mark.parametrize(("limits", "ends"), [({"open_files": 3}, 127), ({"stack": 1}, None)])
def test_limits_that_no_shell_can_begin_with_are_no_success(run: Run, limits: dict[str, Any], ends: int | None) -> None:
    done = run("exit 0", limits=replace(RUN_DEFAULT, **limits))
    assert (done.run.exit_code, done.run.stdout) == (ends, "")
    assert "a limit is too small" in "".join(done.notes)


def test_a_program_that_nobody_can_read_is_run(run: Run, c_shell: str) -> None:
    files = {"main.c": b"int main(void) { return 42; }"}
    done = run("", compile_sh="gcc -o run.sh main.c; chmod 111 run.sh", files=files, shell=c_shell)
    assert (done.run.exit_code, done.run.stderr, done.notes) == (42, "", [])


def test_names_in_notes_are_cut_and_printable(run: Run) -> None:
    done = run("#!/" + "\u202e\x1b" * 50 + "\n")
    assert done.run.exit_code == 127
    assert "\\x1b" in done.notes[0]
    assert done.notes[0].isprintable()
    assert all(len(note) < 2000 for note in done.notes)


# Shell hooks, with the exit code, the output of "echo ran", and whether a note says that run.sh did not start.
HOOKS = {
    "true": (0, "ran\n", False),
    "cd .": (0, "ran\n", False),
    "set -euo pipefail; IFS=/; shopt -s nullglob failglob": (0, "ran\n", False),
    "unset SHLVL BASH; set -- x": (0, "ran\n", False),
    "read() { false; }; command() { false; }; printf() { false; }": (0, "ran\n", False),
    "exec() { false; }; alias builtin=false exec=false": (0, "ran\n", False),
    "set -k": (0, "ran\n", False),
    "set -xv": (0, "ran\n", False),
    "trap 'echo step \\$BASH_COMMAND >&2' DEBUG ERR; set -ET": (0, "ran\n", False),
    "cd /tmp": (127, "", True),
    "mkdir src; cd src": (127, "", True),
    "exit 3": (3, "", True),
    "exit 0": (0, "", True),
    "exec true": (0, "", True),
    "kill -KILL \\$\\$": (None, "", True),
    "cat run.sh; exit 5": (5, "echo ran", False),
}


@pytest.mark.nix
@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_keeps_from_starting_is_noted(run: Run, prepared: tuple[NixBuilder, Runtime], hook: str) -> None:
    code, printed, noted = HOOKS[hook]
    done = run("echo ran", shell=build_shell(prepared, f'shellHook = "{hook}";'))
    assert (done.run.exit_code, done.run.stdout) == (code, printed), done.run.stderr
    assert [note.startswith("run.sh was never started") for note in done.notes] == [True] * noted
    assert "__spoold_" not in done.run.stderr
    if "cd" in hook and noted:
        assert "the shell hook went to the directory" in done.run.stderr


def test_all_that_can_be_in_the_way_has_words() -> None:
    seen = [Obstacle(kind=kind.encode(), file="b c\n\u00e9".encode(), name=b"7") for kind in words.WORDS]
    told = words.told(seen)
    assert len(set(told)) == len(words.WORDS)
    assert all(note.isprintable() for note in told)
    account = account_of(0)
    account.obstacles = seen
    assert is_possible(account, RUN_DEFAULT)
    account.obstacles = [Obstacle(kind=b"\xff", file=b"", name=b"")]
    assert not is_possible(account, RUN_DEFAULT)
