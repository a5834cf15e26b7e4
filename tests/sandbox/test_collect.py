"""The process that finds and reads returned files in a work directory, and what its supervisor passes on.

The parts are compiled with sanitizers. They run as the job's user behind a job's walls, on a file system in memory.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from spoold.model.outputs import matched_as
from spoold.sandbox import wire
from spoold.sandbox.facts import JOB_UID
from spoold.sandbox.messages import Output, Outputs, parse_any
from tests.returned import stands_for
from tests.sandbox import inside
from tests.sandbox.inside import Parts
from tests.sandbox.inside.archives import as_job

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

MEMORY = Path("/dev/shm")
MIB = 1024 * 1024
PLAIN = {name: 0 for name in Outputs.FIELDS if name not in ("failed", "whole")}


class Told(NamedTuple):
    """The host's view of an archive: the files in order, their contents by name, and the end."""

    files: list[Output]
    contents: dict[bytes, bytes]
    end: Outputs

    @property
    def names(self) -> list[str]:
        """Return the names of the files."""
        return [os.fsdecode(file.name) for file in self.files]

    @property
    def left_out(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {name: count for name in PLAIN if (count := getattr(self.end, name))}


class Room(NamedTuple):
    """A work directory, and the parts that collect its files."""

    parts: Parts
    work: Path
    said: Path

    def collect(
        self, *patterns: str, files: int = 64, size: int = MIB, total: int = 4 * MIB, how: str = "itself"
    ) -> Told:
        """Collect files, and return what the host receives."""
        assert self.parts(f"outputs {self.said} {how} {files} {size} {total} {' '.join(patterns)}") == "done"
        return told(self.said.read_bytes())


def told(said: bytes) -> Told:
    """Return the messages of a supervisor."""
    files: list[Output] = []
    contents: dict[bytes, bytes] = {}
    at = 0
    while True:
        end = at + 4 + int.from_bytes(said[at : at + 4], "big")
        message = parse_any(wire.decode(said[at + 4 : end]), Output, Outputs)
        if isinstance(message, Outputs):
            assert end == len(said)
            return Told(files, contents, message)
        assert isinstance(message, Output)
        files.append(message)
        at = end + message.size
        contents[message.name] = said[end:at]


@pytest.fixture
def room(units: Path, tmp_path: Path) -> Iterator[Room]:
    """Yield a room behind the walls of a job."""
    place = Path(tempfile.mkdtemp(dir=MEMORY))
    place.chmod(0o711)
    work = place / "work"
    work.mkdir()
    os.chown(work, JOB_UID, JOB_UID)
    secret = place / "secret"
    secret.write_text("not the job's")
    secret.chmod(0o644)
    (place / "group").mkdir()
    binds = ("--bind", str(secret), "/secret", "--bind", str(place / "group"), "/sys/fs/cgroup")
    seen = ("--dir", "/dev/mqueue", "--dir", str(tmp_path), "--bind", str(tmp_path), str(tmp_path))
    try:
        with inside.parts(inside.in_a_root(units, work, binds=(*binds, *seen))) as parts:
            parts("walls")
            yield Room(parts, work, tmp_path / "said")
    finally:
        subprocess.run(["rm", "-rf", place], check=True)  # it may be too deep for a recursive removal


def write(path: Path, content: bytes = b"content", mode: int = 0o644) -> Path:
    """Write a file, and make its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


# -- which names match


NAMES = ["a", "b.txt", "out/a", "out/b.txt", "out/c/d.txt", "out/c/e/f.txt", "out/c/e/a", "x/out/a", ".hidden", "[a]"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("*", [".hidden", "[a]", "a", "b.txt"]),
        ("*.txt", ["b.txt"]),
        ("**/*.txt", ["b.txt", "out/b.txt", "out/c/d.txt", "out/c/e/f.txt"]),
        ("out/*", ["out/a", "out/b.txt"]),
        ("out/**/*.txt", ["out/b.txt", "out/c/d.txt", "out/c/e/f.txt"]),
        ("out/**", ["out/a", "out/b.txt", "out/c/d.txt", "out/c/e/a", "out/c/e/f.txt"]),
        ("out/**/e/*", ["out/c/e/a", "out/c/e/f.txt"]),
        ("*/c/*.txt", ["out/c/d.txt"]),
        ("**/a", ["a", "out/a", "out/c/e/a", "x/out/a"]),
        ("[a]", ["[a]"]),
        ("?", []),
        ("out", []),
        ("out/c/e/f.txt/x", []),
        ("a*a", []),
        ("**/*", NAMES),
    ],
)
def test_a_pattern_stands_for_these(room: Room, pattern: str, names: list[str]) -> None:
    with as_job():
        for name in NAMES:
            write(room.work / name, name.encode())
    found = room.collect(matched_as(pattern))
    assert found.names == sorted(names)
    assert found.contents == {name.encode(): name.encode() for name in names}
    assert (found.end.failed, found.end.whole, found.left_out) == (b"", 1, {})


def test_random_patterns_stand_for_what_one_finds_by_hand(room: Room) -> None:
    chance = random.Random(15)  # noqa: S311 - repeatable

    def word(letters: str, most: int) -> str:
        return "".join(chance.choices(letters, k=chance.randrange(1, most)))

    with as_job():
        for _ in range(300):
            directories = [word("abc", 3) for _ in range(chance.randrange(4))]
            write(room.work.joinpath(*directories) / f"{word('abc', 6)}.")
    names = [str(path.relative_to(room.work)) for path in room.work.rglob("*") if path.is_file()]
    matches = 0
    for _ in range(200):
        parts = [re.sub(r"\*+", "*", word("abc***", 6)) for _ in range(chance.randrange(3))]
        parts.append(re.sub(r"\*+", "*", f"{word('abc***', 6)}."))
        if chance.random() < 0.5:
            parts.insert(chance.randrange(len(parts)), "**")
        found = room.collect("/".join(parts), files=1000, total=1 << 30)
        assert found.names == sorted(name for name in names if stands_for(parts, name.split("/"))), parts
        matches += len(found.names)
    assert matches > 1000


def test_each_file_comes_once_and_tells_which_patterns_match(room: Room) -> None:
    with as_job():
        for name in ("a.txt", "b.txt", "c"):
            write(room.work / name)
    found = room.collect("b*", "*.txt", "**/*")
    assert [(os.fsdecode(file.name), file.matched) for file in found.files] == [("b.txt", 7), ("a.txt", 6), ("c", 4)]


def test_a_pattern_of_many_stars_takes_no_time(room: Room) -> None:
    with as_job():
        for number in range(3000):
            write(room.work / f"{'a' * 240}{number}")
    found = room.collect("*a" * 100 + "*b", *["*a" * 120 + "*"] * 15, files=5)
    assert (len(found.files), found.left_out) == (5, {"many": 2995})


# -- limits


def test_so_many_come_back_and_the_first_ones_whatever_the_order_they_were_made_in(room: Room) -> None:
    numbers = list(range(500))
    random.Random(15).shuffle(numbers)  # noqa: S311 - repeatable
    with as_job():
        for number in numbers:
            write(room.work / f"{number:03}")
    found = room.collect("4*", "**/*", files=120)
    assert found.names == [*(f"4{number:02}" for number in range(100)), *(f"{number:03}" for number in range(20))]
    assert found.left_out == {"many": 380}


def test_large_files_are_counted_and_not_read(room: Room) -> None:
    with as_job():
        write(room.work / "a", b"x" * 1000)
        write(room.work / "b", b"x" * 1001)
        with (room.work / "c").open("wb") as file:
            file.truncate(1 << 40)
    found = room.collect("*", size=1000)
    assert (found.names, found.left_out) == (["a"], {"large": 2})


def test_all_together_are_bounded_and_what_fits_comes(room: Room) -> None:
    with as_job():
        for name, size in (("a", 600), ("b", 500), ("c", 400), ("d", 0)):
            write(room.work / name, b"x" * size)
    found = room.collect("*", total=1000)
    assert (found.names, found.left_out) == (["a", "c", "d"], {"total": 1})


def test_holes_are_zeros_and_take_nothing(room: Room) -> None:
    with as_job():
        for number in range(64):
            with (room.work / f"{number:02}").open("wb") as file:
                file.truncate(MIB)
    found = room.collect("*", total=64 * MIB)
    assert len(found.files) == 64
    assert {bytes(content) for content in found.contents.values()} == {bytes(MIB)}
    assert not any(path.stat().st_blocks for path in room.work.iterdir())


def test_a_hundred_thousand_files(room: Room) -> None:
    with as_job():
        for number in range(100):
            (room.work / f"{number:02}").mkdir()
            for each in range(1000):
                os.mknod(room.work / f"{number:02}" / f"{each:03}")
    found = room.collect("**/*", "*/*", "*", files=10)
    assert found.names == [f"00/{number:03}" for number in range(10)]
    assert found.left_out == {"many": 99_990}
    assert room.collect("50/1*", "5*/00*", files=200).left_out == {}


def test_a_walk_that_takes_too_long_ends_with_what_it_found(room: Room) -> None:
    with as_job():
        for number in range(1000):
            write(room.work / f"{number:03}")
    found = room.collect("*", files=1000, how="hasty")
    assert 0 < len(found.files) < 1000
    assert found.left_out == {"slow": 1}


# -- files that are not read


def test_nothing_is_followed_opened_or_waited_for_but_files(room: Room) -> None:
    work = room.work
    with as_job(), socket.socket(socket.AF_UNIX) as listening:
        os.mkfifo(work / "pipe")
        listening.bind(str(work / "socket"))
        os.mknod(work / "device", 0o020666)
        for name, target in (("passwd", "/etc/passwd"), ("secret", "/secret"), ("up", "../secret"), ("loop", "loop")):
            (work / name).symlink_to(target)
        (work / "root").symlink_to("/")
        (work / "here").symlink_to(".")
        (work / "proc").symlink_to("/proc/self/fd")
        write(work / "real/file", b"real")
        (work / "linked").symlink_to("real")
        (work / "to file").symlink_to("real/file")
    found = room.collect("**/*", "root/secret", "linked/*", "proc/*", "here/real/*")
    assert found.contents == {b"real/file": b"real"}
    assert found.left_out == {"odd": 12}


def test_hard_links_are_files(room: Room) -> None:
    with as_job():
        first = write(room.work / "first", b"x" * (MIB // 2))
        for number in range(16384):
            os.link(first, room.work / f"{number:05}")
    found = room.collect("*", total=MIB)
    assert (found.names, found.left_out["many"]) == (["00000", "00001"], 16385 - 64)
    assert found.left_out["total"] == 62


@pytest.mark.parametrize("mode", [0, 0o111, 0o222, 0o300, 0o1000, 0o6000])
def test_what_the_job_closed_to_itself_comes_back_with_its_mode(room: Room, mode: int) -> None:
    with as_job():
        write(room.work / "a/b/c", b"hidden", mode)
        write(room.work / "open", b"plain", 0o4755)
        (room.work / "a/b").chmod(mode)
        (room.work / "a").chmod(mode)
        room.work.chmod(mode)
    found = room.collect("a/b/*", "**/o*")
    assert found.contents == {b"a/b/c": b"hidden", b"open": b"plain"}
    assert [file.mode for file in found.files] == [mode, 0o4755]
    assert found.left_out == {}


def test_names_that_no_request_has_are_counted(room: Room) -> None:
    with as_job():
        for name in (b"a\nb", b"\x1b[2J", b"-rf", b"back\\slash", b"\x7f", b"n" * 255, b"\xff", "ä".encode()):
            write(room.work / os.fsdecode(name))
        write(room.work / "-d/file")
        write(room.work / "e\n/file")
        write(room.work / "f\n/file")
    found = room.collect("**/*")
    # The names are bytes, because only the host can judge them.
    assert {file.name for file in found.files} == {b"n" * 255, b"\xff", "ä".encode()}
    assert found.left_out == {"names": 8}
    assert room.collect("n*", "f/*").left_out == {}


def test_deep_directories_are_not_looked_into(room: Room) -> None:
    with as_job():
        write(room.work.joinpath(*["d"] * 32) / "file")
        write(room.work.joinpath(*["d"] * 33) / "file")
        write(room.work.joinpath(*["l" * 200] * 5) / ("n" * 19))
        write(room.work.joinpath(*["l" * 200] * 5) / ("n" * 20))
        write(room.work.joinpath(*["m" * 255] * 4) / "file")
    found = room.collect("**/*")
    assert [len(name) for name in found.names] == [2 * 32 + 4, 5 * 201 + 19]
    assert found.left_out == {"deep": 2, "names": 1}
    assert room.collect("d/**/x").left_out == {"deep": 1}
    assert room.collect("d/*").left_out == {}


def test_far_too_deep_directories(room: Room) -> None:
    with as_job():
        file = os.open(room.work, os.O_RDONLY)
        for _ in range(10_000):
            os.mkdir("d", dir_fd=file)
            deeper = os.open("d", os.O_RDONLY, dir_fd=file)
            os.close(file)
            file = deeper
        os.close(file)
    assert room.collect("**/*").left_out == {"deep": 1}


# -- memory


@pytest.mark.parametrize(
    ("anon", "cache", "limit", "is_read"),
    [
        (0, 0, 3 * MIB, True),
        (20 * MIB, 10 * MIB, 33 * MIB, True),
        (20 * MIB, 10 * MIB, 23 * MIB, True),
        (20 * MIB, 10 * MIB, 21 * MIB, False),
        (20 * MIB, 0, 21 * MIB, False),
        (20 * MIB, 0, None, True),
    ],
)
def test_nothing_is_read_where_a_process_more_has_no_room(
    room: Room, anon: int, cache: int, limit: int | None, is_read: bool
) -> None:
    """The kernel frees the cache of files when it has to."""
    with as_job():
        write(room.work / "a")
    group = room.work.with_name("group")
    (group / "cgroup.controllers").write_text("memory\n")
    (group / "memory.stat").write_text(f"anon {anon}\nfile {cache}\nkernel 0\nsock 0\nshmem 0\n")
    (group / "memory.current").write_text(f"{anon + cache}\n")
    (group / "memory.max").write_text(f"{limit or 'max'}\n")
    room.parts("counters /sys/fs/cgroup")
    found = room.collect("*")
    assert (found.names, found.end.failed) == ((["a"], b"") if is_read else ([], b"memory"))


# -- a process that the job controls


@pytest.mark.parametrize(
    ("how", "size"),
    [("large", MIB), ("total", 1 << 50), ("unasked", MIB), ("unnamed", MIB), ("long", MIB), ("odd", MIB)],
)
def test_nothing_is_passed_on_that_was_not_asked_for(room: Room, how: str, size: int) -> None:
    found = room.collect("*", size=size, how=how)
    assert (found.files, found.end.failed, found.end.whole) == ([], b"ended", 1)


def test_no_more_is_passed_on_than_was_asked_for(room: Room) -> None:
    found = room.collect("*", how="many", files=7)
    assert (len(found.files), found.end.failed) == (7, b"ended")


def test_a_file_of_which_the_rest_does_not_come_is_told_not_to_be_whole(room: Room) -> None:
    found = room.collect("*", how="amid")
    assert (found.names, found.end.failed, found.end.whole) == (["x"], b"ended", 0)
    assert found.contents == {b"x": bytes(100_000)}


def test_the_wait_has_an_end(room: Room) -> None:
    found = room.collect("*", how="silent")
    assert (found.files, found.end.failed, found.end.whole) == ([], b"time", 1)
