"""An engine that accepts a call and never answers. The caller learns of it, and nobody waits for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import docker
import pytest

from spoold.engines.docker import connection
from spoold.engines.docker.connection import DockerConnection
from spoold.model.errors import TemporaryError
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox, lifecycle
from spoold.sandbox.lifecycle import EngineMonitor
from tests.waiting import until

PATIENCE = 0.3  # seconds for one answer
LONG = 200.0  # seconds that an engine hangs at most
CALLS: dict[str, Callable[[docker.APIClient], object]] = {
    "info": lambda api: api.info(),
    "create": lambda api: api.create_container("image"),
    "attach": lambda api: api.attach_socket("c", params={"stdin": 1, "stdout": 1, "stream": 1}),
    "start": lambda api: api.start("c"),
    "inspect": lambda api: api.inspect_container("c"),
    "remove": lambda api: api.remove_container("c", force=True),
    "list": lambda api: api.containers(all=True),
    "import an image": lambda api: api.import_image_from_data(b"tar", repository="r", tag="t"),
    "wait": lambda api: api.wait("c", timeout=1),
    "commit": lambda api: api.commit("c"),
}


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a socket on which the kernel accepts connections, and nobody answers."""
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT", PATIENCE)
    path = tmp_path_factory.mktemp("e") / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        yield path


@pytest.mark.timeout(60)  # a failure would wait for ever
@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends(address: Path, call: str) -> None:
    hangs = DockerConnection(f"unix://{address}")
    hangs._version = "1.41"  # otherwise the question for the version would hang first
    with pytest.raises(TemporaryError), hangs.client() as api:
        CALLS[call](api)


class Hanging:
    """A sandbox whose engine does not answer until ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.prepared = self.ended = 0

    def prepare(self) -> None:
        self.prepared += 1
        self.gate.wait(LONG)
        self.ended += 1

    def close(self) -> None:
        self.gate.set()


@pytest.fixture
def hanging() -> Hanging:
    return Hanging()


@pytest.fixture
def life(hanging: Hanging, runtime: Runtime) -> Iterator[EngineMonitor]:
    made = EngineMonitor(lambda _: cast(Sandbox, hanging))
    made.use(runtime)
    yield made
    hanging.gate.set()
    made.close()


def test_who_looks_for_an_engine_that_hangs_is_not_held_up(life: EngineMonitor, hanging: Hanging) -> None:
    for _ in range(5):
        life.look()
    assert not life.ready.is_set()
    assert not hanging.ended, "nobody waited for it"
    hanging.gate.set()
    assert life.ready.wait(LONG)
    assert hanging.prepared == 1


def test_many_whose_jobs_an_engine_lost_have_it_checked_once_more_for_all(
    life: EngineMonitor, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def monotonic() -> float:
        asked.append(time.monotonic())
        return asked[-1]

    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=monotonic))
    askers = [threading.Thread(target=life.check) for _ in range(8)]
    askers[0].start()
    until(lambda: hanging.prepared)
    for asker in askers[1:]:
        asker.start()
    until(lambda: len(asked) == len(askers) + 1)  # all have asked, and the first check began before that
    hanging.gate.set()
    for asker in askers:
        asker.join()
    assert hanging.prepared == 2
    assert life.ready.is_set()
