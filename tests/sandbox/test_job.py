"""A job and its response: files, stdin, arguments, environment, phases, exits, streams."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.model.arguments import MAX_ARGUMENT
from spoold.model.dropped import read_request
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import orders, runner
from spoold.sandbox.facts import HOLDERS, JOB_UID
from spoold.sandbox.messages import Order
from spoold.sandbox.stream import BrokenError
from tests.sandbox.conftest import RUN, AnySandbox, Run, make_job

pytestmark = [pytest.mark.alike, pytest.mark.docker]


def test_hello(run: Run) -> None:
    result = run("echo hello")
    assert result.compile == SKIPPED_PHASE
    phase = result.run
    assert (phase.stdout, phase.stderr, phase.outcome, phase.exit_code, phase.signal) == ("hello\n", "", "ok", 0, "")
    assert isinstance(phase.time, float)
    assert 0 < phase.time < RUN.time
    assert isinstance(phase.cpu_time, float)
    assert 0 < phase.cpu_time < RUN.cpu_time
    assert isinstance(phase.memory, int)
    assert 0 < phase.memory < 100_000_000


def test_stdin_arrives_to_the_byte(run: Run) -> None:
    data = bytes(range(256)) * 1000 + b"no newline"
    phase = run("sha256sum", stdin=data).run
    assert phase.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    phase = run("exec cat", stdin=b"a\0b\r\n\n\xc3\xa4").run
    assert phase.stdout == "a\0b\r\n\n\u00e4"
    assert run("cat; echo end").run.stdout == "end\n"


def test_files_are_what_the_request_says(sandbox: AnySandbox, plain_shell: str) -> None:
    request: dict[str, object] = {
        "files": [
            {
                "name": "./run.sh",
                "content": "find . | sort | xargs stat -c '%n %a %s'; ./tool; mkdir empty/ok",
            },
            {"name": "tool", "content": "IyEvYmluL3NoCmVj\naG8gb24K\n", "encoding": "base64", "executable": None},
            {"name": "plain", "content": "x", "encoding": "utf-8"},
            {"name": "said", "content": "x", "executable": True},
            {"name": "elf", "content": "7f 45 4c 46", "encoding": "hex"},
            {"name": "empty/"},
            {"name": "deep/er/", "content": None},
            {"name": "deep/file", "content": ""},
        ],
        "args": {},
        "env": [],
        "limits": None,
    }
    read = read_request(json.dumps(request).encode(), max_files=10, pins=frozenset({"default"}))
    job = replace(make_job("", shell=plain_shell), files=read.job_files())
    phase = sandbox.run(job, lambda *_: None, threading.Event()).run
    assert (phase.stderr, phase.exit_code) == ("", 0)
    *found, last = phase.stdout.splitlines()
    modes = {name: mode for name, mode, _ in (line.split() for line in found) if name != "."}
    assert modes == {
        "./run.sh": "755",
        "./tool": "755",
        "./plain": "644",
        "./said": "755",
        "./elf": "755",
        "./empty": "755",
        "./deep": "755",
        "./deep/er": "755",
        "./deep/file": "644",
    }
    assert last == "on"


def test_arguments_are_literal(run: Run) -> None:
    args = ("--privileged", "-v", "/:/h", ";id", "$(id)", "", "a b", "*", "new\nline", "X=1", "--", "\u00e4")
    phase = run('printf "<%s>" "$@"', args=args).run
    assert phase.stdout == "".join(f"<{arg}>" for arg in args)


def test_environment_is_literal_and_reaches_the_program_only(run: Run, python_shell: str) -> None:
    env = {
        "PLAIN": "$(id) `id`",
        "LD_PRELOAD_": "x",
        "BASH_ENV": "/job/evil",
        "ENV": "/job/evil",
        "BASH_FUNC_echo%%": "() { builtin echo evil; }",
        "a.b": "dot",
        "-i": "option",
        "IFS": "x",
        "PATH": "/nowhere",
        "LINES": "two\nlines",
        "EMPTY": "",
        "SHELLOPTS": "xtrace",
        "\u00e4": "\u00f6",
        "__spoold_0": "${PLAIN}",
        "__spoold_enter": "'\"\\c #",
        "POSIXLY_CORRECT": "",
        "LC_ALL": "none",
        **dict.fromkeys(("UID", "EUID", "PPID", "BASHOPTS", "BASH_VERSINFO", "SHLVL", "_", "RANDOM"), "1000"),
    }
    shebang = run("command -v python3", shell=python_shell).run.stdout.strip()
    program = f"#!{shebang}\nimport json, os\nprint(json.dumps(dict(os.environ)))"
    phase = run(program, env=env, files={"evil": b"echo evil >&2"}, shell=python_shell).run
    assert phase.stderr == ""
    seen = json.loads(phase.stdout)
    assert {key: seen.get(key) for key in env} == env
    assert seen["NIX_PATH"] == "nixpkgs=/nix/store/the-pin"
    assert seen["HOME"] == "/job"
    assert "HOSTNAME" not in seen


@pytest.mark.parametrize(("zone", "time"), [("America/New_York", "19:00 EST"), ("Asia/Kolkata", "05:30 IST")])
def test_a_time_zone_that_the_request_gives(run: Run, python_shell: str, zone: str, time: str) -> None:
    asking = "import time; print(time.strftime('%H:%M %Z', time.localtime(0)))"
    script = f'date -d @0 "+%H:%M %Z"; python3 -c "{asking}"; echo $TZDIR'
    assert run(script, env={"TZ": zone}, shell=python_shell).run.stdout == f"{time}\n{time}\n/etc/zoneinfo\n"
    assert run("echo $TZDIR", env={"TZDIR": "/job/zones"}).run.stdout == "/job/zones\n"


@pytest.mark.parametrize(("count", "size"), [(7, MAX_ARGUMENT), (12_000, 10)], ids=["large", "many"])
def test_as_large_an_environment_as_a_request_may_have(run: Run, python_shell: str, count: int, size: int) -> None:
    env = {f"a.{number}": "\u00e4" * (size // 4) for number in range(count)}
    env = {name: value + "x" * (size - len(f"{name}={value}".encode())) for name, value in env.items()}
    program = (
        "import hashlib, os\n"
        "seen = sorted((name, value) for name, value in os.environb.items() if name.startswith(b'a.'))\n"
        "print(hashlib.sha256(repr(seen).encode()).hexdigest(), *(n for n in os.environ if n.startswith('__spoold_')))"
    )
    limits = replace(RUN, time=120, cpu_time=120)
    files = {"main.py": program.encode()}
    phase = run("exec python3 main.py", env=env, files=files, shell=python_shell, limits=limits).run
    given = sorted((name.encode(), value.encode()) for name, value in env.items())
    assert phase.stdout == f"{hashlib.sha256(repr(given).encode()).hexdigest()}\n", phase.stderr


def test_variables_called_as_those_that_carry_the_others_arrive(run: Run, python_shell: str) -> None:
    env = {f"__spoold_{number}": "no equals" for number in range(0, 1200, 50)} | {"__spoold__7": "x"}
    env |= {f"a{number}": str(number) for number in range(1000)}
    program = "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n[0] in 'a_' and n != '_'}))"
    phase = run("exec python3 main.py", env=env, files={"main.py": program.encode()}, shell=python_shell).run
    seen = json.loads(phase.stdout or "{}")
    assert [name for name in env if seen.get(name) != env[name]] == [], phase.stderr
    assert {name for name in seen if name.startswith("__spoold")} == {name for name in env if name.startswith("__")}


def test_no_variable_of_the_build_is_left(run: Run) -> None:
    assert run("echo ${TMPDIR-none} ${TMP-none} ${NIX_BUILD_TOP-none}").run.stdout == "none none none\n"


def test_preload_does_not_touch_the_entering_shell(run: Run) -> None:
    phase = run("exec true", env={"LD_PRELOAD": "/job/none.so"}).run
    # by sh and true at most, and not by bash and env before them
    assert phase.stderr.count("cannot be preloaded") <= 2
    assert phase.outcome is Outcome.OK


def test_the_place_and_the_user(run: Run) -> None:
    phase = run("pwd; umask; id -u; id -g; id -G; ulimit -Hc; cat /proc/self/oom_score_adj; echo $HOME").run
    place, mask, *ids, cores, score, home = phase.stdout.split()
    assert (place, mask, cores, score, home) == ("/job", "0022", "0", "1000", "/job")
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert int(ids[0]) in (JOB_UID, *HOLDERS)


def test_the_program_leads_a_session_of_its_own(run: Run) -> None:
    phase = run("#!/bin/bash\nread -a stat </proc/$$/stat; echo $((stat[4] - $$)) $((stat[5] - $$))").run
    assert phase.stdout == "0 0\n"


def test_files_and_directories(run: Run) -> None:
    binary = bytes(range(256))
    files = {"a/b/c.bin": binary, "a/d": b"", "\u00e4 -rf": b"x"}
    phase = run("cat a/b/c.bin; ls a; cat './\u00e4 -rf'; stat -c %a:%u a a/d run.sh", files=files).run
    assert phase.stdout_encoding == "base64"
    phase = run("ls a; cat './\u00e4 -rf'; echo; stat -c %a a a/d run.sh; [ -O a/d ] && touch a/new", files=files).run
    assert phase.stdout.split() == ["b", "d", "x", "755", "644", "755"]
    assert phase.outcome is Outcome.OK


def test_large_input_and_files(run: Run) -> None:
    content = b"0123456789abcdef" * 65536 * 8
    limits = replace(RUN, memory=32 * 1024**2)
    phase = run(
        "sha256sum big - | cut -c1-64 | uniq -c | wc -l", files={"big": content}, stdin=content, limits=limits
    ).run
    assert (phase.stdout.strip(), phase.outcome) == ("1", "ok")


def test_compile_then_run(run: Run) -> None:
    phases: list[tuple[str, Phase]] = []
    result = run(
        "cat made; cat",
        compile_sh='echo "made by $WHO with $# arguments" >made; cat; echo compiled; pwd >&2',
        env={"WHO": "compile"},
        args=("one", "two"),
        stdin=b"input",
        phases=phases,
    )
    assert (result.compile.stdout, result.compile.stderr, result.compile.outcome) == ("compiled\n", "/job\n", "ok")
    assert result.run.stdout == "made by compile with 0 arguments\ninput"
    assert phases == [("compile", result.compile), ("run", result.run)]


def test_failed_compile_skips_the_run(run: Run) -> None:
    phases: list[tuple[str, Phase]] = []
    result = run("echo never", compile_sh="echo wrong >&2; exit 7", phases=phases)
    assert (result.compile.outcome, result.compile.exit_code, result.compile.stderr) == ("nonzero_exit", 7, "wrong\n")
    assert result.run == SKIPPED_PHASE
    assert [name for name, _ in phases] == ["compile"]


def test_a_real_compiler(run: Run, c_shell: str) -> None:
    source = b'#include <stdio.h>\nint main(void) { char s[9]; scanf("%8s", s); printf("got %s\\n", s); return 3; }\n'
    result = run("exec ./a.out", compile_sh="gcc -o a.out main.c", files={"main.c": source}, stdin=b"x", shell=c_shell)
    assert (result.compile.outcome, result.run.stdout, result.run.exit_code) == ("ok", "got x\n", 3)


@pytest.mark.parametrize(
    ("script", "code", "signal", "outcome"),
    [
        ("exit 0", 0, "", Outcome.OK),
        ("exit 255", 255, "", Outcome.NONZERO_EXIT),
        ("kill -SEGV $$", None, "SIGSEGV", Outcome.SIGNALLED),
        ("kill -KILL $$", None, "SIGKILL", Outcome.SIGNALLED),
        ("kill -TERM $$", None, "SIGTERM", Outcome.SIGNALLED),
        ("#!/does/not/exist", 127, "", Outcome.NONZERO_EXIT),
        ("yes | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 141, "", Outcome.NONZERO_EXIT),
    ],
)
def test_exits(run: Run, script: str, code: int | None, signal: str, outcome: Outcome) -> None:
    phase = run(script).run
    assert (phase.exit_code, phase.signal, phase.outcome) == (code, signal, outcome)


def test_too_many_arguments_are_the_programs_failure(run: Run) -> None:
    phase = run("true", args=("x" * 200_000,)).run
    assert (phase.exit_code, phase.outcome) == (126, "nonzero_exit")
    assert "Argument list too long" in phase.stderr


def test_streams_can_be_opened_again(run: Run) -> None:
    phase = run("echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin", stdin=b"in").run
    assert (phase.stdout, phase.stderr) == ("out\nin", "err\n")


def test_both_streams_are_cut_at_their_caps_and_counted(run: Run) -> None:
    limits = replace(RUN, stdout=1000, stderr=10)
    phase = run("yes | head -c 5000000; printf '%.0s\u00e4' {1..10} >&2; exit 5", limits=limits).run
    assert phase.stdout == "y\n" * 500
    assert (phase.stdout_bytes, phase.stdout_truncated) == (5_000_000, True)
    assert (phase.stderr, phase.stderr_bytes, phase.stderr_truncated) == ("\u00e4" * 5, 20, True)
    assert (phase.exit_code, phase.outcome) == (5, "nonzero_exit")


def test_output_at_its_cap_is_whole(run: Run) -> None:
    phase = run("printf 0123456789", limits=replace(RUN, stdout=10)).run
    assert (phase.stdout, phase.stdout_bytes, phase.stdout_truncated) == ("0123456789", 10, False)


def test_output_that_is_not_text(run: Run) -> None:
    phase = run(r"printf 'ok\n\377\000' >&2; printf '\0'").run
    assert (phase.stderr, phase.stderr_encoding, phase.stderr_bytes) == ("b2sK/wA=", "base64", 5)
    assert (phase.stdout, phase.stdout_encoding) == ("\0", "utf8")


def test_much_output_with_many_small_writes(run: Run) -> None:
    limits = replace(RUN, stdout=1024**2, memory=64 * 1024**2)
    phase = run("for ((i = 0; i < 50000; i++)); do echo $i; done", limits=limits).run
    assert phase.stdout == "".join(f"{i}\n" for i in range(50000))


def test_a_shell_that_is_empty_still_has_a_path(run: Run) -> None:
    phase = run("ls run.sh", shell="/nix/store/none").run
    assert (phase.stdout, phase.outcome) == ("run.sh\n", "ok")


def test_entering_survives_what_a_hook_does(run: Run) -> None:
    hook = b"""
echo "hook has $# arguments"
set -- evil; IFS=/; set -f; shopt -s expand_aliases; alias exec=false; exec() { false; }
export FROM_HOOK=yes OVERRIDDEN=hook
"""
    phase = run(
        "echo $FROM_HOOK $OVERRIDDEN; printf '<%s>' \"$@\"; echo; type exec",
        files={"capture/enter.sh": hook},
        shell="/job/capture",
        args=("a b", "*", ""),
        env={"OVERRIDDEN": "request"},
    ).run
    assert phase.stdout.splitlines()[:3] == ["hook has 0 arguments", "yes request", "<a b><*><>"]
    assert phase.outcome is Outcome.OK


def test_a_hook_that_exits_is_the_end(run: Run) -> None:
    phase = run("echo never", files={"capture/enter.sh": b"exit 3"}, shell="/job/capture").run
    assert (phase.stdout, phase.exit_code) == ("", 3)


@pytest.mark.parametrize("first", ["#!/bin/sh\n", "#!/bin/bash\n", ""])
def test_a_script_starts_the_same_way_with_variables_and_without(run: Run, first: str) -> None:
    script = f'{first}echo "$0 $#"; set -o | grep posix; ulimit -f; tr "\\0" " " </proc/$$/cmdline'
    plain, given = (run(script, args=("x",), env=env).run.stdout for env in ({}, {"A": "b"}))
    assert plain == given
    assert plain.startswith("./run.sh 1\n")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ([], "an order has no program"),
        ([b"/nowhere/bash"], "/nowhere/bash: No such file"),
    ],
)
def test_a_bug_of_ours_between_fork_and_exec_is_not_the_jobs_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, program: list[bytes], words: str
) -> None:
    order = orders.order

    def with_another_program(*given: Any, **more: Any) -> Order:
        fields: dict[str, Any] = order(*given, **more).fields() | {"argv": program}
        return Order(**fields)

    monkeypatch.setattr(runner, "order", with_another_program)
    with pytest.raises(BrokenError, match=words) as caught:
        run("echo hi")
    assert re.search(r"\n  child\.c:\d+$", str(caught.value)), caught.value


def test_a_bug_of_ours_in_the_supervisor_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order, "value", lambda _: {"event": "Order"})
    with pytest.raises(BrokenError, match=r"a message has other fields than its own\n  wire\.c:\d+$"):
        run("echo hi")


def test_a_work_directory_that_was_closed_is_the_jobs_own_doing(run: Run) -> None:
    done = run("echo hi", compile_sh="chmod 0 /job")
    assert (done.run.outcome, done.run.exit_code) == (Outcome.NONZERO_EXIT, 126)
    assert "the work directory cannot be entered" in done.run.stderr
