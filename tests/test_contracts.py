"""Engines and their stand-ins pass the same contract tests, so a test with a stand-in holds for the engine too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from spoold import engines
from spoold.actors.builder import Backend
from spoold.config import DockerSettings, OciSettings, SandboxSettings, Settings, SpoolSettings
from spoold.model.checkers import files_for_talk
from spoold.model.errors import TemporaryError
from spoold.model.job import Job, JobCase, JobFile, JobResult
from spoold.model.limits import COMPILE_DEFAULT, RUN_DEFAULT
from spoold.model.outputs import Output, Wanted
from spoold.model.response import Outcome, Phase
from spoold.sandbox import Check, RunCancelledError, Sandbox, Talked
from tests.engines import need_oci
from tests.returned import contents
from tests.sandbox.test_cases import All
from tests.standins import PlainBackend, PlainSandbox

REAL = [pytest.mark.docker, pytest.mark.nix]
ENGINES = ["stand-in", pytest.param("docker", marks=REAL), pytest.param("oci", marks=REAL)]
STORES = ["stand-in", pytest.param("real", marks=pytest.mark.nix)]
FINE = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { packages = [ pkgs.hello ]; }"
# Seconds until a run is ended. Later tries have more, in case the machine stood still before the run had printed.
LONGER = (1.0, 4.0, 16.0)
BROKEN = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { packages = [ broken ]; }"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Sandbox, str]]:
    """Yield a prepared engine, and the store path of a shell for it."""
    made: Sandbox = PlainSandbox()
    shell = "/nix/store/shell"
    if request.param != "stand-in":
        if request.param == "oci":
            need_oci()
        settings = Settings(
            docker=DockerSettings(host="" if request.param == "oci" else request.getfixturevalue("docker_host")),
            oci=OciSettings(state=str(tmp_path / "oci")),
            sandbox=SandboxSettings(engine=request.param, waiting=2),
            spool=SpoolSettings(path=str(tmp_path)),
            nix=request.getfixturevalue("nix_settings").nix,
        )
        made = engines.find(settings.sandbox.engine).make(settings, request.getfixturevalue("runtime"))
        shell = request.getfixturevalue("plain_shell")
    made.prepare()
    yield made, shell
    made.close()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> tuple[Backend, dict[str, str]]:
    """Return a store, and the location of a nixpkgs for it."""
    made: Backend = PlainBackend()
    location = "/srv/nixpkgs"
    if request.param == "real":
        made, location = request.getfixturevalue("nix_builder"), str(request.getfixturevalue("nixpkgs_debian"))
    return made, {"default": location}


@pytest.fixture
def backend(store: tuple[Backend, dict[str, str]]) -> Backend:
    made, pins = store
    made.prepare(pins)
    return made


def job(shell: str, script: str, compile_: str | None = None, **changes: object) -> Job:
    files = [JobFile("run.sh", script.encode(), 0o755), JobFile("sub/data", b"\0\xff", 0o644)]
    if compile_ is not None:
        files.append(JobFile("compile.sh", compile_.encode(), 0o755))
    made = Job(
        submission_id="contract",
        attempt=1,
        files=files,
        stdin=b"",
        args=[],
        env={},
        compile=None if compile_ is None else COMPILE_DEFAULT,
        run=RUN_DEFAULT,
        shell=shell,
        nixpkgs="/nix/store/nixpkgs",
    )
    return msgspec.structs.replace(made, **changes)


def test_stdin_args_env_and_files_reach_the_program(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    wanted = job(shell, 'cat; cat sub/data; echo "$1|$2|$A"', stdin=b"i\0n", args=["--x", ""], env={"A": "1\n2"})
    result = sandbox.run(wanted, lambda *_: None, threading.Event())
    assert result.run.outcome is Outcome.OK
    assert result.compile.outcome is Outcome.SKIPPED
    assert result.run.stdout_encoding == "base64"
    assert result.run.stdout_bytes == len(b"i\0n\0\xff--x||1\n2\n")


def test_a_program_that_has_read_its_input_may_go_on(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    result = sandbox.run(job(shell, "cat; sleep 0.3; echo end", stdin=b"in\n"), lambda *_: None, threading.Event())
    assert result.run.stdout == "in\nend\n"


def test_phases_are_told_as_they_end(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    told: list[tuple[str, Outcome]] = []

    def on_phase(name: str, phase: Phase) -> None:
        assert isinstance(phase.outcome, Outcome)
        told.append((name, phase.outcome))

    result = sandbox.run(job(shell, "cat made", "echo x > made"), on_phase, threading.Event())
    assert told == [("compile", Outcome.OK), ("run", Outcome.OK)]
    assert result.run.stdout == "x\n"


def test_files_come_back_of_a_run_also_of_one_that_fails(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    outputs = [Output(path="out/**"), Output(path="none", required=True), Output(path="*.txt", required=True)]
    wanted = Wanted(outputs=outputs, files=10, file_size=1000, total=1000)
    script = "mkdir -p out/a; echo 1 >out/a/1; echo 2 >out/2; echo x >x.txt; ln -s x.txt y.txt; exit 3"
    result = sandbox.run(job(shell, script, outputs=wanted), lambda *_: None, threading.Event())
    assert result.run.outcome is Outcome.NONZERO_EXIT
    assert result.outputs
    assert result.outputs.missing == ["none"]
    assert contents(result.outputs) == {"out/2": b"2\n", "out/a/1": b"1\n", "x.txt": b"x\n"}
    failed = sandbox.run(job(shell, "true", "exit 4", outputs=wanted), lambda *_: None, threading.Event())
    assert failed.outputs is None


def test_files_come_back_of_each_case_as_long_as_those_before_left_room(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    wanted = Wanted(outputs=[], files=3, file_size=1000, total=1000)
    asked = [Output(path="f*", required=True)]
    plain = job(shell, 'for n in $1; do echo "$n" >f$n; done', "true", outputs=wanted)
    words = ("1 2", "", "3 4", "5")
    cases = [
        JobCase(name=word, stdin=b"", args=[word], env={}, limits=plain.run, outputs=asked if word else [])
        for word in words
    ]
    judge = All()
    plain = msgspec.structs.replace(plain, cases=cases)
    result = sandbox.run(plain, lambda *_: None, threading.Event(), judge)
    assert judge.outcomes == [Outcome.OK] * 4
    assert result.outputs is None
    assert [(number, [file.name for file in each.files]) for number, each in result.of_cases.items()] == [
        (0, ["f1", "f2"]),
        (2, ["f3"]),
        (3, []),
    ]
    assert [each.missing for each in result.of_cases.values()] == [[], [], ["f*"]]
    assert [bool(notes) for notes in judge.notes] == [False, False, True, True]
    assert contents(result.of_cases[2]) == {"f3": b"3\n"}
    result.close()


def test_a_failed_compilation_ends_the_job(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    result = sandbox.run(job(shell, "echo no", "exit 4"), lambda *_: None, threading.Event())
    assert (result.compile.outcome, result.compile.exit_code) == (Outcome.NONZERO_EXIT, 4)
    assert result.run.outcome is Outcome.SKIPPED


def test_the_time_limit_and_what_was_printed_before_it(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    for seconds in LONGER:
        short = msgspec.structs.replace(RUN_DEFAULT, time=seconds, stdout=10)
        result = sandbox.run(job(shell, "echo 0123456789abc; sleep 60", run=short), lambda *_: None, threading.Event())
        assert result.run.outcome is Outcome.TIME_LIMIT
        if result.run.stdout:
            break
    assert (result.run.stdout, result.run.stdout_bytes, result.run.stdout_truncated) == ("0123456789", 14, True)


@pytest.mark.parametrize(("chosen", "outcome"), [("continue", Outcome.OK), ("end", Outcome.OUTPUT_LIMIT)])
def test_what_a_request_chooses_for_output_beyond_its_limit(
    engine: tuple[Sandbox, str], chosen: Literal["continue", "end"], outcome: Outcome
) -> None:
    sandbox, shell = engine
    limits = msgspec.structs.replace(RUN_DEFAULT, stderr=10, on_output_limit=chosen)
    result = sandbox.run(job(shell, "echo 0123456789abc >&2", run=limits), lambda *_: None, threading.Event())
    assert (result.run.outcome, result.run.stderr, result.run.stderr_bytes) == (outcome, "0123456789", 14)


def test_a_run_can_be_cancelled(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    cancelled = threading.Event()
    if isinstance(sandbox, PlainSandbox):
        sandbox.gate.clear()
    threading.Timer(0.5, cancelled.set).start()
    with pytest.raises(RunCancelledError):
        sandbox.run(job(shell, "sleep 60"), lambda *_: None, cancelled)


def test_what_a_cancelled_run_came_to_is_told(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    for seconds in LONGER:
        cancelled = threading.Event()
        told: dict[str, Phase] = {}

        def on_phase(name: str, phase: Phase) -> None:
            told[name] = phase  # noqa: B023 - the wait ends within this round
            threading.Timer(seconds, cancelled.set).start()  # noqa: B023 - as above

        with pytest.raises(RunCancelledError):
            sandbox.run(job(shell, "echo some; sleep 60", "echo made"), on_phase, cancelled)
        if "run" in told:
            break
    assert {name: phase.outcome for name, phase in told.items()} == {"compile": Outcome.OK, "run": Outcome.CANCELLED}
    assert told["run"].signal == "SIGKILL"
    assert told["run"].exit_code is None
    assert isinstance(told["run"].time, float)


class Heard:
    """A judge that records everything and wants only the given cases."""

    def __init__(self, *wanted: int) -> None:
        self.wanted = wanted
        self.asked: list[int] = []
        self.runs: list[tuple[int, Phase]] = []
        self.checks: dict[int, Check] = {}
        self.results: dict[int, JobResult] = {}
        self.talks: dict[int, Talked] = {}

    def wants(self, number: int) -> bool:
        self.asked.append(number)
        return number in self.wanted

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        assert notes == []
        self.runs.append((number, run))
        return self.checks.get(number)

    def checked(self, number: int, result: JobResult) -> None:
        self.results[number] = result

    def meets(self, number: int) -> Check:
        return Check(files_for_talk(b"%d\n" % number, b"right\n"), b"", ["judge/input", "x"], well={42})

    def talked(self, number: int, talked: Talked) -> None:
        self.talks[number] = talked

    @property
    def printed(self) -> list[tuple[int, object, str]]:
        return [(number, run.outcome, run.stdout) for number, run in self.runs]


def case(number: int, **changes: object) -> JobCase:
    made = JobCase(name=f"case {number}", stdin=b"%d" % number, args=[], env={}, limits=RUN_DEFAULT)
    return msgspec.structs.replace(made, **changes)


def test_cases_are_compiled_once_and_each_begins_with_what_that_left(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    told: list[str] = []
    judge = Heard(0, 1, 3)
    script = 'cat made; cat; echo " $1 $A"; ls; echo x >> made; rm -f sub/data; touch more; exit "$(cat made | wc -l)"'
    cases = [case(0, args=["a"]), case(1, env={"A": "b"}), case(2), case(3)]
    many = job(shell, script, "echo $$.$(date +%N) > made", cases=cases)
    result = sandbox.run(many, lambda name, _: told.append(name), threading.Event(), judge)
    assert (told, result.compile.outcome, result.run.outcome) == (["compile"], Outcome.OK, Outcome.SKIPPED)
    assert judge.asked == [0, 1, 2, 3]
    assert len({printed.split()[0] for _, _, printed in judge.printed}) == 1
    files = "compile.sh\nmade\nrun.sh\nsub\n"
    assert [(number, outcome, printed.partition("\n")[2]) for number, outcome, printed in judge.printed] == [
        (0, Outcome.NONZERO_EXIT, f"0 a \n{files}"),
        (1, Outcome.NONZERO_EXIT, f"1  b\n{files}"),
        (3, Outcome.NONZERO_EXIT, f"3  \n{files}"),
    ]
    assert [run.exit_code for _, run in judge.runs] == [2, 2, 2]


def test_cases_without_a_compilation_have_the_files_of_the_request(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0, 1)
    many = job(shell, "cat; ls; rm -f run.sh", cases=[case(0), case(1)])
    result = sandbox.run(many, lambda *_: None, threading.Event(), judge)
    assert result.compile.outcome is Outcome.SKIPPED
    assert judge.printed == [(0, Outcome.OK, "0run.sh\nsub\n"), (1, Outcome.OK, "1run.sh\nsub\n")]


def test_no_case_is_run_where_the_compilation_failed(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0)
    result = sandbox.run(job(shell, "true", "exit 3", cases=[case(0)]), lambda *_: None, threading.Event(), judge)
    assert (result.compile.exit_code, judge.asked, judge.runs) == (3, [], [])


def test_a_case_that_meets_a_limit_spares_the_next(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0, 1)
    short = msgspec.structs.replace(RUN_DEFAULT, time=1.0)
    script = "cat > got; cat got; test -s got || sleep 60"
    many = job(shell, script, cases=[case(0, stdin=b"", limits=short), case(1)])
    sandbox.run(many, lambda *_: None, threading.Event(), judge)
    assert judge.printed == [(0, Outcome.TIME_LIMIT, ""), (1, Outcome.OK, "1")]


def test_a_cancel_ends_the_case_that_runs_and_all_others(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    for seconds in LONGER:
        cancelled = threading.Event()

        class Ends(Heard):
            def wants(self, number: int) -> bool:
                if number == 1:
                    threading.Timer(seconds, cancelled.set).start()  # noqa: B023 - the wait ends within this round
                return super().wants(number)

        judge = Ends(0, 1, 2)
        many = job(shell, "cat; test $1 = 0 || sleep 60", "true", cases=[case(n, args=[str(n)]) for n in range(3)])
        with pytest.raises(RunCancelledError):
            sandbox.run(many, lambda *_: None, cancelled, judge)
        if judge.printed[-1][2] == "1":
            break
    assert judge.printed == [(0, Outcome.OK, "0"), (1, Outcome.CANCELLED, "1")]
    assert judge.asked == [0, 1]


def check(output: bytes) -> Check:
    files = {"judge/output": output, "feedback/": b""}
    return Check([JobFile(name, content, 0o644) for name, content in files.items()], b"in " + output, ["x", "y"])


def test_a_checker_runs_apart_from_the_program(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0, 1, 2)
    judge.checks = {0: check(b"zero"), 2: check(b"two")}
    checker = job(shell, 'ls; cat made; cat; echo " $* "; cat judge/output; echo x > made; exit 3', "echo y > made")
    many = job(shell, "cat", "echo of the program > secret", cases=[case(0), case(1), case(2)], checker=checker)
    sandbox.run(many, lambda *_: None, threading.Event(), judge)
    assert [run.stdout for _, run in judge.runs] == ["0", "1", "2"]
    assert sorted(judge.results) == [0, 2]
    listed = "compile.sh\nfeedback\njudge\nmade\nrun.sh\nsub\ny\n"
    for number, word in ((0, "zero"), (2, "two")):
        result = judge.results[number]
        assert (result.compile.outcome, result.run.exit_code) == (Outcome.OK, 3)
        assert result.run.stdout == f"{listed}in {word} x y \n{word}"


def test_a_checker_that_cannot_be_compiled_fails_no_case(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0, 1)
    judge.checks = {0: check(b""), 1: check(b"")}
    many = job(shell, "cat", cases=[case(0), case(1)], checker=job(shell, "true", "echo words >&2; exit 4"))
    sandbox.run(many, lambda *_: None, threading.Event(), judge)
    assert judge.printed == [(0, Outcome.OK, "0"), (1, Outcome.OK, "1")]
    for result in judge.results.values():
        assert (result.compile.exit_code, result.compile.stderr, result.run.outcome) == (4, "words\n", Outcome.SKIPPED)
    assert sorted(judge.results) == [0, 1]


def test_a_program_and_its_interactor_read_what_the_other_prints(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    judge = Heard(0, 1, 2)
    script = 'cat judge/input made; read -r word; [ "$word" = "$2$(cat "$1")" ] && exit 42; echo "$word" >&2; exit 43'
    interactor = job(shell, script, "echo made > made")
    program = 'read -r number; read -r made; [ $number != 1 ] || { echo "$made"; exit 4; }; echo "x$number"; cat'
    many = job(shell, program, "echo of the program > made", cases=[case(0), case(1), case(2)], checker=interactor)
    result = sandbox.run(msgspec.structs.replace(many, talks=True), lambda *_: None, threading.Event(), judge)
    assert (result.compile.outcome, judge.runs, sorted(judge.talks)) == (Outcome.OK, [], [0, 1, 2])
    seen = [(talked.run.stdout, talked.run.exit_code) for talked in judge.talks.values()]
    assert seen == [("x0\n", 0), ("made\n", 4), ("x2\n", 0)]
    found = [talked.result.run for talked in judge.talks.values() if talked.result]
    assert [(run.exit_code, run.stdout, run.stderr) for run in found] == [
        (42, "0\nmade\n", ""),
        (43, "1\nmade\n", "made\n"),
        (42, "2\nmade\n", ""),
    ]


def test_what_a_live_job_prints_is_told_while_it_runs(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    cancelled = threading.Event()
    told: list[tuple[str, Phase]] = []
    ended: dict[str, Phase] = {}

    def on_output(name: str, phase: Phase) -> None:
        assert name not in ended
        told.append((name, phase))
        if phase.stderr:
            cancelled.set()

    script = "head -c 200000 /dev/zero | tr '\\0' x; echo; echo end; echo err >&2; sleep 60"
    with pytest.raises(RunCancelledError):
        sandbox.run(job(shell, script, live=True), ended.__setitem__, cancelled, None, on_output)
    name, phase = told[-1]
    assert (name, phase.stdout, phase.stderr) == ("run", "x" * (65536 - 5) + "\nend\n", "err\n")
    assert (phase.stdout_truncated, phase.stderr_truncated) == (True, False)
    assert not isinstance(phase.outcome, Outcome)
    assert isinstance(phase.time, float)
    assert ended["run"].outcome is Outcome.CANCELLED


def test_of_a_job_that_is_not_live_nothing_is_told_on_the_way(engine: tuple[Sandbox, str]) -> None:
    sandbox, shell = engine
    told: list[str] = []
    result = sandbox.run(
        job(shell, "echo some; sleep 1.5"), lambda *_: None, threading.Event(), None, lambda name, _: told.append(name)
    )
    assert (result.run.stdout, told) == ("some\n", [])


def test_a_store_provides_the_pins(store: tuple[Backend, dict[str, str]]) -> None:
    made, pins = store
    runtime = made.prepare(pins)
    assert runtime.nixpkgs["default"].startswith("/nix/store/")
    assert runtime == made.prepare(pins)
    two = made.prepare(pins | {"other": pins["default"]})
    assert set(two.nixpkgs) == {"default", "other"}


def test_a_collection_keeps_what_it_is_told_to(store: tuple[Backend, dict[str, str]]) -> None:
    made, pins = store
    made.prepare(pins)
    build_id = "e" * 64
    result = made.build(build_id, FINE.replace("hello", "hello pkgs.jq"), "default", threading.Event())
    assert made.holds(result.shell)
    sizes = made.sizes()
    assert sizes.store >= sizes.own[build_id] > 0
    assert made.collect(set(sizes.own), dry_run=True).paths >= 0
    assert made.holds(result.shell)


def test_a_good_expression_is_a_shell_with_packages(backend: Backend) -> None:
    result = backend.build("a" * 64, FINE, "default", threading.Event())
    assert result.phase.outcome is Outcome.OK
    assert result.shell.startswith("/nix/store/")
    assert "hello" in [package.name for package in result.packages]
    assert result == msgspec.structs.replace(
        backend.build("a" * 64, FINE, "default", threading.Event()), phase=result.phase
    )


def test_a_broken_expression_is_a_phase_that_says_why(backend: Backend) -> None:
    result = backend.build("b" * 64, BROKEN, "default", threading.Event())
    assert (result.phase.outcome, result.shell, result.packages) == (Outcome.NONZERO_EXIT, "", [])
    assert "undefined variable" in result.phase.stderr


def test_a_build_can_be_cancelled(backend: Backend) -> None:
    if isinstance(backend, PlainBackend):
        backend.gate.clear()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(TemporaryError):
        backend.build("c" * 64, f"{FINE} # unseen", "default", cancelled)
