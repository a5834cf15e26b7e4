"""The library's types agree with spoold's.

The library doesn't import spoold, so only these tests keep both together.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_type_hints

import msgspec
import pytest

from spoold import client
from spoold.client import request, response
from spoold.model import limits, outputs, submission
from spoold.model import response as model
from spoold.model.compare.excerpts import Difference
from spoold.model.dropped import read_request
from tests.engines import REPOSITORY

READ = [
    (response.Response, model.Response),
    (response.Phase, model.Phase),
    (response.Case, model.CaseResult),
    (response.Summary, model.Summary),
    (response.Score, model.Score),
    (response.ReturnedFile, model.ReturnedFile),
    (response.Tar, model.OutputsTar),
    (response.WaitingFor, model.WaitingFor),
    (response.Package, model.Package),
    (response.Difference, Difference),
]
ASKED = [
    (request.Request, submission.Request),
    (request.File, submission.File),
    (request.Limits, limits.RequestedLimits),
    (request.LimitsOfPhases, submission.LimitRequests),
    (request.Output, outputs.Output),
]


@pytest.mark.parametrize(("ours", "theirs"), READ)
def test_every_key_of_a_response_is_known(ours: type[msgspec.Struct], theirs: type[msgspec.Struct]) -> None:
    missing = set(theirs.__struct_encode_fields__) - set(ours.__struct_encode_fields__)
    assert not missing


@pytest.mark.parametrize(("ours", "theirs"), ASKED)
def test_every_key_of_a_request_is_known(ours: Any, theirs: type[msgspec.Struct]) -> None:
    assert set(get_type_hints(ours)) == set(theirs.__struct_encode_fields__)


def test_a_request_is_what_the_daemon_reads() -> None:
    made = client.program(
        {"run.sh": "true", "cutor.nix": client.packages(["python3", "python3Packages.numpy", "7zz"]), "d": b"\xff"},
        b"\xfe",
        args=["a"],
        env={"A": "b"},
        limits={"run": {"time": 2, "memory": 1 << 26}},
        outputs=[{"path": "*.png", "required": True}],
        priority=3,
        progress=True,
    )
    read = read_request(request.as_bytes(made), max_files=10, pins=frozenset({"default"}))
    assert (read.stdin(), read.args, read.env, read.priority) == (b"\xfe", ["a"], {"A": "b"}, 3)
    assert 'buildInputs = [ pkgs.python3 pkgs.python3Packages.numpy pkgs."7zz" ]' in read.expression()
    assert read.files[2].data("d") == b"\xff"
    for bad in ("a b", "", "a..b", "${x}", 'a"b', "x;y"):
        with pytest.raises(client.RequestError, match="no package"):
            client.packages([bad])


def test_a_key_that_a_later_version_adds_is_ignored_and_a_word_is_taken() -> None:
    data = b'{"Submission_id": "a", "status": "PAUSED", "novelty": {"a": 1}, "run": {"outcome": "tired", "extra": 1}}'
    found = response.read(data)
    assert (found.id, found.status, found.run.outcome, found.ok) == ("a", "PAUSED", "tired", False)


def test_a_text_that_is_not_the_base64_that_it_says_is_an_error() -> None:
    with pytest.raises(client.AnswerError, match="base64"):
        _ = response.Phase(stdout="!", stdout_encoding="base64").stdout_data


def test_all_names_are_there() -> None:
    assert sorted(client._WHERE) == sorted(client.__all__)
    for name in client.__all__:
        assert getattr(client, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = getattr(client, "nothing")  # noqa: B009 - mypy doesn't know it either


def test_little_is_imported() -> None:
    """It imports only msgspec, and nothing of spoold. asyncio and subprocess are imported only where they are used."""
    code = (
        "import sys; before = set(sys.modules); from spoold.client import Spool; Spool('/x')\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('spoold.') and '.client' not in name))\n"
        "print(*sorted({'asyncio', 'subprocess', 'tarfile'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    third, own, heavy = done.stdout.split("\n")[:3]
    assert (set(third.split()) - {"typing_extensions"}, own, heavy) == ({"msgspec", "spoold"}, "", "")
