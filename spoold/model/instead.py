"""Examples of what to write where a request has a value of the wrong kind, such as a text in place of an object.

``lenient`` ends its reasons with these words. People who write a request by hand, or know the requests of another
service, give a text for an object, one value for a list, or a number in quotes.
"""

from __future__ import annotations

import json
import re
from typing import Any

FILE = '{"name": "run.sh", "content": "echo hello"}'
CASE = r'{"name": "1", "inputs": "20 22\n", "expected": {"stdout": "42\n"}}'
BYTES = "67108864, in bytes"
SECONDS = "2, in seconds"
# By the end of a path without numbers and names. A longer one counts before a shorter one.
EXAMPLES = {
    "files": f"[{FILE}]",
    "files[]": FILE,
    "args": '["20", "22"]',
    "env": '{"NAME": "value"}',
    "limits": '{"run": {"time": 2}}',
    "cases[].limits": '{"time": 2}',
    "run": '{"time": 2}',
    "compile": '{"time": 2}',
    "dependencies": '{"time": 600}',
    "time": SECONDS,
    "cpu_time": SECONDS,
    "memory": BYTES,
    "file_size": BYTES,
    "stack": BYTES,
    "stdout": BYTES,
    "stderr": BYTES,
    "inputs": r'"20 22\n"',
    "content": r'"line 1\nline 2\n"',
    "outputs": '[{"path": "*.png"}]',
    "outputs[]": '{"path": "*.png"}',
    "cases": f"[{CASE}]",
    "cases[]": CASE,
    "expected": r'{"stdout": "42\n"}',
    "expected.stdout": r'"42\n"',
    "compare": '{"by": "tokens"}',
    "checker": f'{{"files": [{FILE}]}}',
    "interactor": f'{{"files": [{FILE}]}}',
}
# A path has the name of a file or a case behind the key, as in: cases[0].expected ('a').stdout
NAME = re.compile(r""" \((?:'[^']*'|"[^"]*")\)""")
PLACE = re.compile(r"""\[(?:\d+|'[^']*'|"[^"]*")\]""")
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
LONGEST = 20  # characters of a value that is written out


def instead(value: Any, wanted: str, path: str) -> str:
    """Return a sentence that says what to write for a ``value`` that is not what is ``wanted`` at ``path``, or ""."""
    said = _same(value, wanted) or _example(path)
    return f". Write {said}" if said else ""


def _same(value: Any, wanted: str) -> str:
    """Return the value itself in the right form, where that is only a matter of quotes."""
    if isinstance(value, str):
        plain = value.strip().lower()
        fits = plain in ("true", "false") if wanted.startswith("true") else NUMBER.fullmatch(plain)
        return f"{plain}, without quotes" if fits and ("number" in wanted or wanted.startswith("true")) else ""
    if wanted == "a text" and isinstance(value, bool | int | float):
        text = json.dumps(value)
        return f'"{text}", in quotes' if len(text) <= LONGEST else ""
    return ""


def _example(path: str) -> str:
    parts = PLACE.sub("[]", NAME.sub("", path)).split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((f"{EXAMPLES[end]}, for example" for end in ends if end in EXAMPLES), "")
