"""A C compiler that remembers the program of the sandboxes, so that a run of the tests compiles each kind of it once.

An executor that starts from a checkout compiles the program, which takes seconds, and the tests start executors again
and again. So the PATH of the tests begins with a ``cc`` that compares what it is to compile, byte for byte by a hash,
with what it compiled before. It keeps a program only if the compiler said nothing. All else goes to the real compiler.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from spoold.sandbox import program

# The order of arguments is that of program.compile_to, which runs the compiler where ``facts.h`` is.
SCRIPT = """#!/bin/sh
set -u
for target; do :; done
[ -e facts.h ] || exec {compiler} "$@"
for each; do
    case $each in
    *.c) [ "${{each%/*}}" = {source} ] || exec {compiler} "$@" ;;
    esac
done
key=$({{
    for each; do
        [ "$each" = "-I$PWD" ] || [ "$each" = "$target" ] || echo "$each"
    done
    cat facts.h {source}/*.[ch]
}} | sha256sum | cut -c 1-64)
kept={kept}/$key
if ! [ -e "$kept" ]; then
    said=$({compiler} "$@" 2>&1)
    code=$?
    [ -z "$said" ] || printf '%s\\n' "$said" >&2
    [ "$code" -eq 0 ] && [ -z "$said" ] || exit "$code"
    cp "$target" "$kept.$$" && mv "$kept.$$" "$kept"
    exit
fi
cp "$kept" "$target"
"""


def remember(place: Path) -> Path | None:
    """Make such a compiler in ``place``. Return the directory for the PATH, or None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    kept, programs = place / "kept", place / "bin"
    for directory in (kept, programs):
        directory.mkdir()
    words = {"compiler": compiler, "source": str(program.SOURCE), "kept": str(kept)}
    script = programs / "cc"
    script.write_text(SCRIPT.format(**{name: shlex.quote(word) for name, word in words.items()}))
    script.chmod(0o755)
    return programs
