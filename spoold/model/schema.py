"""JSON Schemas of what clients write and read, made from the types: for editors, and for clients in other languages.

See https://json-schema.org/draft/2020-12. The request's schema describes what the spec describes. Daemons also take
what encoders make of a request (spec, "What encoders make of it"), and refuse what no schema can say, such as two names
for one file. The response's schema lets keys be added, since a client ignores keys that it does not know.

``VERSIONS`` has the numbers of the two schemas. Each change of a schema gets a new number, see
tests/model/test_schema.py.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from spoold.model.response import Response
from spoold.model.submission import Checker, Interactor, Request

Name = Literal["request", "response"]
VERSIONS: dict[Name, int] = {"request": 5, "response": 4}
KINDS: dict[Name, type[msgspec.Struct]] = {"request": Request, "response": Response}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL = {"type": "null"}
# All but a request for a build have a script to run, and a request for a list of packages has no files.
_RUN = {"type": "object", "required": ["name"], "properties": {"name": {"pattern": r"^(\./)*run\.sh$"}}}
_RUNS = {"required": ["files"], "properties": {"files": {"type": "array", "contains": _RUN}}}
_LIST, _BUILD = (
    {"required": ["kind"], "properties": {"kind": {"const": kind}}} for kind in ("list-dependencies", "build")
)
_BY_KIND = {
    "if": _LIST,
    "then": {"properties": {"files": {"maxItems": 0}}},
    "else": {"if": _BUILD, "else": _RUNS},
}
# Only a directory, whose name ends with a slash, has no content.
_WITH_CONTENT = {
    "if": {"properties": {"name": {"not": {"pattern": "/$"}}}},
    "then": {"required": ["content"], "properties": {"content": {"type": "string"}}},
}
ALWAYS = ["Submission_id", "status", "dependencies", "compile", "run"]


def schema(name: Name) -> dict[str, Any]:
    """Return the schema of that name, as an object of JSON."""
    (_,), parts = msgspec.json.schema_components((KINDS[name],), ref_template="#/$defs/{name}")
    parts = _for_all_languages(parts)
    whole = parts.pop(KINDS[name].__name__)
    for part in (whole, *parts.values()):
        part["description"] = _plain(part.get("description", ""))
        if name == "request":
            _close(part)
    if name == "request":
        whole |= _BY_KIND
        parts["File"] |= _WITH_CONTENT
        for grader in (Checker, Interactor):
            parts[grader.__name__]["allOf"] = [_RUNS]
    else:
        whole["required"] = ALWAYS
    return {
        "$schema": DIALECT,
        "$id": f"urn:spoold:{name}:{VERSIONS[name]}",
        **whole,
        "$defs": parts,
    }


def _close(part: dict[str, Any]) -> None:
    """Allow no other keys than these. Allow null for each key that is not required, and for a variable of env."""
    part["additionalProperties"] = False
    for key, value in part["properties"].items():
        if isinstance(others := value.get("additionalProperties"), dict):
            value["additionalProperties"] = {"anyOf": [others, NULL]}
        if key not in part.get("required", ()) and NULL not in value.get("anyOf", ()):
            default = {"default": value.pop("default")} if "default" in value else {}
            part["properties"][key] = {"anyOf": [value, NULL], **default}


def _for_all_languages(value: Any) -> Any:
    """Return the schema with patterns as ECMA-262 writes them, which the standard asks for."""
    if isinstance(value, dict):
        return {
            key: each.replace("\\A", "^").replace("\\Z", "$")
            if key == "pattern" and isinstance(each, str)
            else _for_all_languages(each)
            for key, each in value.items()
        }
    return [_for_all_languages(each) for each in value] if isinstance(value, list) else value


def _plain(docstring: str) -> str:
    return " ".join(docstring.split("\n\n", maxsplit=1)[0].replace("``", "").split())
