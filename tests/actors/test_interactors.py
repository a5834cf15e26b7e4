"""Submissions whose programs talk with an interactor, from the dropped file to the response, on stand-ins."""

from __future__ import annotations

from typing import Any

import pytest

from tests.actors.bench import Bench

TALK = """
read -r secret <"$1"; read -r most <"$2"
while [ $((most -= 1)) -ge 0 ] && read -r number; do
    if [ "$number" = "$secret" ]; then echo right; exit 42; fi
    echo "$4"
done
echo "it did not find $secret" >"$3/judgemessage.txt"
exit 43
"""
COUNTS = 'for n in 1 2 3 4 5; do echo $n; read -r answer || exit 9; if [ "$answer" = right ]; then exit 0; fi; done'


def cases(*secrets: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": each, "inputs": f"{each}\n", "expected": {"stdout": "4\n"}, **more} for each in secrets]


def interactor(script: str = TALK, expression: str = "", **more: Any) -> dict[str, Any]:
    files = [{"name": "run.sh", "content": script}]
    if expression:
        files.append({"name": "cutor.nix", "content": expression})
    return {"files": files, "args": ["wrong"], **more}


def test_an_interactor_says_what_came_of_a_talk(bench: Bench) -> None:
    wanted = [*cases("3", "5"), *cases("2", "9", hidden=True)]
    bench.drop("x", COUNTS, cases=wanted, interactor=interactor(expression="other"))
    bench.wait_for("x")
    response = bench.response("x")
    assert response["summary"]["verdict"] == "wrong_answer"
    found = response["cases"]
    assert [case["verdict"] for case in found] == ["accepted", "wrong_answer", "accepted", "wrong_answer"]
    assert found[0]["interaction"].startswith(">1\n")
    assert (found[0]["run"]["stdout"], found[1]["message"]) == ("1\n2\n3\n", "it did not find 5")
    assert [("interaction" in case, "message" in case) for case in found[2:]] == [(False, False)] * 2


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        (interactor("exit 1"), "interactor: it ended with 1"),
        (interactor("kill -SEGV $$"), "interactor: it ended with signalled"),
        (interactor(expression="broken"), "interactor: its dependencies cannot be installed"),
    ],
)
def test_no_failure_of_an_interactor_is_the_programs(bench: Bench, grader: dict[str, Any], words: str) -> None:
    bench.drop("x", COUNTS, cases=cases("3"), interactor=grader)
    bench.wait_for("x")
    response = bench.response("x")
    assert response["status"] == "COMPLETED"
    assert [(case["verdict"], case["message"].startswith(words)) for case in response["cases"]] == [
        ("judge_error", True)
    ]


def test_the_exit_codes_of_testlib_are_known(bench: Bench) -> None:
    script = 'cat >"$2"; [ "$(cat "$2")" = "$(cat "$1")" ] && exit 0; echo "wrong answer" >&2; exit 1'
    grader = interactor(script, protocol="testlib")
    bench.drop("x", "echo 3", cases=cases("3", "4"), interactor=grader)
    bench.wait_for("x")
    found = bench.response("x")["cases"]
    assert [(case["verdict"], case.get("message")) for case in found] == [
        ("accepted", None),
        ("wrong_answer", "wrong answer"),
    ]
