"""Pilots that run as root, with sandboxes of the engine oci, are killed in all ways. Nothing of them is left.

After Slurm's Epilog there is no process, control group or mount of theirs. After the next executor there is no
directory either, and no name in ``tmp/``. tests/sandbox/test_oci_slurm.py is about ordinary users' control groups.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.config import Settings
from tests import engines
from tests.storms import run
from tests.storms.field import Field, Shape
from tests.storms.witness import Pilot

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(900 * engines.SLOWNESS)]
MARK = f"{os.getpid()}.77"  # seconds that programs sleep: a word by which they are found
PROGRAM = f"""\
set -m
trap '' TERM HUP INT
bash -c "trap '' TERM; sleep 1{MARK}; :" &
(sleep 2{MARK}; sleep 3{MARK}) &
sleep 4{MARK}
"""


@pytest.fixture
def field(nix_settings: Settings) -> Iterator[Field]:
    engines.need_oci()
    place = Path(tempfile.mkdtemp(prefix="spoold-killed."))
    place.chmod(0o711)
    made = Field(place, "oci", nix_settings, None, Shape(most=1, slots=1))
    try:
        yield made
    finally:
        run.after(made)
        shutil.rmtree(place)


def the_pilot(field: Field, pilot: Pilot) -> None:
    """Kill it as the kernel does for want of memory."""
    os.kill(pilot.pid, signal.SIGKILL)


def its_step_daemon(field: Field, pilot: Pilot) -> None:
    """Kill the daemon that would end it. Slurm goes on to say that the job runs, so somebody cancels it."""
    os.kill(pilot.step_daemon, signal.SIGKILL)
    field.cluster.run("scancel", pilot.job)


def its_job(field: Field, pilot: Pilot) -> None:
    field.cluster.run("scancel", "--full", "--signal=KILL", pilot.job)


def drop(field: Field) -> None:
    private = field.served.spool / "incoming" / ".forever"
    limits = {"run": {"time": 600, "cpu_time": 600}}
    private.write_text(json.dumps({"files": [{"name": "run.sh", "content": PROGRAM}], "limits": limits}))
    private.rename(private.with_name("forever.json"))


def programs() -> list[str]:
    """Return what runs of the program, as command lines."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                words = (each / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has just ended
                continue
            found += [words] if MARK in words and "sleep" in words else []
    return found


def mounts() -> set[str]:
    return {line.split(" ", 4)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def left(field: Field) -> list[str]:
    """Return what is left of a job on this host."""
    mounted = [each for each in mounts() if str(field.place) in each]
    return [*programs(), *map(str, field.cluster.job_groups()), *mounted]


def test_nothing_is_left_of_a_pilot_that_is_killed(field: Field) -> None:
    drop(field)
    scaler = field.served.processes["scale"]
    before: set[int] = set()
    abandoned: list[str] = []
    kinds: tuple[Callable[[Field, Pilot], None], ...] = (the_pilot, its_step_daemon, its_job)
    for kill in kinds:
        pilot = running(field, before)
        before.add(pilot.pid)
        with stopped(scaler):  # else there is soon another pilot
            assert field.cluster.job_groups()
            kill(field, pilot)
            field.until(lambda: not field.jobs(), f"the job goes on after {kill.__name__} was killed")
            assert left(field) == [], kill.__name__
            assert field.cluster.said("epilog") == ""
            abandoned += field.places()
    assert abandoned, "none of them had a chance to remove its directory"
    running(field, before)
    processes = {Path(each).name.partition("-")[0] for each in field.places()}
    assert len(processes) == 1, "only the last one's directories are there"
    field.served.ctl("cancel", "forever")
    field.until(field.answers, "there is no answer")
    response = json.loads((field.served.spool / "done" / "forever.response.json").read_bytes())
    assert response["status"] == "CANCELLED"
    assert 1 < response["attempt"] <= len(kinds) + 1, "one that lived on may have given it back"
    field.until(lambda: not field.names(), "names are left")
    field.until(lambda: not field.jobs(), "the last job goes on")
    assert (left(field), field.places()) == ([], [])
    assert run.after(field) == []


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def running(field: Field, before: set[int]) -> Pilot:
    """Return the pilot that runs the program, which was none of those before."""
    found: list[Pilot] = []

    def runs() -> bool:
        found[:] = [each for each in field.witness.pilots() if each.pid not in before]
        return bool(found) and len(programs()) >= 3

    field.until(runs, "no pilot runs the program")
    return found[0]
