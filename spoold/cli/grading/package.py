"""Problem packages as for Kattis, ICPC contests and DOMjudge: ``problem.yaml``, and the places of all other parts.

Two formats are known. The **older** one is called ``legacy``, and is the default. The **newer** one is ``2025-09``,
whose drafts were called ``2023-07``. A package of the newer format whose test data have ``testdata.yaml`` follows an
early draft. It is scored as in the older format, because other tools for it do so.
https://www.kattis.com/problem-package-format/ describes both formats.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spoold.cli.grading import timed
from spoold.cli.grading.documents import Document, read
from spoold.cli.text import printable
from spoold.model.errors import ClientError

FILE = "problem.yaml"
LEGACY = ("legacy", "legacy-icpc")
NEWER = re.compile(r"2023-07(-draft)?|2025-09(-draft)?|draft")
TYPES = ("pass-fail", "scoring", "interactive", "multi-pass", "submit-answer")
REFUSED = {
    "multi-pass": "its programs are run several times, with input that a judge makes in between",
    "submit-answer": "submissions are answers, not programs",
}
TYPICAL = {  # limits of problemtools where a package names none
    "memory": 1024.0,
    "output": 8.0,
    "compilation_time": 60.0,
    "compilation_memory": 1024.0,
    "validation_time": 60.0,
    "validation_memory": 1024.0,
    "validation_output": 8.0,
}
KEYS = (
    *("problem_format_version", "type", "name", "uuid", "version", "author", "credits", "source", "source_url"),
    *("license", "rights_owner", "embargo_until", "limits", "keywords", "languages", "allow_file_writing"),
    *("constants", "validation", "validator_flags", "grading"),
)
OF_LIMITS = (
    *("time_limit", "time_multipliers", "time_resolution", "time_multiplier", "time_safety_margin"),
    *("code", "validation_passes", *TYPICAL),
)
MIB = 1 << 20
# Memory that a program's code and libraries take. Tools for packages count it, and spoold does not, so the limit is
# lowered by it. It is more than the 2 MiB to which a limit is exact.
OF_ITSELF = 4.0  # MiB
# An interactor's output is a program's input, which the format does not bound. Hosts permit no more by default.
TALK = 16.0  # MiB
TALKING = 5.0  # seconds on the wall clock for the validator of an interactive problem, within each case


class Limits(NamedTuple):
    """Limits of a package, in seconds and MiB; ``code`` in KiB, infinite where the package does not state it.

    ``time`` is None where submissions determine it. The limit is then the time of the slowest of these times
    ``factor``, rounded up to a multiple of ``resolution``. A submission of the package also counts as expected if its
    result is right with ``margin`` times the limit.
    """

    time: float | None
    factor: float
    margin: float
    resolution: float
    memory: float
    output: float
    compilation_time: float
    compilation_memory: float
    validation_time: float
    validation_memory: float
    validation_output: float
    code: float = math.inf

    def time_for(self, slowest: float) -> float:
        """Return the time limit that follows from the time of the slowest accepted submission."""
        return max(1, math.ceil(slowest * self.factor / self.resolution - 1e-9)) * self.resolution


class Package(NamedTuple):
    """A package. ``flags`` are the validator flags for all test data. ``has_validator``: it may have its own validator.

    ``custom_scores`` says that the validator determines the points. ``is_interactive``: the validator talks with the
    program while both run. ``languages`` are the permitted ones by the format's codes, empty where all are. ``unknown``
    names keys that neither format has.
    """

    path: Path
    is_newer: bool
    is_scoring: bool
    has_validator: bool
    custom_scores: bool
    flags: tuple[str, ...]
    limits: Limits
    constants: dict[str, str]
    grading: Document
    minimizes: bool = False
    is_interactive: bool = False
    languages: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def load(path: Path) -> Package:
    """Return a package. Raises :class:`ClientError` for a directory that is none, or that cannot be graded here."""
    document = read(str(path / FILE))
    version = document.text("problem_format_version", "legacy")
    newer = NEWER.fullmatch(version) is not None
    if not newer and version not in LEGACY:
        raise document.wrong("problem_format_version", f"{version!a} is not supported: use legacy, 2023-07 or 2025-09")
    types = set(document.words("type") or ["pass-fail"])
    validation = (document.words("validation") or ["default"]) if not newer else []
    if "interactive" in validation:
        types.add("interactive")
    for kind in sorted(types):
        if kind not in TYPES:
            raise document.wrong("type", f"{printable(kind)} is not supported. The types are: {', '.join(TYPES)}")
        if kind in REFUSED:
            raise ClientError(f"{printable(path.name)}: {kind} problems cannot be graded here: {REFUSED[kind]}")
    if validation and validation[0] not in ("default", "custom"):
        raise document.wrong("validation", "it has to begin with default or custom")
    grading = document.map("grading")
    return Package(
        path,
        newer,
        "scoring" in types,
        has_validator=newer or validation[0] == "custom",
        custom_scores=newer or "score" in validation,
        flags=tuple(document.words("validator_flags") or ()) if not newer else (),
        limits=_limits(path, document, newer=newer),
        constants=_constants(document) if newer else {},
        grading=grading,
        minimizes=grading.text("objective", "max") == "min",
        is_interactive="interactive" in types,
        languages=tuple(word for word in document.words("languages") or () if word != "all"),
        unknown=(*document.unknown(KEYS), *document.map("limits").unknown(OF_LIMITS)),
    )


def _limits(path: Path, document: Document, *, newer: bool) -> Limits:
    limits = document.map("limits")
    code = limits.number("code", math.inf, least=0.001)
    time = limits.number("time_limit", 0) or timed.beside(path, newer=newer)
    typical = {key: limits.number(key, default, least=0.001) for key, default in TYPICAL.items()}
    if newer:
        factors = limits.map("time_multipliers")
        factor = factors.number("ac_to_time_limit", 2.0, least=1)
        margin = factors.number("time_limit_to_tle", 1.5, least=1)
        resolution = limits.number("time_resolution", 1.0, least=0.001)
    else:
        resolution = 1.0
        factor = limits.number("time_multiplier", 5.0, least=1)
        margin = limits.number("time_safety_margin", 2.0, least=1)
    return Limits(time, factor, margin, resolution, **typical, code=code)


def _constants(document: Document) -> dict[str, str]:
    """Return the values of ``{{name}}`` and ``{{name.variant}}``."""
    found: dict[str, str] = {}
    constants = document.map("constants")
    for name in constants.values:
        if isinstance(constants.values[name], dict):
            inner = constants.map(name)
            found |= {f"{name}.{variant}": inner.text(variant) for variant in inner.values}
        else:
            found[f"{name}.value"] = constants.text(name)
        found[name] = found.get(f"{name}.value", "")
    return found


def inside(package: Package, path: Path) -> Path:
    """Return a path in a package. Raises :class:`ClientError` where a link leads out of it or to nothing."""
    return below(package.path, path)


def below(top: Path, path: Path) -> Path:
    """Return a path in a directory. Raises :class:`ClientError` where a link leads out of it or to nothing."""
    if not path.exists():
        raise ClientError(f"{printable(str(path))} is a link to {printable(os.readlink(path))}, which does not exist")
    if not path.resolve().is_relative_to(top.resolve()):
        raise ClientError(f"{printable(str(path))} is a link out of {printable(str(top))}: replace it with a copy")
    return path


def run_limits(package: Package, seconds: float) -> dict[str, object]:
    """Return the limits of a request that give each case ``seconds`` of CPU time."""
    limits = package.limits
    talking = {"time": 2 * seconds + TALKING} if package.is_interactive else {}
    return {
        "run": {
            "cpu_time": seconds,
            **talking,
            "memory": int(max(limits.memory - OF_ITSELF, 1) * MIB),
            "stack": int(limits.memory * MIB),
            "stdout": int(limits.output * MIB),
        },
        "compile": {
            "cpu_time": limits.compilation_time,
            "memory": int(limits.compilation_memory * MIB),
        },
    }


def checker_limits(package: Package) -> dict[str, object]:
    """Return the limits of the validator."""
    limits = package.limits
    output = max(limits.validation_output, TALK) if package.is_interactive else limits.validation_output
    return {
        "run": {
            "cpu_time": limits.validation_time,
            "memory": int(limits.validation_memory * MIB),
            "stdout": int(output * MIB),
        },
        "compile": {
            "cpu_time": limits.compilation_time,
            "memory": int(limits.compilation_memory * MIB),
        },
    }


def comparison(flags: Sequence[str], where: str) -> dict[str, object]:
    """Return the comparison rules for flags of the default validator. Raises :class:`ClientError` for other flags."""
    rules: dict[str, object] = {"like": "kattis"}
    keys = {
        "float_absolute_tolerance": ("float_absolute",),
        "float_relative_tolerance": ("float_relative",),
        "float_tolerance": ("float_absolute", "float_relative"),
    }
    words = iter(flags)
    for word in words:
        if word in ("case_sensitive", "space_change_sensitive"):
            rules[word] = True
            continue
        if word not in keys:
            raise ClientError(f"{where}: {printable(word)}: the default validator has no such flag")
        try:
            rules |= dict.fromkeys(keys[word], float(next(words, "")))
        except ValueError:
            raise ClientError(f"{where}: {word}: a number has to follow it") from None
    return rules
