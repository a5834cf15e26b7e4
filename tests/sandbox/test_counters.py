"""The kernel's counter files as both cgroup versions write them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from spoold.sandbox.inside.counters import Counters
from spoold.sandbox.inside.pages import AHEAD, Pages

MIB = 1024 * 1024
V1 = {
    "cpuacct/cpuacct.usage": "99000000000000\n",
    "memory/memory.stat": "cache 5000\nrss 700\nrss_huge 0\nshmem 2000\ntotal_rss 1\n",
    "memory/memory.usage_in_bytes": "6000\n",
    "memory/memory.max_usage_in_bytes": "9000\n",
    "memory/memory.kmem.usage_in_bytes": "300\n",
    "memory/memory.kmem.max_usage_in_bytes": "400\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids\n",
    "cpu.stat": "usage_usec 99000000000\nuser_usec 1\n",
    "memory.stat": "anon 700\nfile 5000\nkernel 200\nsock 100\nshmem 2000\nanon_thp 5\n",
    "memory.current": "6000\n",
    "memory.peak": "9000\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n",
}
OLD_V2 = V2 | {"memory.stat": "anon 700\nfile 5000\nkernel_stack 100\npagetables 50\nslab 50\nsock 100\nshmem 2000\n"}


def lay(root: Path, files: dict[str, str]) -> Counters:
    """Write ``files`` and open them as counters."""
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(content)
    return Counters(str(root))


def test_all_versions_count_the_same(tmp_path: Path) -> None:
    for name, files, of_kernel in (("v1", V1, 400), ("v2", V2, 0), ("older v2", OLD_V2, 0)):
        counters = lay(tmp_path / name, files)
        now = counters.memory()
        assert (now.heap, now.files, now.cache, now.kernel, now.usage) == (700, 2000, 3000, 300, 6000)
        assert counters.peaks() == (9000, of_kernel)
        assert counters.oom_kills() == 3
        cpu = counters.cpu()
        assert cpu is not None
        assert 0 < 99 * 10**12 - cpu <= time.process_time_ns()


def test_what_is_missing_is_zero(tmp_path: Path) -> None:
    counters = Counters(str(tmp_path))
    now = counters.memory()
    assert (now.heap, now.files, now.cache, now.kernel, now.usage) == (0, 0, 0, 0, 0)
    assert (counters.peaks(), counters.oom_kills(), counters.cpu()) == ((0, 0), 0, None)


class Group:
    """A control group of version 2 whose files a test writes; sizes are bytes."""

    def __init__(self, root: Path, *, resets: bool) -> None:
        self.root = root
        self.own, self.top = 10 * MIB, 0
        self.say(0)
        self.counters = Counters(str(root))
        if resets:
            self.counters.begin_peaks([os.open(root / "memory.peak", os.O_RDWR)])

    def say(self, job: int, *, top: int = 0, cache: int = 0, kernel: int = 0) -> None:
        """Let the job hold so much now, and the whole group have had ``top`` at its most."""
        usage = self.own + job + cache + kernel
        self.top = max(self.top, top, usage)
        lay(
            self.root,
            V2
            | {
                "memory.stat": f"anon {self.own + job}\nfile {cache}\nkernel {kernel}\n",
                "memory.current": f"{usage}\n",
                "memory.peak": f"{self.top:<32}\n",
            },
        )


def test_a_peak_between_two_looks_is_seen(tmp_path: Path) -> None:
    group = Group(tmp_path, resets=False)
    pages = Pages(group.counters)
    group.say(MIB, top=30 * MIB, cache=4 * MIB, kernel=MIB)
    held, most = pages.look(0)
    assert held == MIB - AHEAD // 2
    assert most == 30 * MIB - 4 * MIB - MIB - group.own - AHEAD // 2
    assert pages.look(0) == (held, held)  # it has not risen since


def test_a_peak_that_cannot_begin_anew_hides_what_is_below_it(tmp_path: Path) -> None:
    group = Group(tmp_path, resets=False)
    first = Pages(group.counters)
    group.say(0, top=30 * MIB)
    first.look(0)
    assert first.unseen > 19 * MIB
    second = Pages(group.counters)
    assert second.look(0)[1] == 0
    assert second.unseen > 19 * MIB


def test_a_peak_that_can_begin_anew_hides_nothing(tmp_path: Path) -> None:
    group = Group(tmp_path, resets=True)
    pages = Pages(group.counters)
    assert (tmp_path / "memory.peak").read_text()[0] == "0"  # the kernel would have put its usage there
    group.say(0, top=30 * MIB)
    assert pages.look(0)[1] > 19 * MIB
    assert pages.unseen == 0


def test_files_of_an_earlier_phase_make_no_room_for_more(tmp_path: Path) -> None:
    group = Group(tmp_path, resets=False)
    lay(tmp_path, {"memory.stat": f"anon {10 * MIB}\nfile {40 * MIB}\nshmem {40 * MIB}\n"})
    lay(tmp_path, {"memory.current": str(50 * MIB)})
    pages = Pages(group.counters)
    group.say(8 * MIB)
    held, _ = pages.look(0)
    assert abs(held - 8 * MIB) <= AHEAD
