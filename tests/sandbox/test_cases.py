"""Cases in a real sandbox: each begins with exactly the files that compile.sh left, and finds nothing of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from spoold.engines.docker.container import Container
from spoold.host.groups import Group
from spoold.model.job import Job, JobCase, JobResult
from spoold.model.limits import MIB, PhaseLimits
from spoold.model.response import Outcome, Phase
from spoold.sandbox import Check, RunCancelledError, Talked
from spoold.sandbox.runner import Ran, Runner
from tests.sandbox.cells import Make, make, waiting
from tests.sandbox.conftest import COMPILE, RUN, AnySandbox, make_job, notes_of
from tests.sandbox.test_recycled import LEAVE as LEFT

__all__ = ["make"]  # a fixture
pytestmark = pytest.mark.docker


class All:
    """A judge that wants every case. ``before`` is called before each."""

    def __init__(self, before: Callable[[int], object] = lambda _: None) -> None:
        self.before = before
        self.runs: list[Phase] = []
        self.notes: list[list[str]] = []

    def wants(self, number: int) -> bool:
        self.before(number)
        return True

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        assert number == len(self.runs)
        self.runs.append(run)
        self.notes.append(notes)
        return None

    def checked(self, number: int, result: JobResult) -> None:
        raise AssertionError(number, result)

    def meets(self, number: int) -> Check:
        raise AssertionError(number)

    def talked(self, number: int, talked: Talked) -> None:
        raise AssertionError(number, talked)

    @property
    def outcomes(self) -> list[object]:
        return [run.outcome for run in self.runs]

    @property
    def printed(self) -> list[str]:
        return [run.stdout for run in self.runs]


def with_cases(job: Job, *words: str, limits: Sequence[PhaseLimits] = ()) -> Job:
    """Return ``job`` with one case for each word, which is the case's only argument."""
    cases = [
        JobCase(name=f"{n}", stdin=b"", args=[word], env={}, limits=limits[n] if limits else job.run)
        for n, word in enumerate(words)
    ]
    return msgspec.structs.replace(job, cases=cases)


Judged = Callable[..., tuple[JobResult, All]]


@pytest.fixture
def judged(sandbox: AnySandbox, python_shell: str) -> Judged:
    """Return a function that runs the cases of a job that has Python."""

    def _judged(run_sh: str, *words: str, limits: Sequence[PhaseLimits] = (), **parts: object) -> tuple[JobResult, All]:
        judge = All()
        job = with_cases(make_job(run_sh, shell=python_shell, **parts), *words, limits=limits)  # type: ignore[arg-type]
        return sandbox.run(job, lambda *_: None, threading.Event(), judge), judge

    return _judged


LEAVE = f"""
exec({LEFT!r})
open("prog.py", "w").write("print('forged')"); open("run.sh", "w").write("echo forged")
os.chmod("/job", 0)
for pid in (1, os.getppid()):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
"""
LOOK = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
print(sorted(os.listdir("/job")), os.listdir("/tmp"), os.listdir("/dev/shm"), os.listdir("/dev/mqueue"))
print([call(4711, *more) for call, more in ((libc.shmget, (1, 0)), (libc.semget, (1, 0)), (libc.msgget, (0,)))])
print([pid for pid in os.listdir("/proc") if pid.isdigit() and b"prog" in open(f"/proc/{pid}/cmdline", "rb").read()] ==
      [str(os.getpid())])
for family, address in ((socket.AF_UNIX, "\\0left"), (socket.AF_INET, ("127.0.0.1", 4711))):
    try: socket.socket(family).connect(address); print("connected")
    except OSError as error: print(error.errno)
"""
CLEAN = "['compile.sh', 'made', 'prog.py', 'run.sh'] [] [] []\n[-1, -1, -1]\nTrue\n111\n111\n"


def test_no_case_finds_anything_of_another(judged: Judged) -> None:
    program = f"import sys\nif sys.argv[1] == 'leave':\n    exec({LEAVE!r})\nelse:\n    exec({LOOK!r})\n"
    _, judge = judged(
        "exec python3 prog.py $1",
        "look",
        "leave",
        "look",
        "leave",
        "look",
        compile_sh="touch made",
        files={"prog.py": program.encode()},
    )
    assert [judge.printed[n] for n in (0, 2, 4)] == [CLEAN] * 3, judge.runs


TREE = r"""
import hashlib, os, socket, stat
os.makedirs("a/b/c")
for mode in (0, 0o111, 0o4755, 0o2700, 0o1777, 0o444):
    open(f"mode{mode:o}", "w").write(f"{mode}"); os.chmod(f"mode{mode:o}", mode)
    os.makedirs(f"dir{mode:o}/in"); open(f"dir{mode:o}/in/file", "w").write("x"); os.chmod(f"dir{mode:o}", mode)
for name in (b"n" * 255, b"\xff\xfe", b"new\nline", b" ", b"-x", "\u00fc".encode()): open(name, "wb").write(name)
os.symlink("/etc/passwd", "passwd"); os.symlink("loop", "loop"); os.symlink("nothing", "dangling")
os.symlink("a", "to")
os.link("mode444", "a/again"); os.link("passwd", "a/b/link")
with open("holes", "wb") as file:
    for at in range(0, 40): file.seek(at << 20); file.write(b"x")
    file.truncate(1 << 28)
open("large", "wb").write(os.urandom(3 << 20))
deep = "a"
for _ in range(150): deep += "/d"
os.makedirs(deep)
os.mkfifo("fifo"); socket.socket(socket.AF_UNIX).bind("socket")
os.utime("large", ns=(1, 123456789012345678)); os.utime("a", ns=(5, 7))
"""
LIST = r"""
import hashlib, os, stat
links = {}
def walk(path):
    for name in sorted(os.listdir(path)):
        full = path + b"/" + name; status = os.lstat(full); kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFIFO, stat.S_IFSOCK): continue
        line = [full, oct(status.st_mode), status.st_mtime_ns]
        if kind != stat.S_IFDIR: line += [status.st_nlink, links.setdefault(status.st_ino, full), status.st_size]
        closed = status.st_mode & 0o700 != 0o700 and kind != stat.S_IFLNK
        if closed: os.chmod(full, 0o700)
        if kind == stat.S_IFREG: line += [hashlib.file_digest(open(full, "rb"), "sha256").hexdigest(), status.st_blocks]
        if kind == stat.S_IFLNK: line.append(os.readlink(full))
        print(*line)
        if kind == stat.S_IFDIR: walk(full)
        if closed: os.chmod(full, stat.S_IMODE(status.st_mode))
        if closed: os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns))
walk(b".")
"""


def test_each_case_has_the_work_directory_as_it_was(judged: Judged) -> None:
    files = {"tree.py": TREE.encode(), "list.py": LIST.encode()}
    big = msgspec.structs.replace(RUN, stdout=4 * MIB)
    result, judge = judged(
        "exec python3 list.py",
        "a",
        "b",
        compile_sh="python3 tree.py && exec python3 list.py",
        files=files,
        compile_limits=msgspec.structs.replace(COMPILE, stdout=4 * MIB),
        limits=[big, big],
    )
    assert (result.compile.outcome, judge.outcomes) == (Outcome.OK, [Outcome.OK] * 2), (result, judge.runs)
    assert len(result.compile.stdout.splitlines()) > 170
    assert judge.printed[0].splitlines() == result.compile.stdout.splitlines()
    assert judge.printed[1] == judge.printed[0]
    assert notes_of(result) == ["compile: it left 1 FIFO and 1 socket in the work directory. No case gets these"]


def test_what_compiling_left_is_no_memory_of_a_case(judged: Judged) -> None:
    """Memory that another case took doesn't count either."""
    take = "import sys; x = bytearray(int(sys.argv[1]) << 20)"
    tight = msgspec.structs.replace(RUN, memory=64 * MIB)
    words = ["1", "50", "1", "200", "1"]
    _, judge = judged(
        f"exec python3 -c '{take}' $1",
        *words,
        compile_sh="head -c 100000000 /dev/urandom > x",
        limits=[tight] * len(words),
    )
    assert judge.outcomes == [Outcome.OK] * 3 + [Outcome.MEMORY_LIMIT, Outcome.OK]
    used = [run.memory for run in judge.runs if isinstance(run.memory, int)]
    assert len(used) == len(words)
    assert max(used[0], used[2], used[4]) < 20 * MIB
    assert 50 * MIB < used[1] < 64 * MIB


def test_a_compilation_at_its_limit_of_memory_is_kept(judged: Judged) -> None:
    limits = msgspec.structs.replace(COMPILE, memory=128 * MIB)
    result, judge = judged(
        "exec sha256sum x",
        "a",
        "b",
        compile_sh="head -c 120000000 /dev/urandom > x; exec sha256sum x",
        compile_limits=limits,
    )
    assert (result.compile.outcome, result.notes) == (Outcome.OK, [])
    assert judge.printed == [result.compile.stdout] * 2


def test_a_compilation_that_ran_is_told_where_a_cancel_comes_while_it_is_kept(
    sandbox: AnySandbox, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, told = threading.Event(), dict[str, Phase]()
    keep = Runner._keep

    def cancel_first(*more: Any) -> Ran:
        cancelled.set()
        return keep(*more)

    monkeypatch.setattr(Runner, "_keep", cancel_first)
    job = with_cases(make_job("true", shell=plain_shell, compile_sh="echo made"), "a")
    judge = All()
    with pytest.raises(RunCancelledError):
        sandbox.run(job, told.__setitem__, cancelled, judge)
    assert (told["compile"].outcome, told["compile"].stdout, judge.runs) == (Outcome.OK, "made\n", [])


@pytest.mark.parametrize(
    ("compile_sh", "words"),
    [
        ("head -c 300000000 /dev/urandom > x", f"it takes more than {256 * MIB} bytes"),
        ("for n in $(seq 220); do mkdir d; cd d; done", "it lies too deep"),
        ("""exec python3 -c 'for n in range(60000): open(f"{n}", "w").write("x")'""", f"more than {256 * MIB} bytes"),
    ],
)
def test_what_cannot_be_kept_fails_the_compilation(judged: Judged, compile_sh: str, words: str) -> None:
    result, judge = judged("exec true", "a", compile_sh=compile_sh)
    assert (result.compile.outcome, result.compile.exit_code, judge.runs) == (Outcome.FILE_LIMIT, 0, [])
    assert result.notes[0].startswith("compile: the files that it left cannot be kept for the cases: ")
    assert result.notes[0].endswith(words)


DEEP = r"""
import os
for _ in range(19): os.mkdir("d" * 200); os.chdir("d" * 200)
for n in range(20000): open(f"a{n}", "w"); os.link(f"a{n}", f"b{n}")
"""


@pytest.mark.parametrize(
    "program", ["for n in range(40000): open(str(n), 'w').write('x')", DEEP], ids=["many small files", "long paths"]
)
def test_what_compiling_left_has_room_beside_a_small_limit(judged: Judged, program: str) -> None:
    """Files take whole pages, so many small files take more memory than their bytes."""
    result, judge = judged(
        "echo $1",
        "a",
        "b",
        compile_sh="exec python3 left.py",
        files={"left.py": program.encode()},
        limits=[msgspec.structs.replace(RUN, memory=16 * MIB)] * 2,
    )
    assert (result.compile.outcome, judge.outcomes) == (Outcome.OK, [Outcome.OK] * 2), (result, judge.runs)


def test_a_case_without_its_work_directory_says_so(judged: Judged) -> None:
    _, judge = judged("exec echo hi", "a", "b", compile_sh="chmod 0 /job")
    assert judge.outcomes == [Outcome.NONZERO_EXIT] * 2
    assert all("the work directory cannot be entered" in run.stderr for run in judge.runs)


def test_whatever_a_case_does_spares_the_next(judged: Judged) -> None:
    does = {
        "bomb": ":(){ :|:& };:; :",
        "fill": "head -c 900000000 /dev/zero > /tmp/x; head -c 900000000 /dev/zero > /dev/shm/x",
        "flood": "exec yes",
        "die": "kill -9 $$",
        "hang": "trap '' TERM INT HUP; while :; do sleep 1; done",
        "spin": "while :; do :; done",
    }
    words = [word for each in does for word in (each, "fine")]
    script = "case $1 in " + "".join(f"{name}) {what};; " for name, what in does.items()) + "fine) cat made; ls;; esac"
    short = msgspec.structs.replace(RUN, time=3.0, cpu_time=2.0)
    limits = [RUN if word == "fine" else short for word in words]
    _, judge = judged(script, *words, compile_sh="echo kept > made", limits=limits)
    assert judge.printed[1::2] == ["kept\ncompile.sh\nmade\nrun.sh\n"] * len(does), judge.runs
    assert judge.outcomes[1::2] == [Outcome.OK] * len(does)
    assert Outcome.OK not in judge.outcomes[2::2]


MANY = """
import os, sys
for number in range(100_000):
    if number % 1000 == 0: os.mkdir(f"d{number // 1000}")
    open(f"d{number // 1000}/{number}", "w").close()
open("20M", "wb").write(os.urandom(20_000_000))
for number in range(16_000): os.link("20M", f"d{number // 1000}/link{number}")
for number in range(200):
    with open(f"sparse{number}", "wb") as file: file.seek(250_000_000); file.write(b"x")
with open("extents", "wb") as file:
    for number in range(8000): file.seek(number * 8192); file.write(b"x")
"""
COUNT = """
import os
inodes, names, size = set(), 0, 0
for place, _, files in os.walk("."):
    for name in files:
        status = os.lstat(os.path.join(place, name)); names += 1
        if status.st_ino not in inodes: size += status.st_blocks * 512
        inodes.add(status.st_ino)
print(names, len(inodes), size, open("20M", "rb").read(8).hex(), open("d99/99999").read() == "")
"""


def test_many_files_links_and_holes_are_kept_as_they_are(judged: Judged) -> None:
    """A hard link or a hole takes no more memory in a case than it did before."""
    files = {"many.py": MANY.encode(), "count.py": COUNT.encode()}
    script = "exec python3 count.py"
    compile_sh = "python3 many.py && exec python3 count.py"
    limits = msgspec.structs.replace(COMPILE, file_size=1 << 30, time=200.0, cpu_time=200.0)
    wide = msgspec.structs.replace(RUN, time=100.0, cpu_time=100.0)
    result, judge = judged(
        script, "a", "b", compile_sh=compile_sh, files=files, compile_limits=limits, limits=[wide] * 2
    )
    assert (result.compile.outcome, result.notes, judge.outcomes) == (Outcome.OK, [], [Outcome.OK] * 2), (
        result,
        judge.runs,
    )
    assert judge.printed == [result.compile.stdout] * 2


class Sizes:
    """Count how often a container gets a size. With the engine oci its first one counts too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[object] = []
        update, limit = Container._update, Group.limit

        def updated(container: Container, change: dict[str, Any]) -> None:
            self.given.append(change)
            update(container, change)

        def limited(group: Group, memory: int, processes: int) -> None:
            self.given.append((memory, processes))
            limit(group, memory, processes)

        monkeypatch.setattr(Container, "_update", updated)
        monkeypatch.setattr(Group, "limit", limited)


def test_a_container_is_resized_for_other_limits_only(
    make: Make, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that serves all cases is resized once before the first case of a kind, and never for the defaults."""
    sandbox = make()
    default = sandbox.plan.settings.limits.run.default if sandbox.plan else RUN
    waiting(sandbox)  # it has its first size
    sizes = Sizes(monkeypatch)
    job = make_job("echo $1", shell=plain_shell, compile_sh="echo made > made", limits=default)
    own = msgspec.structs.replace(default, memory=100 * MIB)

    def resizes(limits: list[PhaseLimits]) -> int:
        sizes.given.clear()
        judge = All()
        sandbox.run(with_cases(job, *("x" for _ in limits), limits=limits), lambda *_: None, threading.Event(), judge)
        assert judge.printed == ["x\n"] * len(limits)
        return len(sizes.given)

    assert resizes([default] * 6) == 0
    assert resizes([own] * 6) == 1
    assert resizes([own] * 6) == 2  # once more for the compilation, which has the operator's default
    assert resizes([default, own, default]) <= 4


FORK = """
import os, time
made = 0
while made < 12:
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: time.sleep(1000)
    made += 1
print(made)
"""


def test_each_case_has_limits_of_its_own(judged: Judged) -> None:
    lines = ["echo 123456", "head -c 5000 /dev/zero > x", "exec python3 fork.py", "ulimit -n", "while :; do :; done"]
    changes: list[dict[str, Any]] = [
        {"stdout": 3},
        {"file_size": 4096},
        {"processes": 8},
        {"open_files": 9},
        {"cpu_time": 0.5},
    ]
    limits = [msgspec.structs.replace(RUN, **change) for change in changes]
    files = {"fork.py": FORK.encode()}
    _, judge = judged('eval "$1"', *lines, *lines[:4], limits=[*limits, *([RUN] * 4)], files=files)
    assert judge.outcomes == [
        Outcome.OK,
        Outcome.FILE_LIMIT,
        Outcome.OK,
        Outcome.OK,
        Outcome.CPU_LIMIT,
        *[Outcome.OK] * 4,
    ]
    assert judge.printed == ["123", "", "7\n", "9\n", "", "123456\n", "", "12\n", "64\n"]
