"""Names in Java source. javac wants a file named after its public class, and java wants the name of a class to run."""

from __future__ import annotations

import re
from typing import NamedTuple

NO_CODE = re.compile(
    r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/',
    re.DOTALL,
)
PACKAGE = re.compile(r"\s*package\s+([\w.]+)\s*;")
TYPE = re.compile(r"(?P<public>\bpublic\s+(?:[a-z-]+\s+)*)?(?<![.\w])(?:class|interface|enum|record)\s+(?P<name>\w+)")
MAIN = re.compile(r"\bvoid\s+main\s*\(")


class Source(NamedTuple):
    """A Java file: its public class ("" if none), the class to run, and whether that class has a main method."""

    public: str
    main: str
    has_main: bool


def look(text: str, stem: str) -> Source:
    """Return the names in a source.

    Where no class has a main method, one is named still, so that java reports the error.
    """
    code = NO_CODE.sub(" ", text)
    types = [match for match in TYPE.finditer(code) if _depth(code[: match.start()]) == 0]
    public = next((match["name"] for match in types if match["public"]), "")
    main = MAIN.search(code)
    holders = [match["name"] for match in types if main and match.start() < main.start()]
    named = (holders[-1:] or [public or (types[0]["name"] if types else stem)])[0]
    package = PACKAGE.match(code)
    return Source(public, f"{package[1]}.{named}" if package else named, bool(holders))


def _depth(code: str) -> int:
    return code.count("{") - code.count("}")
