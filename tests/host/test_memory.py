"""Memory that a daemon took for a large message goes back to the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HOLD = """
import threading
from spoold.host.memory import Unused, resident, share_arena

def work():
    for _ in range(4):
        b"x" * (16 << 20)

share_arena()
unused = Unused()
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
after = resident()
unused.step()
grown = resident()
unused.step()
print(after - before, grown - before, resident() - before)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another libc")
def test_large_pieces_go_back_once_nothing_grows() -> None:
    """The pieces are a thread's, which would keep 16 MiB in its own arena.

    They stay while the process may still grow.
    """
    done = subprocess.run([sys.executable, "-c", HOLD], check=True, capture_output=True)
    after, grown, then = (int(word) >> 20 for word in done.stdout.split())
    assert after >= 12
    assert grown >= 12
    assert then < 4


USED = """
import threading
from spoold.host.memory import Unused, resident, share_arena

def work():
    b"x" * (16 << 20)  # from then on such a piece lies in the arena
    held = b"x" * (16 << 20)
    for _ in range(3): unused.step()

share_arena()
unused = Unused()
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
for _ in range(8): unused.step()
print(resident() - before)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another libc")
def test_a_large_piece_goes_back_that_was_in_use_at_a_look() -> None:
    done = subprocess.run([sys.executable, "-c", USED], check=True, capture_output=True)
    assert int(done.stdout) >> 20 < 4


SMALLER = """
from spoold.host.memory import Unused, resident, share_arena

share_arena()
unused = Unused()
b"x" * (16 << 20)  # from then on a smaller piece lies in the arena
before = resident()
b"x" * (4 << 20)
after = resident()
for _ in range(3): unused.step()
print(after - before, resident() - before)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another libc")
def test_a_few_megabytes_go_back_too() -> None:
    done = subprocess.run([sys.executable, "-c", SMALLER], check=True, capture_output=True)
    after, then = (int(word) >> 20 for word in done.stdout.split())
    assert after >= 3
    assert then < 2


NEEDED = """
import ctypes
from spoold.host import memory

calls = []
ctypes.CDLL = lambda _: type("Libc", (), {"malloc_trim": staticmethod(calls.append)})
unused = memory.Unused()
kept = [bytes([1]) * 1000 for _ in range(50_000)]
for _ in range(1000): unused.step()
print(len(calls))
"""


def test_who_needs_all_that_they_have_is_asked_seldom() -> None:
    done = subprocess.run([sys.executable, "-c", NEEDED], check=True, capture_output=True)
    assert 1 <= int(done.stdout) <= 10


def test_memory_that_was_freed_is_given_back() -> None:
    """A process of its own does this, because others may hold the memory that this one frees."""
    code = """
import os
from spoold.host import memory
pieces = [bytearray(100_000) for _ in range(1000)]
last = bytearray(100_000)  # so that the heap does not shrink by itself
del pieces
held = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = held()
memory.give_back()
assert held() < before - 50_000_000, (before, held())
"""
    # otherwise each piece would be the kernel's by itself
    environment = {"MALLOC_MMAP_THRESHOLD_": "1000000"} | os.environ
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
