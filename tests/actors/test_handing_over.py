"""Executors that only commit: health learns of their results and publishes them."""

from __future__ import annotations

import contextlib
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
from tests.waiting import until

NEVER = 86_400.0
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
            until(lambda id_=id_: (tmp_path / "spool" / "done" / f"{id_}.response.json").exists())  # type: ignore[misc]
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
