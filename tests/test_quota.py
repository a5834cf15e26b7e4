"""A client's disk quota is full. Responses are not the client's files, so this delays nobody.

Where answers are given away, the kernel refuses this for a user whose quota is used up (EDQUOT). A client can bring
that about after their submissions are accepted. The answer then stays the daemons' own, and nobody else waits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.rights import assert_answer
from tests.test_disk_errors import RUN, Ailing, end_all, mounted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
FULL, OTHER = 64_201, 64_202
Way = Literal["acl", "owner"]


@pytest.fixture(params=["acl", "owner"])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def spool(tmp_path_factory: pytest.TempPathFactory, way: Way) -> Iterator[Ailing]:
    directory = tmp_path_factory.mktemp("quota")
    with mounted(directory):
        made = Ailing("quota", directory, way)
        made.start()
        made.until(lambda: "ready" in made.said())
        yield made
        end_all([made])
        made.stop()


def drop(spool: Ailing, id_: str, uid: int, **request: object) -> None:
    spool.drop({f".{id_}": {"files": RUN, **request}})
    private = spool.incoming / f".{id_}.json"
    os.chown(private, uid, uid)
    private.rename(spool.incoming / f"{id_}.json")


def owner(spool: Ailing, id_: str) -> tuple[int, int]:
    found = (spool.spool / "done" / f"{id_}.response.json").stat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


def test_a_client_whose_quota_is_full_keeps_nobody_waiting(spool: Ailing, way: Way) -> None:
    greedy = [f"greedy-{number}" for number in range(4)]
    for id_ in greedy:
        drop(spool, id_, FULL, inputs="nap 0.5")
    spool.until(lambda: not [name for name in os.listdir(spool.incoming) if name.startswith("greedy")])
    spool.switch.write_text(f"quota-{FULL}")
    for number in range(3):
        drop(spool, f"other-{number}", OTHER)
    drop(spool, "refused", FULL, kind="no")
    drop(spool, "late", FULL)
    others = [f"other-{number}" for number in range(3)]
    spool.until(lambda: spool.has(*greedy, "refused", "late", *others))
    if way == "acl":
        for id_, uid in (*((other, OTHER) for other in others), ("late", FULL), ("refused", FULL)):
            assert_answer(spool.spool / "done" / f"{id_}.response.json", uid)
    else:
        assert {owner(spool, id_) for id_ in others} == {(OTHER, 0o400)}
        assert {owner(spool, id_) for id_ in ("late", "refused")} == {(0, 0o400)}
        assert "Disk quota exceeded" in spool.said()
    spool.until(lambda: not spool.left())
