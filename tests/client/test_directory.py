"""The client library over a directory: how it drops, which answers it takes, how many are on their way at once."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spoold import client
from spoold.client import names, watch
from spoold.client.address import DEFAULT
from spoold.client.directory import Directory
from spoold.config import Settings
from spoold.model import ids
from tests.actors.bench import Bench
from tests.rights import in_child


@pytest.fixture
def spool(bench: Bench) -> Iterator[client.Spool]:
    with client.Spool(bench.root) as made:
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return a spool in which nobody works."""
    for name in ("incoming", "done", "progress"):
        (tmp_path / name).mkdir()
    return tmp_path


def hello(word: object = "hello", **options: Any) -> client.Request:
    return client.program({"run.sh": f"echo {word}"}, **options)


def test_submit_and_wait(spool: client.Spool) -> None:
    submission = spool.submit(hello(), stem="my hello")
    assert submission.id.startswith("my-hello-")
    response = spool.wait(submission)
    assert (response.ok, response.status, response.run.stdout_data) == (True, "COMPLETED", b"hello\n")
    assert (response.id, response.run.exit_code) == (submission.id, 0)
    assert submission.response is response
    assert json.loads(submission.raw)["run"]["stdout"] == "hello\n"
    assert spool.wait(submission.id) == response, "by its id as well"
    assert spool.status(submission.id) == response


def test_nobody_waits_for_an_id_where_there_is_no_spool(tmp_path: Path) -> None:
    with client.Spool(tmp_path / "none") as spool:
        for ask in (spool.wait, spool.outputs, spool.cancel):
            with pytest.raises(client.NoSpoolError, match="holds no spool"):
                ask("x")

    async def wait() -> None:
        async with client.AsyncSpool(tmp_path / "none") as spool:
            await spool.wait("x")

    with pytest.raises(client.NoSpoolError, match="holds no spool"):
        asyncio.run(wait())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_spool_that_is_closed_to_a_user_is_called_so(empty: Path) -> None:
    os.chmod(empty, 0o700)

    def ask() -> str:
        with pytest.raises(client.NoSpoolError) as caught:
            Directory(str(empty)).require()
        return str(caught.value)

    assert in_child(ask, 65534).startswith(f"{empty} is closed to this user: ask its operator")


def test_a_place_that_cannot_be_a_spool_is_none(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "loop", tmp_path / ("a" * 300), "a\0b"):
        with pytest.raises(client.NoSpoolError, match="holds no spool"):
            Directory(str(place)).require()


def test_what_a_program_reads_and_gets(spool: client.Spool) -> None:
    files: dict[str, str | bytes] = {"run.sh": 'cat; cat data; echo "$1$WHO"', "data": b"\x00\xff"}
    response = spool.wait(spool.submit(client.program(files, b"\xfe", args=["a"], env={"WHO": "me"})))
    assert response.run.stdout_data == b"\xfe\x00\xffame\n"


def test_a_program_that_fails_is_no_exception_and_nor_is_a_refusal(spool: client.Spool) -> None:
    failed = spool.wait(spool.submit(client.program({"run.sh": "exit 3"})))
    assert (failed.ok, failed.status, failed.run.exit_code) == (False, "RUN_FAILED", 3)
    refused = spool.wait(spool.submit({"files": []}))
    assert refused.status == "REJECTED"
    assert "run.sh" in str(refused.reason)


def test_results_come_in_the_order_of_the_requests(spool: client.Spool) -> None:
    responses = spool.map((hello(number) for number in range(20)), bound=4)
    assert [response.run.stdout for response in responses] == [f"{number}\n" for number in range(20)]


def test_no_more_than_the_bound_are_on_their_way(bench: Bench, spool: client.Spool) -> None:
    """Nothing runs until the gate opens. So only ``bound`` requests are taken from the source until then."""
    bench.sandbox.gate.clear()
    taken: list[int] = []

    def source() -> Iterator[client.Request]:
        for number in range(9):
            taken.append(number)
            yield hello(number)

    with ThreadPoolExecutor(1) as pool:
        mapped = pool.submit(lambda: [each.run.stdout for each in spool.map(source(), bound=3)])
        bench.until(lambda: len(bench.names("running")) == 2 and len(taken) >= 3, lambda: None)
        assert taken == [0, 1, 2]
        bench.sandbox.gate.set()
        assert mapped.result() == [f"{number}\n" for number in range(9)]


def test_results_that_wait_for_their_turn_are_bounded_too(empty: Path) -> None:
    """The first submission never ends. Later results are kept until it ends, up to a bound."""
    taken: list[str] = []
    looks: list[int] = []

    class Answers(Directory):
        def answers(self, wanted: Any, _: float) -> dict[str, bytes]:
            looks.append(len(taken))
            if looks.count(8) > 12:  # nothing more has been taken since
                raise ZeroDivisionError
            return {name: b'{"status": "COMPLETED"}' for name in wanted if "first" not in name and "@" not in name}

        def is_dropped(self, _: str) -> bool:
            return False

        def drop(self, id_: str, data: bytes) -> Any:
            taken.append(id_)
            return super().drop("first" if len(taken) == 1 else id_, data)

    spool = client.Spool(empty)
    spool.transport = Answers(str(empty))
    with pytest.raises(ZeroDivisionError):
        list(spool.map((hello(number) for number in itertools.count()), bound=2))
    assert len(taken) == 2 * 4


def test_as_completed_yields_those_that_are_done_first(bench: Bench, spool: client.Spool) -> None:
    slow = spool.submit(client.program({"run.sh": f"while [ ! -e {bench.root}/go ]; do sleep 0.02; done"}))
    quick = spool.submit(hello())
    order = spool.as_completed([slow, quick])
    assert next(order) is quick
    assert not slow.done
    (bench.root / "go").touch()
    assert next(order) is slow
    assert next(order, None) is None
    (bench.root / "go").unlink()


def test_a_wait_is_bounded_and_can_be_repeated(bench: Bench, spool: client.Spool) -> None:
    bench.sandbox.gate.clear()
    submission = spool.submit(hello())
    with pytest.raises(client.TimedOutError, match="not lost") as caught:
        spool.wait(submission, 0.05)
    assert isinstance(caught.value, TimeoutError)
    assert submission.id in str(caught.value)
    bench.sandbox.gate.set()
    assert spool.wait(submission).ok


def test_it_is_cancelled(bench: Bench, spool: client.Spool) -> None:
    bench.sandbox.gate.clear()
    submission = spool.submit(hello())
    spool.cancel(submission)
    assert spool.wait(submission).status == "CANCELLED"
    spool.cancel("nobody-has-this")


def test_the_same_request_with_the_same_id_is_run_once(bench: Bench, spool: client.Spool) -> None:
    """A program that was killed submits everything again."""
    first = spool.wait(spool.submit(hello(), id="chosen"))
    assert spool.wait(spool.submit(hello(), id="chosen")) == first
    assert len(bench.sandbox.jobs) == 1
    bench.until(lambda: not bench.names("incoming"), lambda: None)
    other = spool.wait(spool.submit(hello("other"), id="chosen"))
    assert (other.status, "used already" in str(other.reason)) == ("REJECTED", True)


def test_a_client_that_is_killed_as_soon_as_its_file_lies_there_is_answered(bench: Bench, spool: client.Spool) -> None:
    """The file has a second name then, which the dead client cannot remove.

    Such files are refused, so its own has only one.
    """
    program = """
import os, signal, sys
from spoold.client.directory import Directory
os.unlink = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Directory(sys.argv[1]).drop("killed", sys.stdin.buffer.read())
"""
    request = json.dumps({"files": [{"name": "run.sh", "content": "echo hello"}]}).encode()
    subprocess.run([sys.executable, "-c", program, bench.root], input=request, check=False)
    response = spool.wait(spool.submit(request, id="killed"))
    assert (response.status, response.run.stdout) == ("COMPLETED", "hello\n")
    bench.until(lambda: not bench.names("incoming"), lambda: None)


def test_what_is_unknown_is_none(spool: client.Spool) -> None:
    assert spool.status("nobody") is None
    for bad in ("../x", "a b", "x.response", "-x"):
        for ask in (spool.wait, spool.cancel):
            with pytest.raises(client.RequestError, match="cannot be an id"):
                ask(bad)
        with pytest.raises(client.RequestError, match="for example"):
            spool.submit(hello(), id=bad)


def test_there_is_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(client.UnreachableError, match="holds no spool"):
        client.Spool(tmp_path).submit(hello())
    assert Settings().spool.path == DEFAULT
    monkeypatch.setenv("SPOOLD_SPOOL", "/srv/spool")
    assert client.Spool().where == "/srv/spool"


def test_what_is_no_text_is_said(empty: Path) -> None:
    with pytest.raises(client.RequestError, match="UTF-8"):
        client.Spool(empty).submit(hello(args=["\udcff"]))
    with pytest.raises(client.RequestError, match="not valid JSON"):
        client.Spool(empty).submit({"files": [{"name": "run.sh", "content": object()}]})
    assert os.listdir(empty / "incoming") == []


def test_threads_may_share_one(spool: client.Spool) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda number: spool.wait(spool.submit(hello(number))).run.stdout, range(16))
        assert list(found) == [f"{number}\n" for number in range(16)]


# -- which answers are this client's


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_answer_that_says_of_another_request_is_an_error(empty: Path) -> None:
    """Retention may have removed the refusal meanwhile."""
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="x")
    response = empty / "done" / "x.response.json"
    response.write_text(json.dumps({"Submission_id": "x", "request_sha256": "0" * 64, "status": "COMPLETED"}))
    with pytest.raises(client.TimedOutError):
        spool.wait(submission, 0.05)  # our file still lies there
    (empty / "incoming" / "x.json").unlink()
    with pytest.raises(client.AnswerError, match="answers another request"):
        spool.wait(submission, 0.05)


@pytest.mark.parametrize("own", [{"request_sha256": sha256(b"{}")}, {}], ids=["ours", "not all bytes were read"])
def test_an_answer_to_ours_is_taken(empty: Path, own: dict[str, str]) -> None:
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="x")
    (empty / "done" / "x.response.json").write_text(json.dumps({"Submission_id": "x", **own, "status": "COMPLETED"}))
    (empty / "incoming" / "x.json").unlink()
    assert spool.wait(submission, 60).ok


def test_an_answer_without_a_digest_is_not_ours_while_ours_lies_there(empty: Path) -> None:
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="x")
    (empty / "done" / "x.response.json").write_text('{"status": "COMPLETED"}')
    with pytest.raises(client.TimedOutError):
        spool.wait(submission, 0.05)


def test_a_refusal_that_is_seen_late_is_found(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS a client may remember that the refusal does not exist, and see another request's response."""
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="x")
    (empty / "incoming" / "x.json").unlink()
    (empty / "done" / "x.response.json").write_text(json.dumps({"request_sha256": "0" * 64, "status": "COMPLETED"}))
    refusal = empty / "done" / names.refusal_name("x", os.geteuid(), sha256(b"{}"))
    refused = json.dumps({"request_sha256": sha256(b"{}"), "status": "REJECTED"})
    assert spool.wait(submission, 60, meanwhile=lambda: refusal.write_text(refused)).status == "REJECTED"
    monkeypatch.setattr(watch, "LATE", 0.0)
    refusal.unlink()
    with pytest.raises(client.AnswerError, match="answers another"):
        spool.wait(client.Submission("x", submission.dropped))


def test_a_refusal_of_somebody_else_is_not_ours(empty: Path) -> None:
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="x")
    refusal = empty / "done" / names.refusal_name("x", os.geteuid(), sha256(b"{}"))
    for other in ({"request_sha256": "0" * 64}, {"uid": os.geteuid() + 1}):
        refusal.write_text(json.dumps({"status": "REJECTED", **other}))
        with pytest.raises(client.TimedOutError):
            spool.wait(submission, 0.05)


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b'{"status": 7}', b'{"run": {"stdout": 3}}', b"\xff", b"[" * 100_000],
    ids=["cut", "a list", "a number", "a wrong type", "no text", "deep"],
)
def test_an_answer_that_is_none_is_an_error(empty: Path, data: bytes) -> None:
    (empty / "done" / "x.response.json").write_bytes(data)
    with pytest.raises(client.AnswerError, match="no response that this version can read"):
        client.Spool(empty).wait("x", 60)


def test_an_answer_that_is_too_large_is_not_read(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.client.directory.MOST", 100)
    (empty / "done" / "x.response.json").write_text(json.dumps({"status": "COMPLETED", "reason": "x" * 100}))
    with pytest.raises(client.AnswerError, match="larger than any"):
        client.Spool(empty).status("x")
    with pytest.raises(client.AnswerError, match="larger than any"):
        client.Spool(empty).wait("x", 60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make files of others")
def test_nobody_can_take_the_names_that_a_client_needs(empty: Path) -> None:
    """Another user holds the usual names. The client must not write into their files, or follow their link."""
    incoming = empty / "incoming"
    usual = incoming / "a.json", incoming / "a.cancel"
    for path in usual:
        path.touch()
        os.chown(path, 65534, 65534)
        path.chmod(0o666)
    spool = client.Spool(empty)
    submission = spool.submit(b"{}", id="a")
    spool.cancel("a")
    assert [path.read_bytes() for path in usual] == [b"", b""]
    made = {path.suffix: path for path in incoming.iterdir() if path not in usual}
    assert [path.read_bytes() for path in (made[".json"], made[".cancel"])] == [b"{}", b"a\n"]
    assert (ids.submission_id(made[".json"].name), ids.cancelled_id(made[".cancel"].name)) == ("a", "a")
    assert submission.file == made[".json"].name


@pytest.mark.parametrize("has_nameless_files", [True, False])
def test_a_cancel_is_there_whole_or_not_at_all(
    empty: Path, monkeypatch: pytest.MonkeyPatch, has_nameless_files: bool
) -> None:
    """An empty cancel has no effect and is removed. A client that stalls before the write must not leave one."""
    if not has_nameless_files:
        monkeypatch.setattr("spoold.client.directory.NAMELESS", os.O_WRONLY)

    def stops(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", stops)
        with pytest.raises(ZeroDivisionError):
            client.Spool(empty).cancel("a")
    assert [path for path in (empty / "incoming").iterdir() if path.suffix == ".cancel"] == []
    client.Spool(empty).cancel("a")
    (cancel,) = (empty / "incoming").iterdir()
    assert (cancel.read_bytes(), cancel.stat().st_nlink) == (b"a\n", 1)


def test_an_id_that_lies_in_the_drop_box_is_not_replaced(empty: Path) -> None:
    spool = client.Spool(empty)
    spool.submit(b"1", id="a")
    with pytest.raises(client.RequestError, match="already"):
        spool.submit(b"2", id="a")
    assert os.listdir(empty / "incoming") == ["a.json"]
    assert (empty / "incoming" / "a.json").read_bytes() == b"1"


def test_an_id_that_is_made_up_is_nobodys_by_its_beginning() -> None:
    """That number may be our uid on another host."""
    assert names.new_id("2024.exam").startswith("2024-exam-")
    assert names.new_id("ex.2024").startswith("ex.2024-")


# -- asyncio


def test_the_same_with_coroutines(bench: Bench) -> None:
    before = threading.active_count()

    async def use() -> None:
        async with client.AsyncSpool(bench.root) as spool:
            submission = await spool.submit(hello())
            assert (await spool.wait(submission)).run.stdout == "hello\n"
            assert (await spool.wait(submission.id)).ok
            assert (await spool.status(submission.id)) == submission.response
            found = [each.run.stdout async for each in spool.map((hello(number) for number in range(9)), bound=3)]
            assert found == [f"{number}\n" for number in range(9)]
            many = [await spool.submit(hello(number)) for number in range(5)]
            assert {each async for each in spool.as_completed(many)} == set(many)
            bench.sandbox.gate.clear()
            held = await spool.submit(hello())
            with pytest.raises(client.TimedOutError, match="not lost"):
                await spool.wait(held, 0.05)
            with pytest.raises(client.TimedOutError):
                _ = [each async for each in spool.as_completed([held], timeout=0.05)]
            waiting = asyncio.create_task(spool.wait(held))
            await spool.cancel(held)
            assert (await waiting).status == "CANCELLED"
            assert await spool.outputs(held) == {}
            assert await spool.save(held, bench.root / "saved") == []
            never = asyncio.create_task(spool.wait("nobody-has-this"))
            await asyncio.sleep(0)
            never.cancel()
            with pytest.raises(asyncio.CancelledError):
                await never
            with pytest.raises(client.TimedOutError):
                await spool.wait("nobody-has-this", 0.01)

    asyncio.run(use())
    assert threading.active_count() < before + 20  # other tests may have left some


def test_coroutines_are_told_that_there_is_no_spool(tmp_path: Path) -> None:
    async def use() -> None:
        async with client.AsyncSpool("ssh://-oProxyCommand=x/y") as spool:
            await spool.status("x")

    with pytest.raises(client.UnreachableError, match="not the address of a spool"):
        asyncio.run(use())
