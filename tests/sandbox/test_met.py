"""The supervisor measures which limit was met. A program can neither claim a limit nor hide one that it met."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spoold.model.limits import COMPILE_DEFAULT, MIB
from spoold.model.response import Outcome
from tests.engines import SLOWNESS
from tests.sandbox.conftest import RUN, Run

pytestmark = pytest.mark.docker

SMALL = replace(RUN, file_size=MIB, time=600 * SLOWNESS)
EXCEPTION = "open('big', 'wb').write(bytes(2 << 20))\n"
CATCHER = """
import signal, time
caught = []
signal.signal(signal.SIGXCPU, lambda *_: caught.append(1))
while time.process_time() < 0.3: pass
"""


def said_by_itself() -> dict[str, tuple[str, Outcome, str, int | None]]:
    """Return scripts that claim to have met a limit: the script, and its outcome, signal and exit code."""
    made: dict[str, tuple[str, Outcome, str, int | None]] = {}
    for code, name in ((137, "SIGKILL"), (139, "SIGSEGV"), (152, "SIGXCPU"), (153, "SIGXFSZ")):
        made[f"exit {code}"] = (f"exit {code}", Outcome.SIGNALLED, name, code)
    for code in (1, 124, 143, 158, 255):
        made[f"exit {code}"] = (f"exit {code}", Outcome.NONZERO_EXIT, "", code)
    for name in ("XCPU", "XFSZ", "KILL"):
        made[f"kill -{name}"] = (f"kill -{name} $$", Outcome.SIGNALLED, f"SIG{name}", None)
        made[f"a child's {name}"] = (f"bash -c 'kill -{name} $$'; exit $?", Outcome.SIGNALLED, f"SIG{name}", None)
    words = "echo 'File size limit exceeded' >&2; echo 'CPU time limit exceeded (core dumped)' >&2; exit 1"
    made["words"] = (words, Outcome.NONZERO_EXIT, "", 1)
    made["a limit of its own"] = ("ulimit -f 1; head -c 4096 /dev/zero >own", Outcome.SIGNALLED, "SIGXFSZ", 153)
    made["CPU of its own"] = ("ulimit -S -t 1; exec bash -c 'while :; do :; done'", Outcome.SIGNALLED, "SIGXCPU", None)
    return made


CLAIMS = said_by_itself()


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_program_says_names_no_limit(run: Run, name: str) -> None:
    script, outcome, signal, code = CLAIMS[name]
    phase = run(script, limits=replace(RUN, time=600 * SLOWNESS)).run
    assert (phase.outcome, phase.signal) == (outcome, signal), phase
    if not name.startswith("a child's"):
        assert phase.exit_code == code


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exec head -c 2M /dev/zero >big", None),
        ("head -c 2M /dev/zero >big", 153),
        ("head -c 2M /dev/zero >big; exit 0", 0),
        ("trap '' XFSZ; head -c 2M /dev/zero >/tmp/big; exit 0", 0),
        ("mkdir -p a/b; head -c 2M /dev/zero >a/b/.hidden; exit 7", 7),
        ("head -c 2M /dev/zero >/dev/shm/big; kill -9 $$", None),
        ("exec python3 main.py", 1),
        ("head -c 1M /dev/zero >big; echo >>big; exit 0", 0),
    ],
)
def test_a_file_that_is_too_large_is_seen(run: Run, python_shell: str, script: str, code: int | None) -> None:
    phase = run(script, files={"main.py": EXCEPTION.encode()}, shell=python_shell, limits=SMALL).run
    assert (phase.outcome, phase.exit_code) == (Outcome.FILE_LIMIT, code), phase


def test_a_file_of_exactly_the_limit_is_none_too_large(run: Run) -> None:
    script = "head -c 1M /dev/zero >big; truncate -s 1M sparse; ln -s big link; bash -c 'ulimit -f'; stat -c %s big"
    phase = run(script, limits=SMALL).run
    assert (phase.outcome, phase.stdout) == (Outcome.OK, f"1024\n{MIB}\n")


def test_a_large_file_of_an_earlier_phase_is_not_the_runs(run: Run) -> None:
    compile_sh = f"truncate -s {MIB + 1} seen; truncate -s 3M large"
    result = run("mv seen /job/moved && cat large moved | wc -c; exit 3", compile_sh=compile_sh, limits=SMALL)
    assert (result.compile.outcome, result.run.outcome, result.run.exit_code) == ("ok", "nonzero_exit", 3)
    assert result.run.stdout == f"{4 * MIB + 1}\n"


def test_many_directories_with_long_paths_take_nothing_from_anybody(run: Run) -> None:
    """Storing the path of each would take more memory than the sandbox has, and looking each up would take minutes."""
    deep = 'name=$(printf \'%240s\' x); for n in {1..16}; do mkdir "$name"; cd "$name"; done; mkdir {1..30000}'
    phase = run(f"{deep}; exit 3", limits=replace(RUN, memory=64 * MIB, time=600 * SLOWNESS)).run
    assert (phase.outcome, phase.exit_code, phase.stderr) == (Outcome.NONZERO_EXIT, 3, "")


def test_a_cpu_limit_that_the_program_hides_is_told(run: Run, python_shell: str) -> None:
    """The program catches the warning signal, and exits with 0 if it gets that far."""
    limits = replace(RUN, cpu_time=0.2, time=600 * SLOWNESS)
    phase = run("exec python3 main.py", files={"main.py": CATCHER.encode()}, shell=python_shell, limits=limits).run
    assert phase.outcome is Outcome.CPU_LIMIT


def test_output_beyond_the_limit_is_dropped_and_the_program_runs_on(run: Run) -> None:
    phase = run("head -c 200000 /dev/zero | tr '\\0' x; echo end >&2", limits=RUN).run
    assert (phase.outcome, phase.stdout_bytes, phase.stderr) == (Outcome.OK, 200000, "end\n")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("name", ["compile", "run"])
def test_a_phase_can_end_at_its_output_limit(run: Run, stream: str, name: str) -> None:
    ends = replace(RUN, on_output_limit="end", time=600 * SLOWNESS, cpu_time=600 * SLOWNESS)
    compile_limits = ends if name == "compile" else COMPILE_DEFAULT
    endless = "exec yes" + (" >&2" if stream == "stderr" else "")
    compile_sh = endless if name == "compile" else None
    result = run(endless, compile_sh=compile_sh, limits=ends, compile_limits=compile_limits)
    phase = getattr(result, name)
    assert (phase.outcome, phase.signal, phase.exit_code) == (Outcome.OUTPUT_LIMIT, "SIGKILL", None), phase
    assert getattr(phase, stream) == "y\n" * (RUN.stdout // 2)
    assert getattr(phase, f"{stream}_truncated")
    assert getattr(phase, f"{stream}_bytes") > RUN.stdout
    if name == "compile":
        assert result.run.outcome is Outcome.SKIPPED


@pytest.mark.parametrize(("more", "outcome"), [(0, Outcome.OK), (1, Outcome.OUTPUT_LIMIT)])
def test_the_first_byte_above_the_limit_counts_though_the_program_has_ended(
    run: Run, more: int, outcome: Outcome
) -> None:
    limits = replace(RUN, stdout=1000, stderr=10, on_output_limit="end")
    phase = run(f"printf 1234567890 >&2; printf '%{1000 + more}s' x", limits=limits).run
    assert (phase.outcome, phase.stdout_bytes, len(phase.stdout)) == (outcome, 1000 + more, 1000)


@pytest.mark.parametrize("code", [0, 5])
def test_an_exit_code_that_was_reached_is_told_beside_the_output_limit(run: Run, code: int) -> None:
    limits = replace(RUN, stdout=1, on_output_limit="end")
    phase = run(f"exec bash -c 'printf ab; exit {code}'", limits=limits).run
    assert phase.outcome is Outcome.OUTPUT_LIMIT
    assert phase.exit_code in (code, None)  # None if the supervisor saw the output first
