"""Checks what a request asks for by its cases, and says to the client what is not allowed.

Spec: spool-layout.md, "Cases" and "Bounds".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from spoold.model.arguments import MAX_ENTRIES, check_total, size_of_args, size_of_env
from spoold.model.asked_paths import check_outputs
from spoold.model.cases import Case, Expected
from spoold.model.compare.rules import Compare, rules_for
from spoold.model.encodings import decode
from spoold.model.errors import ClientError
from spoold.model.limits import RequestedLimits
from spoold.model.outputs import Output
from spoold.model.submission import Request
from spoold.model.words import shown

MAX_CASES = 1024
MAX_NAME = 100  # characters of the name of a case or a group
MAX_IN_ALL = 4 * MAX_ENTRIES  # entries of args in all cases together, and of env
MAX_PATTERNS = MAX_ENTRIES  # entries of outputs in all cases together
KINDS = (Case, Expected, Compare, RequestedLimits)
# The most keys and values that all cases can have together.
STRINGS_OF_CASES = (
    MAX_ENTRIES
    + MAX_CASES * 2 * sum(len(kind.__struct_fields__) for kind in KINDS)
    + 3 * MAX_IN_ALL
    + MAX_PATTERNS * 2 * len(Output.__struct_fields__)
)


def check_cases(request: Request) -> None:
    """Raise :class:`ClientError` where the cases of a request are not allowed. Its text names the key."""
    if not request.cases:
        _require_no_other_key(request)
        return
    if request.kind != "run":
        raise ClientError(f"cases: a {request.kind} request has none")
    if len(request.cases) > MAX_CASES:
        raise ClientError(f"cases: {len(request.cases)} cases are more than the {MAX_CASES} that are allowed")
    names: dict[str, int] = {}
    # Counted once, since each of many cases may have them.
    args, env = size_of_args(request.args), size_of_env(request.env)
    for index, case in enumerate(request.cases):
        where = f"cases[{index}]"
        _check_word(case.name, f"{where}.name")
        if not case.name:
            raise ClientError(f"{where}.name: is empty: give the case a name")
        if case.name in names:
            raise ClientError(f"{where}.name: {shown(case.name)} is the name of cases[{names[case.name]}] too")
        names[case.name] = index
        _check_word(case.group, f"{where}.group")
        _check_content(case, where)
        _check_outputs(case, where)
        check_total(
            args if case.args is None else size_of_args(case.args, f"{where}."),
            env + size_of_env(case.env, f"{where}.", request.env),
            f"{where}.",
        )
    for key, most in (("args", MAX_IN_ALL), ("env", MAX_IN_ALL), ("outputs", MAX_PATTERNS)):
        _bound(key, most, (getattr(case, key) or () for case in request.cases))
    if request.grader:
        _require_nothing_to_compare(request, request.grader.KIND)
    if request.compare:
        rules_for(request.compare)


def _require_nothing_to_compare(request: Request, kind: str) -> None:
    asked = ["compare"] if request.compare else []
    asked += [f"cases[{index}].compare" for index, case in enumerate(request.cases) if case.compare]
    if asked:
        raise ClientError(f"{asked[0]}: the {kind} decides what is right: leave out one of the two")


def _require_no_other_key(request: Request) -> None:
    for key in ("compare", "stop_on_failure", "checker", "interactor"):
        if getattr(request, key):
            raise ClientError(f"{key}: there are no cases to judge: leave it out")


def _check_word(text: str, where: str) -> None:
    if len(text) > MAX_NAME:
        raise ClientError(f"{where}: {shown(text)} has more than {MAX_NAME} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise ClientError(f"{where}: {shown(text)}: control characters are not allowed")


def _check_content(case: Case, where: str) -> None:
    decode(case.inputs or "", case.inputs_encoding, f"{where}.inputs ({shown(case.name)})")
    if case.expected:
        case.expected.printed(f"{where}.expected.stdout ({shown(case.name)})")
    if case.compare:
        rules_for(case.compare, f"{where}.compare")


def _check_outputs(case: Case, where: str) -> None:
    check_outputs(case.outputs or [], f"{where}.")
    if case.outputs and case.hidden:
        raise ClientError(f"{where}.outputs: no files of a hidden case come back: leave out one of the two")


def _bound(key: str, most: int, parts: Iterable[object]) -> None:
    many = sum(map(len, parts))  # type: ignore[arg-type]
    if many > most:
        raise ClientError(f"cases: {many} entries of {key} in all of them are more than {most}")
