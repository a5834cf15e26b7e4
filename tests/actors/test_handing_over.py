"""Executors that only commit: health learns of their results and publishes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.actors.health import Health
from spoold.config import LeaseSettings, Settings, SpoolSettings
from spoold.loop import Loop
from spoold.model.response import Response, Status
from spoold.model.states import Role, State
from spoold.model.submission import File, Origin, Request
from spoold.spool import layout
from spoold.spool.store import Spool
from tests.names import mine, result_named
from tests.rights import assert_answer
from tests.waiting import until

NEVER = 86_400.0
OTHER = 2001  # a client
ORIGIN = Origin(uid=0, gid=0, sha256="0" * 64, arrival=1.0)


def settings(root: Path, *, remote: bool = False) -> Settings:
    layout.create(str(root))
    spool = SpoolSettings(path=str(root), published_by="health", remote=remote, remote_scan=0.1, scan=NEVER)
    return Settings(spool=spool, lease=LeaseSettings(check=NEVER))


def accept(spool: Spool, id_: str) -> None:
    spool.accept(id_, Request(files=[File(name="run.sh", content="true")]), ORIGIN)
    spool.queue.claim(mine(id_, 1, 0), State.NEW, State.RUNNING)


@contextlib.contextmanager
def turning(made: Settings) -> Iterator[None]:
    loop = Loop(made, Role.HEALTH, Health(made))
    loop.start()
    try:
        loop.started.wait()
        yield
    finally:
        loop.stop()
        loop.join()


@pytest.mark.parametrize("remote", [False, True])
def test_health_shows_what_is_committed_long_before_its_next_check(tmp_path: Path, *, remote: bool) -> None:
    made = settings(tmp_path / "spool", remote=remote)
    executor = Spool(made, "executor-a", executes=True)
    with turning(made):
        for id_ in ("a", "b"):
            accept(executor, id_)
            executor.finish(mine(id_, 1, 0), Response(status=Status.COMPLETED), ORIGIN)
            until(lambda id_=id_: (tmp_path / "spool" / "done" / f"{id_}.response.json").exists())  # type: ignore[misc] # mypy cannot infer it
        until(lambda: not list((tmp_path / "spool").glob("progress/*")))


def test_health_goes_by_the_clock_where_executors_publish(tmp_path: Path) -> None:
    layout.create(str(tmp_path / "spool"))
    assert Health(Settings(spool=SpoolSettings(path=str(tmp_path / "spool")))).watched == []


def test_a_result_that_a_loss_of_power_left_is_never_shown_in_place_of_another(tmp_path: Path) -> None:
    """The result belongs to a later attempt than the entry, because the loss of power undid a rename."""
    made = settings(tmp_path / "spool")
    executor, health = Spool(made, "executor-a", executes=True), Health(made)
    accept(executor, "a")
    left = tmp_path / "spool" / "tmp" / result_named("a", 2, 0)
    left.write_bytes(b"")
    with pytest.raises(FileExistsError, match="later attempt"):
        executor.finish(mine("a", 1, 0), Response(status=Status.COMPLETED), ORIGIN)
    assert (tmp_path / "spool" / "running" / "a@0-1.json").exists(), "it can still be given back"
    health.step()
    assert not left.exists()
    executor.finish(mine("a", 1, 0), Response(status=Status.COMPLETED), ORIGIN)
    health.step([])
    assert b"COMPLETED" in (tmp_path / "spool" / "done" / "a.response.json").read_bytes()


def test_the_response_so_far_is_left_to_health_which_shows_it(tmp_path: Path) -> None:
    made, root = settings(tmp_path / "spool"), tmp_path / "spool"
    executor, health = Spool(made, "executor-a", executes=True), Health(made)
    origin = Origin(uid=OTHER, gid=OTHER, sha256="0" * 64, arrival=1.0)
    executor.accept("a", Request(files=[File(name="run.sh", content="true")]), origin)
    executor.queue.claim(mine("a", 1, OTHER), State.NEW, State.RUNNING)
    assert list(root.glob("progress/*")) == [], "an executor shows nothing"
    executor.write_progress("a", Response(status=Status.RUNNING), origin, 1)
    health.step([])  # a commit of another entry
    assert list(root.glob("progress/*")) == []
    health.step()
    shown = root / "progress" / "a.json"
    assert b'"RUNNING"' in shown.read_bytes()
    if os.geteuid() == 0:
        assert_answer(shown, OTHER)
    executor.write_progress("a", Response(status=Status.COMPILING), origin, 1)
    executor.finish(mine("a", 1, OTHER), Response(status=Status.COMPLETED), origin)
    health.step()
    assert not shown.exists()
    assert list(root.glob("tmp/*.progress.json*")) == []


def test_what_is_left_of_an_attempt_that_was_lost_is_not_shown(tmp_path: Path) -> None:
    made, root = settings(tmp_path / "spool"), tmp_path / "spool"
    executor, health = Spool(made, "executor-a", executes=True), Health(made)
    accept(executor, "a")
    executor.write_progress("a", Response(status=Status.RUNNING), ORIGIN, 1)
    executor.queue.retry(mine("a", 1, 0), State.RUNNING)
    health.step()
    assert list(root.glob("progress/*")) == []
    assert list(root.glob("tmp/*.progress.json*")) == []
