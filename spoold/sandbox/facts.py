"""What the host and the program in the sandbox have to agree on. The program gets it as a header, see ``program``."""

from __future__ import annotations

from spoold.sandbox.messages import VERSION

JOB_UID = 65533  # of jobs in cells; a cell has all uids to itself
# One uid for each container. No system gives these uids out, and they are below 65536 for userns-remap. Each container
# has its own, so no two jobs share the kernel's quotas per user. With cells, a container has the two uids after it too.
HOLDERS = range(60706, 61184, 3)
WORDS = 3  # the shell that enters the job's environment reads from this descriptor what to run
AHEAD = 512 * 1024  # bytes that the kernel counts before they are used, at most, see ``inside/pages.c``
EXACT = 1024 * 1024  # bytes by which a measured size may be wrong; a phase is over its limit only from there on

TAIL = 64 * 1024  # bytes of each output that a supervisor reports during a phase, at most, see ``inside/live.c``
PACE = 1  # seconds between two such reports, at least
WINDOW = 64 * 1024  # bytes that a program in a talk may be ahead of the other, see ``inside/talk.c``

SOCKET = 512 * 1024  # bytes that a socket may hold at most, see NETWORK and net.core.rmem_default

# Files of /proc that are not about processes and that no program of a job needs. An engine or a cell hides them. Files
# that only root may read are closed to jobs anyway. Some engines hide a part of those too, and so do we.
HIDDEN_FILES = tuple(
    f"/proc/{name}"
    for name in (
        *("bootconfig", "buddyinfo", "cmdline", "diskstats", "interrupts", "kcore", "key-users", "keys"),
        *("latency_stats", "locks", "mdstat", "modules", "partitions", "sched_debug", "schedstat", "softirqs", "swaps"),
        *("sysrq-trigger", "timer_list", "timer_stats", "zoneinfo"),
        *("sys/fs/aio-nr", "sys/fs/dentry-state", "sys/fs/file-nr", "sys/fs/inode-nr", "sys/fs/inode-state"),
        *("sys/kernel/pty/nr", "sys/kernel/random/entropy_avail"),
    )
)
# Pseudo-terminals are hidden too. The kernel's own threads do the work on what passes through them, and no job could be
# charged for that work. All containers also share one limit on their number.
HIDDEN_DIRECTORIES = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "sys/fs/quota")),
    "/dev/pts",
)
# The files of a control group that a job can still read.
LIMITS_V2 = ("cgroup.controllers", "memory.max", "memory.high")
LIMITS_V1 = ("memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes")
ETC = ("hostname", "hosts", "resolv.conf")  # an engine mounts these over the image's own
KEPT = "/spoold/etc"  # where the image has a second copy of them
LINE, LINE_NAME = "/spoold/line", "socket"  # where an engine may mount a socket on which the supervisor calls
# Settings of each job's network. Two of them are the bytes of the buffer of a TCP socket: at least, at first, and at
# most. The kernel's usual 6 MB would be memory of the host that, on cgroup v1, no job is charged for.
NETWORK = {
    "net.ipv4.tcp_rmem": "4096 65536 262144",
    "net.ipv4.tcp_wmem": "4096 16384 262144",
    "net.ipv4.tcp_max_tw_buckets": "1024",  # closed connections that the kernel remembers, and charges to nobody
    # A job is alone in its network. Docker sets this for its containers, and a namespace that we make has 1024.
    "net.ipv4.ip_unprivileged_port_start": "0",
}
NUMBERS = {
    "VERSION": VERSION,
    "JOB_UID": JOB_UID,
    "WORDS": WORDS,
    "AHEAD": AHEAD,
    "EXACT": EXACT,
    "SOCKET": SOCKET,
    "TAIL": TAIL,
    "PACE": PACE,
    "WINDOW": WINDOW,
}
