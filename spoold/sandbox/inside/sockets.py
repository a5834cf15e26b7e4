"""What the TCP and UDP sockets of a job hold: memory that cgroup v1 charges to nobody, and v2 not all of.

Theory of operation. A job has a network namespace, so all sockets in it are the job's. The kernel says how many there
are (``/proc/net/sockstat``); while there are none, that is all. What each of them holds it tells those who ask by
sock_diag(7): data received and not yet read, data not yet sent, options. This walks the kernel's tables, so it takes a
bounded share of the time. All that a socket may hold is what it counts with where that cannot be asked: of sockets that
are too many to be asked for often enough; where the kernel lacks INET_DIAG; and of those that have no address any more,
which are not in the tables. These are the sockets that neither have an address nor are Unix ones; programs have few.

What waits in Unix sockets and pipes the kernel charges to the job's group itself.
"""

from __future__ import annotations

import os
import time

from .kernel import libc

AF_NETLINK, SOCK_RAW, SOCK_CLOEXEC, NETLINK_SOCK_DIAG = 16, 3, 0o2000000, 4
SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP = 20, 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
SKMEMINFO = 7  # the attribute; bit 6 of what a request asks for
HEADER, FIXED = 16, 88  # bytes of a message's header, and up to its attributes
# In that attribute, 32 bits each: received, (limit), under way, (limit), reserved, queued, options, backlog.
RECEIVED, UNDER_WAY, QUEUED, OPTIONS, BACKLOG = 0, 2, 5, 6, 7
KINDS = ((b"TCP", 2, 6), (b"UDP", 2, 17), (b"TCP6", 10, 6), (b"UDP6", 10, 17))  # with address family and protocol
MOST = 1024  # sockets that are asked for; it takes some 5 ms
FEW = 8  # sockets without an address that count with nothing
EACH = 512 * 1024  # bytes that one may hold at most, see ``cell.BUFFERS`` and net.core.rmem_default
SHARE = 10  # looks take a tenth of the time at most


class Sockets:
    """The sockets of the network namespace that this process is in."""

    def __init__(self) -> None:
        self._counts = [_open("/proc/net/sockstat"), _open("/proc/net/sockstat6")]
        self._kinds = _open("/proc/net/protocols")
        self._netlink = -1
        self._held, self._next = 0, 0.0
        self._hidden = 0  # what there was before the job
        self._hidden = self._without_address(*self._count())

    def held(self, *, again: bool = False) -> int:
        """Return the bytes that they hold: as seen a little earlier, unless ``again`` says to look now."""
        if again or time.monotonic() >= self._next:
            began = time.monotonic()
            self._held = self._look()
            ended = time.monotonic()
            self._next = ended + SHARE * (ended - began) if self._held else 0.0
        return self._held

    def close(self) -> None:
        """Close what was opened."""
        for descriptor in (*self._counts, self._kinds, self._netlink):
            if descriptor >= 0:
                os.close(descriptor)

    def _look(self) -> int:
        used, counts = self._count()
        hidden = max(0, self._without_address(used, counts) - FEW) * EACH
        if not any(counts):
            return hidden
        try:
            if sum(counts) <= MOST:
                asked = (kind for kind, count in zip(KINDS, counts, strict=True) if count)
                return hidden + sum(self._ask(family, protocol) for _, family, protocol in asked)
        except OSError:
            pass  # which may be the job's doing, by using up what the kernel has
        return hidden + sum(counts) * EACH

    def _count(self) -> tuple[int, list[int]]:
        """Return how many sockets there are of any kind, and how many with an address of each of ``KINDS``."""
        text = b"\n" + b"".join(_read(file) for file in self._counts)
        return _number_after(text, b"\nsockets: used "), [
            _number_after(text, b"\n%b: inuse " % kind[0]) for kind in KINDS
        ]

    def _without_address(self, used: int, counts: list[int]) -> int:
        rest = used - sum(counts) - self._hidden
        if rest > FEW:
            rows = [line.split() for line in _read(self._kinds).splitlines()]
            rest -= sum(int(row[2]) for row in rows if row[0].startswith(b"UNIX"))
        return rest

    def _ask(self, family: int, protocol: int) -> int:
        """Return the bytes that the sockets of a kind hold; raise OSError where the kernel does not tell."""
        if self._netlink < 0:
            self._netlink = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        body = bytes((family, protocol, 1 << (SKMEMINFO - 1), 0)) + b"\xff" * 4 + bytes(48)
        kind = SOCK_DIAG_BY_FAMILY | REQUEST_AND_DUMP << 16
        os.write(self._netlink, b"".join(n.to_bytes(4, "little") for n in (HEADER + len(body), kind, 0, 0)) + body)
        total = 0
        while True:
            answer = memoryview(os.read(self._netlink, 65536))
            while answer:
                size, kind = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:6], "little")
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    error = -int.from_bytes(answer[HEADER : HEADER + 4], "little", signed=True)
                    if error:
                        raise OSError(error, os.strerror(error))
                    return total
                total += _memory(answer[FIXED:size].cast("I"))
                answer = answer[(size + 3) & ~3 :]


def tells() -> bool:
    """Tell whether the kernel says what a socket holds."""
    sockets = Sockets()
    try:
        for _, family, protocol in KINDS:
            sockets._ask(family, protocol)
    except OSError:
        return False
    finally:
        sockets.close()
    return True


def _memory(words: memoryview) -> int:
    """Return the bytes that a socket with these attributes holds."""
    at = 0
    while at < len(words):
        head = words[at]
        if head >> 16 == SKMEMINFO:
            at += 1
            sent = max(words[at + UNDER_WAY], words[at + QUEUED])  # TCP has in both what is on its way
            return int(words[at + RECEIVED] + sent + words[at + OPTIONS] + words[at + BACKLOG])
        at += max(1, (head & 0xFFFF) + 3 >> 2)
    return 0  # of a connection that is closed and remembered for a while


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, 16384, 0) if descriptor >= 0 else b""


def _number_after(text: bytes, words: bytes) -> int:
    at = text.find(words)
    return int(text[at + len(words) :].split(None, 1)[0]) if at >= 0 else 0
