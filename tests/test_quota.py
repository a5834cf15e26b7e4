"""A client whose disk quota is full: he gets an answer that he cannot read, and keeps nobody else waiting.

With quotas the kernel refuses to give a file (EDQUOT) to whoever has as much as he may, which a client can bring about
himself, once his submissions are accepted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from tests.test_disk_errors import RUN, Ailing, end_all, mounted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
FULL, OTHER = 64_201, 64_202


@pytest.fixture
def spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ailing]:
    directory = tmp_path_factory.mktemp("quota")
    with mounted(directory):
        made = Ailing("quota", directory)
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


def test_a_client_whose_quota_is_full_keeps_nobody_waiting(spool: Ailing) -> None:
    greedy = [f"greedy-{number}" for number in range(4)]
    for id_ in greedy:
        drop(spool, id_, FULL, inputs="nap 0.5")
    spool.until(lambda: not [name for name in os.listdir(spool.incoming) if name.startswith("greedy")])
    spool.switch.write_text(f"quota-{FULL}")
    for number in range(3):
        drop(spool, f"other-{number}", OTHER)
    drop(spool, "refused", FULL, kind="no")
    drop(spool, "late", FULL)
    spool.until(lambda: spool.has(*greedy, "refused", "late", *(f"other-{number}" for number in range(3))))
    assert {owner(spool, f"other-{number}") for number in range(3)} == {(OTHER, 0o400)}
    assert {owner(spool, id_) for id_ in ("late", "refused")} == {(0, 0o400)}
    assert "disk quota" in spool.said()
    spool.until(lambda: not spool.left())
