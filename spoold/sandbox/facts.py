"""What the host and the program in the sandbox have to agree on; the program gets it as a header, see ``program``."""

from __future__ import annotations

from spoold.sandbox.messages import VERSION

JOB_UID = 65533  # of jobs in cells, where all uids are the cell's own
# Uids that no system gives out, below 65536 for userns-remap, one for each container: the kernel's quotas per user are
# then no two jobs' together. Where there are cells, the two uids after it are the container's too.
HOLDERS = range(60706, 61184, 3)
WORDS = 3  # the descriptor from which the shell that enters the job's environment reads what it is to become
AHEAD = 512 * 1024  # bytes that the kernel counts ahead of their use, at most, see ``inside/pages.c``
EXACT = 1024 * 1024  # bytes by which what is told may be wrong: so a phase is over its limit from there on

TAIL = 64 * 1024  # bytes of each output that a supervisor tells on the way, at most, see ``inside/live.c``
PACE = 1  # seconds between two times that it does so, at least

SOCKET = 512 * 1024  # bytes that a socket may hold at most, see BUFFERS and net.core.rmem_default

# What of /proc is not about processes and no program of a job needs: an engine hides it, or a cell. What only root may
# read is closed to jobs anyway; some engines hide a part of that, and so do we.
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
# What passes through pseudo-terminals is work of the kernel's own threads, for which no job could be charged, and there
# is one number of them for all containers: so there are none.
HIDDEN_DIRECTORIES = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "sys/fs/quota")),
    "/dev/pts",
)
# What is left of a control group for a job to read.
LIMITS_V2 = ("cgroup.controllers", "memory.max", "memory.high")
LIMITS_V1 = ("memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes")
ETC = ("hostname", "hosts", "resolv.conf")  # what an engine mounts over the image's own
KEPT = "/spoold/etc"  # where the image has them too
LINE, LINE_NAME = "/spoold/line", "socket"  # where an engine may put a socket on which the supervisor calls
# Bytes at least, at first and at most of a TCP socket; the kernel's usual 6 MB would be host memory that, on cgroup v1,
# no job is charged for.
BUFFERS = {
    "net.ipv4.tcp_rmem": "4096 65536 262144",
    "net.ipv4.tcp_wmem": "4096 16384 262144",
    "net.ipv4.tcp_max_tw_buckets": "1024",  # connections that were closed, which nobody is charged for
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
}
