"""The whole supervisor, compiled with sanitizers, as a program on this host: jobs, and arbitrary messages."""

from __future__ import annotations

import os
import random
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spoold.sandbox import wire
from spoold.sandbox.facts import HOLDERS, WINDOW
from spoold.sandbox.messages import (
    Begun,
    Bounds,
    Broken,
    Cancel,
    Done,
    End,
    File,
    Hear,
    Keep,
    Kept,
    Live,
    Message,
    Order,
    Over,
    Parcel,
    Passed,
    Ready,
    Refused,
    Said,
    Took,
    Wanted,
    parse_any,
)
from spoold.sandbox.returned import NOTHING
from tests.sandbox import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

PATIENCE = 60.0  # seconds for an answer
MIB = 1024 * 1024
LIMITS = Bounds(
    time=600 * 10**9,
    cpu_time=600 * 10**9,
    memory=1 << 50,
    stdout=1000,
    stderr=1000,
    file_size=MIB,
    open_files=64,
    stack=8 * MIB,
    on_output_limit=b"drop",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the supervisor's program."""
    return inside.supervisor(tmp_path_factory.mktemp("supervisor"))


class Host:
    """The host's end of one supervisor."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin
        assert process.stdout
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()

    def say(self, *parts: Message | bytes) -> None:
        """Send messages and raw bytes. If the supervisor has ended, they are lost."""
        data = b"".join(part if isinstance(part, bytes) else wire.frame(part) for part in parts)
        try:
            while data:
                data = data[os.write(self._to, data) :]
        except BrokenPipeError:
            pass

    def end(self) -> None:
        """Close the way to the supervisor."""
        assert self.process.stdin
        self.process.stdin.close()

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end."""
        data = b""
        deadline = time.monotonic() + PATIENCE
        while len(data) < size:
            assert select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0], "it is silent"
            piece = os.read(self._from, size - len(data))
            if not piece:
                break
            data += piece
        return data

    def hear(self) -> Message | None:
        """Return the next message, or None at the end."""
        head = self.take(4)
        if not head:
            return None
        value = wire.decode(self.take(int.from_bytes(head, "big")))
        return parse_any(value, Ready, Live, Begun, Said, Took, Done, Refused, Kept, Broken)


@contextmanager
def started(program: Path, work: Path) -> Iterator[Host]:
    """Yield the host of a supervisor for one job, after its greeting."""
    work.mkdir()
    os.chown(work, HOLDERS.start, HOLDERS.start)
    binds = ("--ro-bind-try", "/usr/lib64", "/usr/lib64", "--tmpfs", "/dev/shm", "--dir", "/dev/mqueue")
    command = [*inside.in_a_root(program, work, binds=binds), str(HOLDERS.start)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        host = Host(process)
        try:
            assert isinstance(host.hear(), Ready)
            yield host
        finally:
            process.kill()


def parcel(files: dict[str, bytes], stdin: bytes = b"") -> list[Message | bytes]:
    """Return the messages for a job that has ``files``."""
    named = [File(name=name.encode(), mode=0o755, size=len(content)) for name, content in files.items()]
    return [Parcel(files=named, archive=0, stdin=len(stdin)), *files.values(), stdin]


def order(
    script: str, limits: Bounds = LIMITS, outputs: Wanted = NOTHING, *, live: bool = False, talks: bool = False
) -> Order:
    """Return the order to run ``script`` by the host's own shell. The descriptor of the words is 3."""
    argv = [b"/bin/sh", b"-c", script.encode()]
    return Order(
        argv=argv,
        words=[b"/none", b"./run.sh"],
        env=[b"PATH=/bin", b"A=b=c"],
        script=b"run.sh",
        input=1,
        last=0,
        live=int(live),
        talks=int(talks),
        limits=limits,
        outputs=outputs,
    )


def finished(host: Host) -> tuple[Done, bytes, bytes]:
    """Return the account of a phase and its output."""
    done = host.hear()
    assert isinstance(done, Done), done
    return done, host.take(done.stdout), host.take(done.stderr)


def test_two_phases_of_a_job(program: Path, tmp_path: Path) -> None:
    files = {"run.sh": b"#!/bin/sh\n", "a/b/c.txt": b"text", "empty/": b""}
    with started(program, tmp_path / "work") as host:
        host.say(
            *parcel(files, b"words\n"), order("id -u; pwd; cat a/b/c.txt; ls -d empty; echo $A; tr '\\0' . <&3; exit 3")
        )
        done, stdout, stderr = finished(host)
        assert (os.WEXITSTATUS(done.status), stderr) == (3, b"")
        assert stdout == b"%d\n/job\ntextempty\nb=c\n/none../run.sh." % HOLDERS.start
        host.say(order("cat; echo $0 >&2; kill -9 $$"))
        done, stdout, stderr = finished(host)
        assert (os.WTERMSIG(done.status), stdout, stderr) == (9, b"words\n", b"/bin/sh\n")
        assert (done.clean, done.hit) == (1, b"")
        host.say(End())
        assert host.hear() is None
        assert host.process.wait(PATIENCE) == 0


def test_output_beyond_its_limit_is_counted(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("head -c 300000 /dev/zero; echo x >&2"))
        done, stdout, stderr = finished(host)
        assert (stdout, done.stdout_total, stderr) == (bytes(1000), 300000, b"x\n")
        wanted: dict[str, Any] = LIMITS.fields() | {"stdout": 0, "stderr": 0, "on_output_limit": b"end"}
        none = Bounds(**wanted)
        host.say(order("echo y; exec sleep 1000", none))
        done, stdout, stderr = finished(host)
        assert (done.hit, stdout, stderr) == (b"output", b"", b"")


def test_a_phase_is_cancelled_and_what_was_ordered_stays_known(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/opt/none\n"}), order("echo begun; exec sleep 1000"))
        host.say(Cancel())
        done, _, _ = finished(host)
        assert (done.hit, done.clean) == (b"cancel", 1)
        assert [each.file for each in done.obstacles] in ([], [b"run.sh"])


MORE: dict[str, Any] = LIMITS.fields() | {"stdout": MIB}
MUCH = Bounds(**MORE)


def said(host: Host, size: int) -> bytes:
    """Return the next bytes that the program of a talk says, ``size`` at least."""
    found = b""
    while len(found) < size:
        message = host.hear()
        assert isinstance(message, Said), message
        found += message.data
    return found


def account(host: Host) -> tuple[Done, bytes, bytes]:
    """Return the account of a program that talks, and what it printed, once it has ended."""
    while not isinstance(message := host.hear(), Done):
        assert isinstance(message, (Said, Took)), message
    return message, host.take(message.stdout), host.take(message.stderr)


def test_a_program_talks_and_late_words_disturb_nobody(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("read x; echo got $x; cat >&2; exit 3", talks=True))
        assert isinstance(host.hear(), Begun)
        host.say(Hear(data=b"one\n"))
        assert said(host, 8) == b"got one\n"
        host.say(Hear(data=b"two\0\n"), Hear(data=b""))
        done, stdout, stderr = account(host)
        assert (os.WEXITSTATUS(done.status), stdout, stderr) == (3, b"got one\n", b"two\0\n")
        host.say(Hear(data=b"late"), Passed(size=8), Cancel(), Over(), order("echo next"))
        assert finished(host)[1] == b"next\n"


def test_no_program_of_a_talk_is_further_ahead_than_the_other_allows(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        script = "exec <&-; head -c 300000 /dev/zero; exec >&-; sleep 600"
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order(script, MUCH, talks=True))
        assert isinstance(host.hear(), Begun)
        assert host.process.stdout
        for before in range(0, 300000 - WINDOW, WINDOW):
            assert said(host, WINDOW) == bytes(WINDOW), before
            assert not select.select([host.process.stdout], [], [], 0.1)[0]  # more would come at once
            host.say(Passed(size=WINDOW))
        assert said(host, 300000 % WINDOW) == bytes(300000 % WINDOW)
        end = host.hear()
        assert isinstance(end, Said)
        assert end.data == b""
        for _ in range(4):  # nobody reads it, and all of it counts as taken
            host.say(Hear(data=bytes(WINDOW)))
            taken = host.hear()
            assert isinstance(taken, Took)
            assert taken.size == WINDOW
        host.say(Cancel())
        done, stdout, _ = account(host)
        assert (done.hit, len(stdout)) == (b"cancel", 300000)


def test_what_is_printed_byte_by_byte_is_said_together(program: Path, tmp_path: Path) -> None:
    """Each message costs the host more than the program. So there is one in half a millisecond at most."""
    with started(program, tmp_path / "work") as host:
        script = "dd if=/dev/zero bs=1 count=20000 2>/dev/null"
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order(script, MUCH, talks=True))
        assert isinstance(host.hear(), Begun)
        messages = 0
        while not isinstance(done := host.hear(), Done):
            assert isinstance(done, Said)
            messages += 1
        assert (len(host.take(done.stdout)), host.take(done.stderr)) == (20000, b"")
        assert messages <= done.time / 500_000 + 2


@pytest.mark.parametrize("script", ["sleep 600", "exit 0"])
def test_the_end_of_the_host_is_the_end_of_a_talk(program: Path, tmp_path: Path, script: str) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order(script, talks=True))
        assert isinstance(host.hear(), Begun)
        if script == "exit 0":
            account(host)  # it waits for the last word
        host.end()
        assert host.hear() is None
        assert host.process.wait(PATIENCE) == 0


def test_a_host_that_is_further_ahead_than_it_may_be_is_a_bug(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("sleep 600", talks=True))
        assert isinstance(host.hear(), Begun)
        host.say(Hear(data=bytes(WINDOW)), Hear(data=bytes(WINDOW)))  # a pipe holds less than this
        host.say(Hear(data=bytes(WINDOW)))
        found = host.hear()
        while isinstance(found, Took):
            found = host.hear()
        assert isinstance(found, Broken)
        assert b"further ahead" in found.story


def test_files_that_have_no_room_are_refused(program: Path, tmp_path: Path) -> None:
    """The rest of the files is still read, because the host may be sending it."""
    with started(program, tmp_path / "work") as host:
        subprocess.run(["nsenter", "-t", str(child_of(host.process.pid)), "-m", "mount", "-t", "tmpfs", "-o",
                        "size=64k,mode=1777", "none", "/job"], check=True)  # fmt: skip
        host.say(*parcel({"run.sh": bytes(4 * MIB)}), order("true"))
        assert host.hear() == Refused(reason=b"No space left on device")
        host.end()
        assert host.process.wait(PATIENCE) == 0


def test_files_that_cannot_be_written_through_no_fault_of_theirs_are_a_bug(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        os.chown(tmp_path / "work", 0, 0)
        host.say(*parcel({"run.sh": b"x"}))
        said = host.hear()
        assert isinstance(said, Broken)
        assert b"Permission denied" in said.story


def kept(host: Host, most: int = 8 * MIB) -> tuple[Kept, bytes]:
    """Let the supervisor keep the work directory. Return its answer and the archive."""
    host.say(Keep(most=most))
    said = host.hear()
    assert isinstance(said, Kept), said
    return said, host.take(said.bytes)


def test_a_work_directory_goes_on_in_another_container(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "first") as host:
        made = "mkdir -p a/b; echo made > a/b/c; ln a/b/c d; ln -s d e; mkfifo f; chmod 0 a; exit 0"
        host.say(*parcel({"run.sh": b"#!/bin/sh\n", "x": b"y"}, b"words"), order(made))
        assert os.WEXITSTATUS(finished(host)[0].status) == 0
        said, archive = kept(host)
        assert (said.bytes, said.entries, said.pipes, said.sockets, said.devices) == (len(archive), 8, 1, 0, 0)
        host.say(End())
        assert host.hear() is None
        assert host.process.wait(PATIENCE) == 0
    for number in range(2):
        with started(program, tmp_path / f"again{number}") as host:
            host.say(Parcel(files=[], archive=len(archive), stdin=5), archive, b"input")
            host.say(order("chmod 700 a; ls; cat a/b/c e x - run.sh; stat -c %h d; ls -a a; echo more >> d"))
            done, stdout, stderr = finished(host)
            assert (stdout, stderr) == (b"a\nd\ne\nrun.sh\nx\nmade\nmade\nyinput#!/bin/sh\n2\n.\n..\nb\n", b"")
            assert os.WEXITSTATUS(done.status) == 0


def test_a_file_in_whose_place_something_was_left_is_refused(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "first") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("echo made > judge"))
        finished(host)
        _, archive = kept(host)
    with started(program, tmp_path / "again") as host:
        file = File(name=b"judge/input", mode=0o644, size=1)
        host.say(Parcel(files=[file], archive=len(archive), stdin=0), archive, b"x")
        assert host.hear() == Refused(reason=b"Not a directory")


def test_what_is_too_large_or_too_deep_is_not_kept(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "large") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("head -c 70000 /dev/urandom > x"))
        finished(host)
        host.say(Keep(most=65536))
        assert host.hear() == Refused(reason=b"it takes more than 65536 bytes")
        host.say(End())
        assert host.hear() is None
        assert host.process.wait(PATIENCE) == 0
    with started(program, tmp_path / "deep") as host:
        deep = "for n in $(seq 250); do mkdir d; cd d; done"
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order(deep))
        finished(host)
        host.say(Keep(most=8 * MIB))
        said = host.hear()
        assert isinstance(said, Refused)
        assert said.reason.startswith(b"/job/d/d/d/")
        assert said.reason.endswith(b": it lies too deep")


@pytest.mark.parametrize("archive", [b"x" * 100, b"spoold" + bytes(200)])
def test_an_archive_that_is_none_is_a_bug(program: Path, tmp_path: Path, archive: bytes) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(Parcel(files=[], archive=len(archive), stdin=0), archive)
        assert isinstance(host.hear(), Broken)


def child_of(pid: int) -> int:
    """Follow first children from ``pid``, and return the last one."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../x", "a//x", "/x", "a/./x", "./x", "x/.."])
def test_no_name_leads_out_of_the_work_directory(program: Path, tmp_path: Path, name: str) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({name: b"x"}))
        said = host.hear()
        assert isinstance(said, Broken)
        assert said.story.startswith(b"bad file name")


def test_the_end_of_the_host_is_the_end_of_all(program: Path, tmp_path: Path) -> None:
    with started(program, tmp_path / "work") as host:
        host.say(*parcel({"run.sh": b"#!/bin/sh\n"}), order("exec sleep 1000"))
        host.end()
        assert host.process.wait(PATIENCE) == 0


SAMPLES = [
    wire.frame(Parcel(files=[File(name=b"a/b", mode=0o644, size=3)], archive=0, stdin=2)) + b"abcde",
    wire.frame(order("exit 0")),
    wire.frame(End()),
    wire.frame(Cancel()),
    wire.frame(Keep(most=1000)),
    wire.frame(Parcel(files=[], archive=4, stdin=0)) + b"abcd",
]
PIECES = [
    b"i",
    b"e",
    b"l",
    b"d",
    b":",
    b"-",
    b"0",
    b"9" * 30,
    b"le",
    b"de",
    b"l" * 50,
    b"\xff",
    b"\0",
    b"4:size",
    b"5:files",
]


def mutated(random_: random.Random) -> bytes:
    """Return messages with something wrong in them."""
    data = bytearray(b"".join(random_.choices(SAMPLES, k=random_.randint(1, 3))))
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(data))
        match random_.randrange(4):
            case 0:
                data[at] = random_.randrange(256)
            case 1:
                del data[at : at + random_.randint(1, 8)]
            case 2:
                data[at:at] = random_.choice(PIECES)
            case _:
                data[at : at + 1] = random_.choice(PIECES)
    if random_.random() < 0.7:  # with the right length, the content is read
        data[:4] = max(0, len(data) - 4).to_bytes(4, "big")
    return bytes(data)


def test_whatever_the_wire_says_is_obeyed_or_told(program: Path, tmp_path: Path) -> None:
    random_ = random.Random(7)  # noqa: S311 - no secret
    ends = set()
    for number in range(200):
        with started(program, tmp_path / f"{number}") as host:
            host.say(mutated(random_))
            host.end()
            while isinstance(said := host.hear(), Done | Refused):
                if isinstance(said, Done):
                    host.take(said.stdout + said.stderr)
            assert host.process.stderr
            spoken = host.process.stderr.read()
            assert b"Sanitizer" not in spoken, spoken.decode()
            assert b"runtime error" not in spoken, spoken.decode()
            code = host.process.wait(PATIENCE)
            assert (code, said is None) in ((0, True), (1, False)), (code, said)
            ends.add(code)
    assert ends == {0, 1}


SHOWING = b"#!/bin/sh\necho $0 $1; cat /proc/$$/environ"
KNOWN = b"A=1\0B=2\0" + b"C=x\ny\0"
# A job's files, and its output. Where the start takes the long way by a shell, /bin/echo stands for the shell.
STARTS: dict[str, tuple[dict[str, bytes | None], bytes]] = {
    "an interpreter": ({"run.sh": SHOWING}, b"./run.sh x\nPATH=/bin\0A=1\0B=3=4\0C=x\ny\0PWD=/job\0SHLVL=1\0"),
    "none": ({"run.sh": b"echo hi\n"}, b"./run.sh x\n"),
    "nothing at all": ({"run.sh": b""}, b"./run.sh x\n"),
    "a blank one": ({"run.sh": b"#! \n"}, b"./run.sh x\n"),
    "a missing one": ({"run.sh": b"#!/bin/none\n"}, b"shell\n"),
    "one that is no program": ({"run.sh": b"#!/etc\n"}, b"shell\n"),
    "a program of no machine": ({"run.sh": b"\x7fELF" + bytes(100)}, b"shell\n"),
    "no environment": ({"run.sh": SHOWING, "capture/environ": None}, b"shell\n"),
    "an empty one": ({"run.sh": SHOWING, "capture/environ": b""}, b"shell\n"),
    "half of one": ({"run.sh": SHOWING, "capture/environ": b"A=1\0B=2"}, b"shell\n"),
    "a large one": ({"run.sh": SHOWING, "capture/environ": b"A=1\0" * 30000}, b"shell\n"),
    "a directory": ({"run.sh": SHOWING, "capture/environ": None, "capture/environ/": b""}, b"shell\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_a_script_is_started_at_once_where_its_environment_is_known(program: Path, tmp_path: Path, name: str) -> None:
    files, printed = STARTS[name]
    given: dict[str, bytes | None] = {"capture/environ": KNOWN, **files}
    with started(program, tmp_path / "work") as host:
        wanted = order("")
        wanted.argv = [b"/bin/echo", b"shell"]
        wanted.words = [b"/job/capture", b"B=3=4", b"./run.sh", b"x"]
        wanted.env = [b"PATH=/bin", b"A=0"]
        host.say(*parcel({name: content for name, content in given.items() if content is not None}), wanted)
        _, stdout, stderr = finished(host)
        assert (stdout, stderr) == (printed, b"")


def test_a_script_that_cannot_be_read_or_run_goes_the_long_way(program: Path, tmp_path: Path) -> None:
    for mode in (0o644, 0o311):
        with started(program, tmp_path / f"{mode}") as host:
            wanted = order("")
            wanted.argv, wanted.words = [b"/bin/echo", b"shell"], [b"/job/capture", b"./run.sh"]
            sent = parcel({"run.sh": SHOWING, "capture/environ": KNOWN})
            assert isinstance(sent[0], Parcel)
            sent[0].files[0].mode = mode
            host.say(*sent, wanted)
            assert finished(host)[1] == b"shell\n"
