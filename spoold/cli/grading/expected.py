"""A package's expectations for its submissions: by directory, and in the newer format by ``submissions.yaml``.

In the older format a directory names the result of all test data. In the newer format it names the verdicts that cases
may have (``permitted``), and those that at least one case must have (``required``). ``submissions.yaml`` adds rules for
submissions and for cases whose paths match a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spoold.cli.grading.cases import Test
from spoold.cli.grading.documents import Document, read_if_there
from spoold.cli.grading.package import Package, inside
from spoold.cli.text import printable
from spoold.model.errors import ClientError

DIRECTORY, FILE = "submissions", "submissions.yaml"
LETTERS = ("AC", "WA", "TLE", "RTE")
ACCEPTED, PARTLY = "accepted", "partially_accepted"
OLDER = {  # results; partially accepted means accepted with less than all points
    ACCEPTED: "AC",
    PARTLY: "PAC",
    "wrong_answer": "WA",
    "run_time_error": "RTE",
    "time_limit_exceeded": "TLE",
}
NEWER: Mapping[str, Mapping[str, Any]] = {
    ACCEPTED: {"permitted": ["AC"]},
    PARTLY: {},
    "rejected": {"required": ["RTE", "TLE", "WA"]},
    "wrong_answer": {"permitted": ["AC", "WA"], "required": ["WA"]},
    "time_limit_exceeded": {"permitted": ["AC", "TLE"], "required": ["TLE"]},
    "run_time_error": {"permitted": ["AC", "RTE"], "required": ["RTE"]},
    "brute_force": {"permitted": ["AC", "RTE", "TLE"], "required": ["RTE", "TLE"]},
}
TIME, LOWER = "use_for_time_limit", "lower"
OWN_KEYS = ("permitted", "required", "score", "message", TIME, "language", "entrypoint")
OTHER_KEYS = ("authors", "model_solution")
MOST_STARS = 8  # in a pattern
# Endings of the format's languages. A file with another ending is no submission, such as a README.
ENDINGS = re.compile(
    r"4th|a68|ad[bs]|apl|bash|c|c\+\+|C|cc|cl|cob|cpp|crx?|cs|cxx|d|dart|def|erl|exs?|f90|forth|frt|fsx?|fth|go|hs|java|jl|"
    r"js|kt|lisp|lua|m|ml|mod|nim|odin|pas|php|pl|pm|py[23]?|rb|rkt|rs|scala|sh|sim|sno|ss|st|swift|ts|vb|zig"
)
TIME_RULES = {LOWER: ("permitted", ("AC", "WA", "RTE")), "upper": ("required", ("TLE",))}


class Rule(NamedTuple):
    """A rule for the cases that match ``pattern``. "" matches all cases."""

    pattern: str
    permitted: tuple[str, ...]
    required: tuple[str, ...]
    score: tuple[float, float] | None
    message: str


class Submission(NamedTuple):
    """A submission of a package: its path, its name from ``submissions`` on, and its expected result.

    ``result`` is the expected result of all test data, "" if only ``rules`` apply. ``timed`` are patterns for the cases
    whose times determine the time limit. "" matches all cases.
    """

    path: Path
    name: str
    result: str
    rules: tuple[Rule, ...]
    language: str = ""
    entrypoint: str = ""
    timed: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """Return the name of the directory, which states the expected result."""
        return self.name.partition("/")[0]


def find(package: Package, *, is_older: bool, endings: Collection[str] = ()) -> tuple[list[Submission], list[str]]:
    """Return the submissions of a package, and the names of entries that are none or have no expectation.

    ``endings`` are those of the languages that are known here.
    """
    top = package.path / DIRECTORY
    said = (read_if_there(str(top / FILE)) if package.is_newer else None) or Document({}, printable(str(top / FILE)))
    found: list[Submission] = []
    left_out = _in_no_directory(top, endings)
    for path in _paths(package, top):
        name = f"{path.parent.name}/{path.name}"
        documents = _matching(said, name, is_older=is_older)
        if not documents or not _is_program(path, endings):
            left_out.append(name)
            continue
        result = OLDER.get(path.parent.name, "") if is_older or path.parent.name == PARTLY else ""
        rules = tuple(rule for document in documents for rule in _of_document(document))
        keys = {key: value for document in documents for key, value in document.values.items()}
        text = Document(keys, said.where)
        timed = tuple(pattern for document in documents for pattern in _timed(document, is_older=is_older))
        if any(document.values.get(TIME) is False for document in documents):  # it holds for the whole submission
            timed = tuple(pattern for pattern in timed if pattern)
        elif is_older and path.parent.name == ACCEPTED:
            timed = ("", *timed)
        found.append(Submission(path, name, result, rules, text.text("language"), text.text("entrypoint"), timed=timed))
    return found, left_out


def _in_no_directory(top: Path, endings: Collection[str]) -> list[str]:
    """Return the names of programs that are in no directory that states a result."""
    files = sorted(path for path in top.iterdir() if path.is_file()) if top.is_dir() else []
    return [path.name for path in files if not path.name.startswith(".") and _is_program(path, endings)]


def _paths(package: Package, top: Path) -> Iterator[Path]:
    if not top.is_dir():
        return
    for directory in sorted(top.iterdir()):
        if not directory.is_dir() or directory.name.startswith("."):
            continue
        for path in sorted(inside(package, directory).iterdir()):
            if not path.name.startswith(".") and not path.name.endswith("~") and path.name != "__pycache__":
                yield inside(package, path)


def _is_program(path: Path, endings: Collection[str]) -> bool:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return any(ENDINGS.fullmatch(file.suffix[1:]) or file.suffix[1:] in endings for file in files)


def _matching(said: Document, name: str, *, is_older: bool) -> list[Document]:
    """Return everything that is said about a submission: for its directory, and for patterns that match it."""
    directory = name.partition("/")[0]
    maps = {pattern: said.map(pattern) for pattern in said.values}
    own = maps.pop(directory, None)
    found = [document for pattern, document in maps.items() if matches(pattern, name)]
    if own is None and directory not in (OLDER if is_older else NEWER) and directory not in NEWER:
        return found
    default = {} if is_older and directory in OLDER else dict(NEWER.get(directory, {}))
    return [Document({**default, **(own.values if own else {})}, own.where if own else said.where), *found]


def _of_document(said: Document) -> Iterator[Rule]:
    yield from _rule(said, "")
    for key in _patterns(said):
        yield from _rule(said.map(key), key)


def _timed(said: Document, *, is_older: bool) -> Iterator[str]:
    """Yield patterns for the cases whose times determine the time limit.

    In the newer format these are all cases that must not take longer, unless a rule says otherwise.
    """
    maps = {"": said, **{key: said.map(key) for key in _patterns(said)}}
    for pattern, rule in maps.items():
        use = rule.values.get(TIME)
        is_bound = not is_older and use in (None, True) and "TLE" not in (rule.words("permitted") or LETTERS)
        if use == LOWER or is_bound:
            yield pattern


def _patterns(said: Document) -> list[str]:
    """Return the keys that are patterns for cases."""
    names = (*OWN_KEYS, *OTHER_KEYS)
    return [key for key, value in said.values.items() if key not in names and isinstance(value, dict)]


def _rule(said: Document, pattern: str) -> Iterator[Rule]:
    key, letters = TIME_RULES.get(said.text(TIME) if isinstance(said.values.get(TIME), str) else "", ("", ()))
    if key:
        said = Document({key: list(letters), **said.values}, said.where)
    permitted, required = (tuple(said.words(key) or LETTERS) for key in ("permitted", "required"))
    for key, letters in (("permitted", permitted), ("required", required)):
        if unknown := [letter for letter in letters if letter not in LETTERS]:
            raise said.wrong(key, f"{unknown[0]!a} is none of {', '.join(LETTERS)}")
    score = None
    if "score" in said:
        try:
            numbers = [float(word) for word in said.words("score") or ()]
            score = (numbers[0], numbers[-1])
        except (ValueError, IndexError):
            raise said.wrong("score", "it has to be one number, or two") from None
    rule = Rule(pattern, permitted, required, score, said.text("message"))
    if rule != Rule(pattern, LETTERS, LETTERS, None, ""):
        yield rule


def matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern matches a path or a directory above it. ``*`` stays within a name; ``{a,b}`` is either."""
    if pattern.count("*") > MOST_STARS:
        raise ClientError(f"{printable(pattern)}: a pattern has {MOST_STARS} '*' at most")
    words, depth = [], 0
    for character in pattern.strip("/"):
        if character == "{":
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == " " and depth:  # { a, b } is {a,b}
            continue
        special = {"*": "[^/]*", "{": "(?:", "}": ")", ",": "|" if depth else ","}
        words.append(special.get(character, re.escape(character)))
    try:
        return re.fullmatch(f"(?:{''.join(words)})(?:/.*)?", path, re.DOTALL) is not None
    except re.error:
        raise ClientError(f"{printable(pattern)}: it is not a pattern: its braces do not match") from None


def broken(
    rules: Sequence[Rule],
    tests: Sequence[Test],
    letters: Mapping[int, str],
    messages: Mapping[int, str],
    scores: Mapping[str, float],
) -> str:
    """Return the rule that does not hold, "" where all hold. ``letters`` are the verdicts of cases by their places."""
    for rule in rules:
        names = {place: test.name for place, test in enumerate(tests) if place in letters}
        places = [place for place, name in names.items() if not rule.pattern or matches(rule.pattern, name)]
        where = f" of {rule.pattern}" if rule.pattern else ""
        odd = [place for place in places if letters[place] not in rule.permitted]
        if odd:
            return f"{names[odd[0]]} is {letters[odd[0]]}, but only {', '.join(rule.permitted)} is permitted{where}"
        if not any(letters[place] in rule.required for place in places):
            return f"no case{where} is {' or '.join(rule.required)}"
        if rule.message and not any(rule.message in messages.get(place, "") for place in places):
            return f"no case{where} has the message {rule.message!a}"
        if rule.score is not None:
            score = scores.get(rule.pattern.strip("/"), scores.get("", 0.0))
            if not rule.score[0] - 1e-9 <= score <= rule.score[1] + 1e-9:
                return f"the score{where} is {score:g}, but should be from {rule.score[0]:g} to {rule.score[1]:g}"
    return ""
