"""A job is the first to be killed where the host runs out of memory, and cannot change that."""

from __future__ import annotations

from spoold.model.response import Outcome
from tests.sandbox.conftest import Run

TRIES = """
import errno, glob, os, threading
for _ in range(2):  # the first is the child's
    child = os.fork()
    if child: os.waitpid(child, 0)
    for path in ("/proc/self/oom_score_adj", "/proc/thread-self/oom_score_adj", "/proc/self/oom_adj"):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try: os.write(os.open(path, flags), b"0")
            except OSError as error: print(errno.errorcode[error.errno])
            else: print("written")
    print(open("/proc/self/oom_score_adj").read().strip())
    if not child: os._exit(0)
    break
"""


def test_a_job_cannot_make_itself_less_likely_to_be_killed(run: Run, python_shell: str) -> None:
    phase = run("exec python3 -u main.py", files={"main.py": TRIES.encode()}, shell=python_shell).run
    assert phase.stderr == ""
    assert phase.stdout.split() == (["EACCES"] * 9 + ["1000"]) * 2
    phase = run("for n in self $$ $PPID; do echo 0 >/proc/$n/oom_score_adj || echo refused; done").run
    assert phase.stdout == "refused\n" * 3


WRITES = """
import ctypes, mmap, os, socket, tempfile
def again(descriptor, flags=os.O_WRONLY):
    return os.open(f"/proc/self/fd/{descriptor}", flags)
os.makedirs("one/two"); os.makedirs("three")
open("one/two/f", "w").write("x"); os.rename("one/two/f", "three/g"); os.link("three/g", "one/h")
os.rename("one/two", "three/two")
gone = tempfile.TemporaryFile(dir="/job"); os.write(again(gone.fileno()), b"x")
memory = os.memfd_create("m"); os.write(again(memory), b"x")
reader, writer = os.pipe(); os.write(again(writer), b"x")
os.mkfifo("/tmp/fifo"); os.open("/tmp/fifo", os.O_RDWR)
for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/shm/x", "/tmp/x", "/job/x"):
    os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mq_open(b"/queue", os.O_RDWR | os.O_CREAT, 0o600, None) >= 0, os.strerror(ctypes.get_errno())
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
ctypes.memset(libc.shmat(segment, None, 0), 1, 4096)
mmap.mmap(-1, 4096)[0] = 1
server = socket.socket(socket.AF_UNIX); server.bind("/tmp/s"); server.listen()
socket.socket(socket.AF_UNIX).connect("/tmp/s")
for name, descriptor in (("stdout", 1), ("stderr", 2)):
    os.write(os.open(f"/dev/{name}", os.O_WRONLY), f"{name} {descriptor}\\n".encode())
"""


def test_a_job_writes_to_all_that_is_its_own(run: Run, python_shell: str) -> None:
    phase = run("exec python3 main.py", files={"main.py": WRITES.encode()}, shell=python_shell).run
    assert (phase.outcome, phase.stdout, phase.stderr) == (Outcome.OK, "stdout 1\n", "stderr 2\n")
