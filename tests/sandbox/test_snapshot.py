"""The work directory that each case begins with is exactly the one that was kept, whoever made the archive."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from spoold.sandbox.facts import JOB_UID
from tests.sandbox import inside
from tests.sandbox.inside import Parts, archives
from tests.sandbox.inside.archives import (
    DIRECTORY,
    LEAVE,
    LINK,
    REGULAR,
    SYMLINK,
    archive,
    as_job,
    extent,
    listing,
    record,
    regular,
    symlink,
    whole,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

MEMORY = Path("/dev/shm")
MIB = 1024 * 1024
MOST = 1 << 40
HEAD = archives.HEAD.size


class Room(NamedTuple):
    """A work directory, and the parts that keep and restore it."""

    parts: Parts
    work: Path
    archive: Path
    outside: Path  # a directory that the job may write to as well

    def take(self, most: int = MOST) -> str:
        """Keep the work directory, and return the answer."""
        return self.parts(f"take {most} {self.archive}")

    def restore(self, content: bytes | None = None) -> str:
        """Restore the archive, or one with this content, and return the answer."""
        if content is not None:
            self.archive.write_bytes(content)
        return self.parts(f"restore {self.archive}")

    def clear(self) -> None:
        """Empty the work directory."""
        archives.empty(self.work)
        self.work.chmod(0o755)

    def again(self) -> str:
        """Keep the work directory and restore it, which must make no difference. Return the first answer."""
        before = listing(self.work)
        told = self.take()
        self.clear()
        assert self.restore().split(",")[0] == told.split(",")[0]
        after = listing(self.work)
        assert after.keys() == before.keys()
        for path, seen in before.items():
            assert path != seen.names[0] or after[path] == seen, path
        return told


@pytest.fixture
def room(units: Path, tmp_path: Path) -> Iterator[Room]:
    """Yield a room behind the walls of a job."""
    place = Path(tempfile.mkdtemp(dir=MEMORY))
    place.chmod(0o711)
    work, outside = place / "work", place / "outside"
    for path in (work, outside):
        path.mkdir()
        os.chown(path, JOB_UID, JOB_UID)
    (outside / "kept").write_text("as it was")
    binds = (*("--bind", str(outside), "/outside", "--dir", str(tmp_path), "--bind", str(tmp_path), str(tmp_path)),)
    try:
        with inside.parts(inside.in_a_root(units, work, binds=("--dir", "/dev/mqueue", *binds))) as parts:
            parts("walls")
            yield Room(parts, work, tmp_path / "archive", outside)
    finally:
        shutil.rmtree(place)


def write(path: Path, content: bytes = b"content", mode: int = 0o644) -> Path:
    """Write a file."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


# -- what is restored


def test_nothing_is_kept_as_that(room: Room) -> None:
    assert room.again() == "1 entries, without 0 pipes, 0 sockets, 0 devices"
    assert room.archive.stat().st_size < 200


@pytest.mark.parametrize("mode", [0, 0o7777, 0o1777, 0o2555, 0o111, 0o300])
def test_the_work_directorys_own_mode_and_time_are_kept(room: Room, mode: int) -> None:
    write(room.work / "file")
    os.chown(room.work / "file", JOB_UID, JOB_UID)
    os.utime(room.work, ns=(10**18, 10**18 + 7))
    room.work.chmod(mode)
    room.again()


def modes(work: Path) -> None:
    for mode in (0, 0o111, 0o222, 0o400, 0o4711, 0o2755, 0o6777, 0o1644, 0o7777):
        write(work / f"file {mode:o}", mode=mode)
        write(work / f"empty {mode:o}", b"", mode)
        (work / f"directory {mode:o}").mkdir()
        write(work / f"directory {mode:o}" / "in it", mode=mode)
        (work / f"directory {mode:o}" / "another").mkdir()
        (work / f"directory {mode:o}" / "another").chmod(mode)
        (work / f"directory {mode:o}").chmod(mode)


def names(work: Path) -> None:
    for name in (
        b"n" * 255,
        b"\xff\xfe\x80",
        b"a\nb\r\n",
        b" ",
        b"...",
        b"-rf",
        b"\\",
        b'"',
        b"\x01\x7f",
        "ä".encode() * 127,
    ):
        write(work / os.fsdecode(name))
        (work / os.fsdecode(b"in" + name[:250])).mkdir()
        write(work / os.fsdecode(b"in" + name[:250]) / os.fsdecode(name))


def symbolic_links(work: Path) -> None:
    for number, target in enumerate(("/etc/passwd", "../../../etc/shadow", ".", "loop", "x" * 4095, "a//b/", "\udcff")):
        (work / f"link {number}").symlink_to(target)
        os.utime(work / f"link {number}", ns=(10**18, 10**18 + number), follow_symlinks=False)
    (work / "loop").symlink_to("loop")
    (work / "to a directory").symlink_to("/outside")


def hard_links(work: Path) -> None:
    (work / "a").mkdir()
    (work / "a/b").mkdir()
    write(work / "a/b/first", b"x" * 300_000)
    for name in ("second", "a/third", "a/b/fourth"):
        os.link(work / "a/b/first", work / name)
    (work / "symbolic").symlink_to("a/b/first")
    os.link(work / "symbolic", work / "symbolic too", follow_symlinks=False)
    os.link(write(work / "a/closed", mode=0), work / "opened")
    (work / "a/b").chmod(0o600)
    (work / "a").chmod(0)


def times(work: Path) -> None:
    for number, time in enumerate((0, 1, -5 * 10**9 - 1, 10**18 + 123456789, 2**33 * 10**9)):
        (work / f"directory {number}").mkdir()
        for path in (
            write(work / f"file {number}"),
            write(work / f"directory {number}/file"),
            work / f"directory {number}",
        ):
            os.utime(path, ns=(time + 3 * 10**9, time))


def holes(work: Path) -> None:
    for name, size, pieces in (
        ("all", 10 * MIB, []),
        ("first", 10 * MIB, [(0, 5000)]),
        ("last", 10 * MIB, [(10 * MIB - 1, 1)]),
        ("many", 10 * MIB, [(at * 65536, 4096 + at) for at in range(100)]),
        ("large pieces", 40 * MIB, [(MIB, 5 * MIB), (20 * MIB, 3 * MIB + 17)]),
        ("no page", 17, [(0, 17)]),
    ):
        with (work / name).open("wb") as file:
            file.truncate(size)
            for at, length in pieces:
                os.pwrite(file.fileno(), bytes([at % 251 + 1]) * length, at)


TREES: list[Callable[[Path], None]] = [modes, names, symbolic_links, hard_links, times, holes]


@pytest.mark.parametrize("made", TREES, ids=lambda made: made.__name__)
def test_what_comes_back_is_what_was_there(room: Room, made: Callable[[Path], None]) -> None:
    with as_job():
        made(room.work)
    room.again()


def test_what_is_no_file_is_counted_and_not_kept(room: Room) -> None:
    with as_job(), socket.socket(socket.AF_UNIX) as listening:
        os.mkfifo(room.work / "pipe")
        os.mkfifo(room.work / "another")
        listening.bind(str(room.work / "socket"))
        os.mknod(room.work / "whiteout", 0o020644)
        write(room.work / "file")
    assert room.take() == "2 entries, without 2 pipes, 1 sockets, 1 devices"
    room.clear()
    room.restore()
    assert listing(room.work).keys() == {".", "file"}


def test_ten_thousand_files(room: Room) -> None:
    with as_job():
        for number in range(16384):
            (room.work / str(number)).write_bytes(b"%d" % number)
    assert room.again().startswith("16385 entries")


def test_many_names_of_a_large_file_take_it_once(room: Room) -> None:
    with as_job():
        first = write(room.work / "first", bytes(range(256)) * (20 * MIB // 256))
        for number in range(16384):
            os.link(first, room.work / str(number))
    room.again()
    assert room.archive.stat().st_size < 22 * MIB


def test_large_holes_take_nothing(room: Room) -> None:
    with as_job():
        for number in range(200):
            with (room.work / str(number)).open("wb") as file:
                file.truncate(250 * MIB)
        with (room.work / "pieces").open("wb") as file:
            file.truncate(1 << 40)
            for at in range(8000):
                os.pwrite(file.fileno(), b"%d" % at, at * (1 << 27))
    room.again()
    assert room.archive.stat().st_size < 40 * MIB


# -- too much to keep


def test_directories_and_paths_are_so_deep_and_no_deeper(room: Room) -> None:
    with as_job():
        deepest = room.work.joinpath(*["d"] * 200)
        deepest.mkdir(parents=True)
        write(deepest / ("n" * 255))
        longest = room.work.joinpath(*["l" * 249] * 15)
        longest.mkdir(parents=True)
        write(longest / ("n" * 250))
    room.again()
    with as_job():
        write(longest / ("n" * 251))
    assert room.take().startswith(f"File name too long: /job/{'l' * 230}")
    room.clear()
    with as_job():
        (deepest / "d").mkdir(parents=True)
    assert room.take().startswith(f"File name too long: /job/{'d/' * 115}")


def test_far_too_deep_directories_are_refused(room: Room) -> None:
    with as_job():
        file = os.open(room.work, os.O_RDONLY)
        for _ in range(10_000):
            os.mkdir("d", dir_fd=file)
            deeper = os.open("d", os.O_RDONLY, dir_fd=file)
            os.close(file)
            file = deeper
        os.close(file)
    assert room.take().startswith("File name too long: /job/d/d/d")
    subprocess.run(["rm", "-rf", room.work / "d"], check=True)  # too deep for a recursive removal


def test_an_archive_over_its_most_is_refused_and_memory_was_not_needed_twice(room: Room) -> None:
    with as_job():
        file = write(room.work / "large", b"x" * (20 * MIB), 0o400)
    assert room.take(10 * MIB) == "File too large: /job/large"
    assert 9 * MIB < file.stat().st_blocks * 512 < 11 * MIB
    room.clear()
    with as_job():
        for name in ("a", "b"):
            write(room.work / name, b"x" * 10_000)
    assert room.take(15_000).startswith("File too large: /job")
    assert room.take(20_000).startswith("3 entries")
    assert [path.stat().st_blocks for path in room.work.iterdir()] == [0, 0]


def test_a_work_directory_that_is_not_empty_is_not_written_over(room: Room) -> None:
    with as_job():
        write(room.work / "file", b"as it was")
    assert room.restore(archive(regular(b"file", b"x"))) == "File exists: /job/file"
    assert (room.work / "file").read_text() == "as it was"


def test_archives_that_are_not_as_they_must_be(room: Room) -> None:
    """An archive without seals could change, and so could a plain file.

    One that is not empty belongs to another job.
    """
    room.archive.write_bytes(archive())
    assert room.parts(f"unfit {room.archive}") == "Invalid argument, " * 3 + "Operation not permitted"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("half", "Protocol error: /job"),
        ("minus", "Protocol error: /job"),
        ("no end", "No space left on device: " + "x" * 255),
    ],
)
def test_an_answer_may_be_the_jobs(room: Room, how: str, said: str) -> None:
    assert room.parts(f"lie {how}") == said


# -- archives that a job made


ALL_KINDS = archive(
    record(DIRECTORY, b"d"),
    regular(b"a", b"abc", shared=True, mode=0o4755),
    record(DIRECTORY, b"closed", mode=0),
    record(LINK, b"b", mode=0),
    record(LEAVE),
    record(LEAVE),
    symlink(b"l", b"/outside/kept", shared=True),
    record(LINK, b"m", size=1),
    record(REGULAR, b"h", size=70_000) + extent(4096, b"x") + extent(65536, b"yz") + extent(0),
)


def test_archives_are_as_these_tests_make_them(room: Room) -> None:
    assert room.restore(ALL_KINDS) == "8 entries, without 0 pipes, 0 sockets, 0 devices"
    seen = listing(room.work)
    assert seen.keys() == {".", "d", "d/a", "d/closed", "d/closed/b", "l", "m", "h"}
    assert (seen["d/a"].names, seen["d/a"].mode) == (("d/a", "d/closed/b"), 0o104755)
    assert (seen["h"].size, seen["h"].pieces) == (70_000, ((4096, 8192), (65536, 69632)))


DEEP = [record(DIRECTORY, b"d")] * 200
LONG = record(DIRECTORY, b"n" * 255)
BAD = {
    "nothing": b"",
    "half of a head": archive()[: HEAD - 1],
    "another magic": b"x" + archive()[1:],
    "another format": archives.HEAD.pack(archives.MAGIC, 2, len(archive())) + archive()[HEAD:],
    "more than it says": archive() + b"x",
    "no directory": whole(),
    "no work directory": whole(record(DIRECTORY, b"d"), record(LEAVE)),
    "a file as the work directory": whole(regular(b""), record(LEAVE)),
    "a link as the work directory": whole(record(LINK), record(LEAVE)),
    "no end": whole(record(DIRECTORY)),
    "more after its end": archive(record(LEAVE)),
    "no name": archive(record(DIRECTORY), record(LEAVE)),
    "the directory itself": archive(regular(b".")),
    "the directory above": archive(record(DIRECTORY, b".."), record(LEAVE)),
    "a file above": archive(regular(b"../outside/kept", b"x")),
    "a file from the root on": archive(regular(b"/outside/new", b"x")),
    "a path": archive(record(DIRECTORY, b"d"), record(LEAVE), regular(b"d/f")),
    "a path at its end": archive(record(DIRECTORY, b"d/"), record(LEAVE)),
    "a NUL in a name": archive(regular(b"a\0b")),
    "too long a name": archive(regular(b"n" * 256)),
    "a name to its end": whole(record(DIRECTORY), archives.RECORD.pack(REGULAR, 0, 65535, 0, 0, 0, 0, 0, 0)),
    "a kind that there is not": archive(record(6, b"n")),
    "no kind": archive(record(0, b"n")),
    "a mode of a device": archive(regular(b"n", mode=0o020666)),
    "nanoseconds without end": archive(record(DIRECTORY, b"n", nanoseconds=10**9), record(LEAVE)),
    "nanoseconds that mean now": archive(record(DIRECTORY, b"n", nanoseconds=(1 << 30) - 1), record(LEAVE)),
    "nanoseconds below zero": archive(record(DIRECTORY, b"n", nanoseconds=-1), record(LEAVE)),
    "no target": archive(symlink(b"l", b"")),
    "too long a target": archive(symlink(b"l", b"x" * 4096)),
    "a target without end": archive(record(SYMLINK, b"l", size=2**64 - 1)),
    "a NUL in a target": archive(symlink(b"l", b"a\0b")),
    "a link to nothing": archive(record(LINK, b"l")),
    "a link to what is no file": archive(regular(b"a"), record(LINK, b"l")),
    "a link to a later file": archive(record(LINK, b"l", size=0), regular(b"a", shared=True)),
    "a link beyond all": archive(regular(b"a", shared=True), record(LINK, b"l", size=2**64 - 1)),
    "too deep": archive(*DEEP, record(DIRECTORY, b"d"), *[record(LEAVE)] * 201),
    "a size below zero": archive(record(REGULAR, b"f", size=2**63) + extent(0)),
    "a piece beyond its file": archive(record(REGULAR, b"f", size=2) + extent(1, b"xx") + extent(0)),
    "a piece behind its file": archive(record(REGULAR, b"f", size=2) + extent(2, b"x") + extent(0)),
    "a piece again": archive(record(REGULAR, b"f", size=4) + extent(0, b"x") + extent(0, b"x") + extent(0)),
    "a piece without end": archive(record(REGULAR, b"f", size=9) + archives.EXTENT.pack(8, 2**64 - 8) + b"x"),
    "pieces to its end": whole(record(DIRECTORY), record(REGULAR, b"f", size=2**62) + archives.EXTENT.pack(0, 2**62)),
}  # fmt: skip
REFUSED = {
    "two of a name": (archive(regular(b"n"), regular(b"n")), "File exists: /job/n"),
    "a directory over a link": (
        archive(symlink(b"n", b"/outside"), record(DIRECTORY, b"n"), regular(b"new"), record(LEAVE)),
        "File exists: /job/n",
    ),
    "a file over a link": (archive(symlink(b"n", b"/outside/kept"), regular(b"n", b"x")), "File exists: /job/n"),
    "a link over a file": (
        archive(regular(b"n", shared=True), regular(b"f"), record(LINK, b"f")),
        "File exists: /job/f",
    ),
    "too long a path": (archive(*[LONG] * 16), "File name too long: /job/nnn"),
    "too large a hole": (archive(record(REGULAR, b"f", size=2**63 - 1) + extent(0)), None),
}


@pytest.mark.parametrize("name", [*BAD, *REFUSED])
def test_bad_archives_are_refused_and_nothing_comes_to_lie_elsewhere(room: Room, name: str) -> None:
    before = listing(room.outside)
    content, said = REFUSED.get(name) or (BAD[name], "Bad message: /job")
    assert said is None or room.restore(content).startswith(said)
    if said is None:
        room.restore(content)
    assert listing(room.outside) == before


def test_archives_of_half_a_length_are_refused(room: Room) -> None:
    """Some of them claim to have exactly that length."""
    for length in range(len(ALL_KINDS)):
        half = ALL_KINDS[:length]
        assert room.restore(half).startswith("Bad message: ")
        if length >= HEAD:
            assert room.restore(whole(half[HEAD:])).startswith("Bad message: ")
        room.clear()


def test_archives_with_any_byte_changed_do_no_harm(room: Room) -> None:
    """Each may give another work directory, or none. The sanitizers watch, see :func:`inside.parts`."""
    before = listing(room.outside)
    chance = random.Random(15)  # noqa: S311 - repeatable
    for at, was in enumerate(ALL_KINDS):
        for value in {was ^ 0xFF, was ^ 1, chance.randrange(256)} - {was}:
            answer = room.restore(ALL_KINDS[:at] + bytes([value]) + ALL_KINDS[at + 1 :])
            assert "entries" in answer or ": /job" in answer, (at, value)
            room.clear()
    assert listing(room.outside) == before


def test_archives_with_many_bytes_changed_do_no_harm(room: Room) -> None:
    before = listing(room.outside)
    chance = random.Random(15)  # noqa: S311 - repeatable
    for _ in range(300):
        content = bytearray(ALL_KINDS)
        for _ in range(chance.randrange(2, 12)):
            at = chance.randrange(HEAD, len(content))
            content[at : at + chance.choice((1, 2, 8))] = chance.choice(
                (b"\0", b"\xff" * 8, b"..", b"/", chance.randbytes(4))
            )
        answer = room.restore(whole(bytes(content[HEAD:])))
        assert "entries" in answer or ": /job" in answer, content
        room.clear()
    assert listing(room.outside) == before
