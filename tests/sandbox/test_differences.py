"""How a sandbox differs from a plain shell, and what a program has instead: the table of the spec's section 10."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Run, Said

pytestmark = pytest.mark.docker

NETLINK = """
import errno, socket
made = []
for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_RAW | socket.SOCK_CLOEXEC):
    for protocol in range(32):
        for make in (socket.socket, socket.socketpair):
            try: make(socket.AF_NETLINK, kind, protocol)
            except OSError as error: made += [] if error.errno == errno.EAFNOSUPPORT else [(protocol, error)]
            else: made.append(protocol)
print(made)
"""
INTERFACES = """
import array, ctypes, errno, fcntl, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
print(libc.getifaddrs(ctypes.byref(ctypes.c_void_p())), errno.errorcode[ctypes.get_errno()])
room = array.array("B", bytes(1024))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    said = fcntl.ioctl(asking, 0x8912, struct.pack("iP", len(room), room.buffer_info()[0]))  # SIOCGIFCONF
found = room.tobytes()
print(found[:16].rstrip(b"\\0").decode(), socket.inet_ntoa(found[20:24]), struct.unpack("i", said[:4])[0])
print(socket.if_nametoindex("lo"), [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:])
"""
MEMORY = """
import ctypes, errno, os, resource
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure): _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
held, read = ctypes.create_string_buffer(b"secret"), ctypes.create_string_buffer(6)
child = os.fork()
if not child:
    while True: os.read(os.pipe()[0], 1)
vectors = [ctypes.byref(Vector(ctypes.addressof(each), 6)) for each in (read, held)]
for call in (libc.process_vm_readv, libc.process_vm_writev):
    print(call(child, vectors[0], 1, vectors[1], 1, 0), errno.errorcode[ctypes.get_errno()])
print(os.pread(os.open(f"/proc/{child}/mem", os.O_RDONLY), 6, ctypes.addressof(held)), libc.ptrace(16, child, 0, 0))
os.kill(child, 9)
print(len(bytearray(1)), resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY)
resource.setrlimit(resource.RLIMIT_AS, (100 << 20, 100 << 20))
try: bytearray(120 << 20)
except MemoryError: print("refused")
"""
INPUT = """
import errno, mmap, os, select, stat
print(stat.S_ISREG(os.fstat(0).st_mode), os.read(0, 2), os.lseek(0, 0, 0), os.read(0, 9))
print(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:], select.select([0], [], [], 60)[0])
try: select.epoll().register(0)
except OSError as error: print(errno.errorcode[error.errno])
try: os.write(0, b"x")
except OSError as error: print(errno.errorcode[error.errno])
"""

REFUSED = """
import ctypes, errno, fcntl, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, result):
    print(name, result if result >= 0 else errno.errorcode[ctypes.get_errno()])
def tried(name, act):
    try: print(name, act())
    except OSError as error: print(name, errno.errorcode[error.errno])
tell("terminal", libc.posix_openpt(os.O_RDWR))
for name, family, kind, protocol in (
    ("raw", socket.AF_INET, socket.SOCK_RAW, 1), ("icmp", socket.AF_INET, socket.SOCK_DGRAM, 1),
    ("sctp", socket.AF_INET, socket.SOCK_STREAM, 132), ("mptcp", socket.AF_INET, socket.SOCK_STREAM, 262),
    ("packet", socket.AF_PACKET, socket.SOCK_DGRAM, 0), ("vsock", 40, socket.SOCK_STREAM, 0),
):
    tried(name, lambda: socket.socket(family, kind, protocol))
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
before = asking.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
print("buffer", asking.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before)
group = socket.inet_aton("224.0.0.1") + bytes(4)
tried("group", lambda: asking.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group))
tell("user namespace", libc.unshare(0x10000000))
tell("mount", libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))
tell("chroot", libc.chroot(b"/tmp"))
calls = {"x86_64": (321, 425, 250, 298, 323), "aarch64": (280, 425, 219, 241, 282)}[os.uname().machine]
for name, call in zip(("bpf", "io_uring", "keyctl", "perf", "userfaultfd"), calls):
    tell(name, libc.syscall(call, 0, 0, 0, 0, 0))
tell("fixed addresses", libc.personality(0x40000))
tell("huge pages", libc.memfd_create(b"", 4))
tried("ioctl", lambda: fcntl.ioctl(os.open("x", os.O_RDWR | os.O_CREAT), 0x80086601, bytes(8)))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("core dumps", resource.getrlimit(resource.RLIMIT_CORE)[0])
for family in (socket.AF_INET, socket.AF_INET6):
    with socket.create_server(("localhost", 80), family=family): print("port 80")
"""


def test_what_a_sandbox_refuses_is_what_the_spec_says(said: Said) -> None:
    assert said(REFUSED) == [
        "terminal ENOENT",
        *(f"{kind} EPROTONOSUPPORT" for kind in ("raw", "icmp", "sctp", "mptcp")),
        *(f"{kind} EAFNOSUPPORT" for kind in ("packet", "vsock")),
        "buffer True",
        "group ENOPROTOOPT",
        *(f"{call} EPERM" for call in ("user namespace", "mount", "chroot")),
        *(f"{call} EPERM" for call in ("bpf", "io_uring", "keyctl", "perf", "userfaultfd")),
        "fixed addresses EPERM",
        "huge pages ENOMEM",
        "ioctl ENOTTY",
        "core dumps 1",
        "port 80",
        "port 80",
    ]


def test_netlink_is_refused_whatever_is_asked_for(said: Said) -> None:
    """For some kinds of netlink the kernel would load modules, or keep memory that counts for nobody."""
    assert said(NETLINK) == ["[]"]


def test_interfaces_are_told_by_other_means(said: Said) -> None:
    assert said(INTERFACES) == ["-1 EAFNOSUPPORT", "lo 127.0.0.1 40", "1 ['lo']"]


def test_other_processes_memory_and_limits_of_address_space(said: Said) -> None:
    assert said(MEMORY) == ["-1 EPERM", "-1 EPERM", "b'secret' 0", "1 True", "refused"]


def test_standard_input_is_a_file(run: Run, python_shell: str) -> None:
    result = run("python3 main.py", files={"main.py": INPUT.encode()}, stdin=b"input", shell=python_shell)
    assert result.run.stdout.splitlines() == ["True b'in' 0 b'input'", "b'input' [0]", "EPERM", "EBADF"]
    piped = run(
        "cat | python3 -c 'import select; e = select.epoll(); e.register(0); print(len(e.poll(60)))'",
        shell=python_shell,
    )
    assert piped.run.stdout == "1\n"
