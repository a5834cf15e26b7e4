"""Things of the whole host that no control group counts: a job can't use them up, or signal to others by them."""

from __future__ import annotations

from tests.sandbox.conftest import Said

TRIES = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, result):
    print(name, result if result >= 0 else errno.errorcode[ctypes.get_errno()])
try:
    os.openpty()
    print("terminal made")
except OSError:
    print("terminal refused")
print("terminals", os.listdir("/dev/pts"))
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
steps = ctypes.create_string_buffer(bytes.fromhex("06000000") + (0x7fff0000).to_bytes(4, "little"), 8)
program = Program(1, ctypes.addressof(steps))
libc.prctl(38, 1, 0, 0, 0)
tell("prctl filter", libc.prctl(22, 2, ctypes.byref(program), 0, 0))
calls = {"x86_64": 317, "aarch64": 277}
tell("seccomp filter", libc.syscall(calls[os.uname().machine], 1, 0, ctypes.byref(program)))
tell("seccomp action", libc.syscall(calls[os.uname().machine], 2, 0, ctypes.byref(ctypes.c_uint(0))))
tell("merge all", libc.prctl(67, 1, 0, 0, 0))
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
tell("merge", libc.madvise(ctypes.c_void_p(page), 4096, 12))
tell("advice", libc.madvise(ctypes.c_void_p(page), 4096, 4))
tell("name", libc.prctl(15, b"name", 0, 0, 0))
for call in ("fsync", "fdatasync"):
    tell(call, getattr(libc, call)(999))  # nothing is done, so there may be no such file
tell("range", libc.sync_file_range(999, 0, 0, 0))
print("waits", open("/proc/sys/net/ipv4/tcp_max_tw_buckets").read().strip())
"""


def test_nothing_of_what_is_the_whole_hosts(said: Said) -> None:
    assert said(TRIES) == [
        "terminal refused",
        "terminals []",
        "prctl filter EINVAL",
        "seccomp filter EINVAL",
        "seccomp action EINVAL",
        "merge all EINVAL",
        "merge EINVAL",
        "advice 0",
        "name 0",
        "fsync 0",
        "fdatasync 0",
        "range 0",
        "waits 1024",
    ]
