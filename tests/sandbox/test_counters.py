"""The kernel's counter files as both cgroup versions write them."""

from __future__ import annotations

import time
from pathlib import Path

from spoold.sandbox.inside.counters import Counters

V1 = {
    "cpuacct/cpuacct.usage": "99000000000000\n",
    "memory/memory.stat": "cache 5000\nrss 700\nrss_huge 0\nshmem 2000\ntotal_rss 1\n",
    "memory/memory.max_usage_in_bytes": "9000\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids\n",
    "cpu.stat": "usage_usec 99000000000\nuser_usec 1\n",
    "memory.stat": "anon 700\nfile 5000\nkernel 1\nshmem 2000\nanon_thp 5\n",
    "memory.peak": "9000\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n",
}


def lay(root: Path, files: dict[str, str]) -> Counters:
    """Write ``files`` and open them as counters."""
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(content)
    return Counters(str(root))


def test_both_versions_count_the_same(tmp_path: Path) -> None:
    for name, files in (("v1", V1), ("v2", V2)):
        counters = lay(tmp_path / name, files)
        assert counters.memory() == (700, 2000, 3000)
        assert counters.peak() == 9000
        assert counters.oom_kills() == 3
        cpu = counters.cpu()
        assert cpu is not None
        assert 0 < 99 * 10**12 - cpu <= time.process_time_ns()


def test_what_is_missing_is_zero(tmp_path: Path) -> None:
    counters = Counters(str(tmp_path))
    assert (counters.memory(), counters.peak(), counters.oom_kills(), counters.cpu()) == ((0, 0, 0), 0, 0, None)
