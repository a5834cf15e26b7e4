"""``spoolctl run`` acts as if the program ran here, whatever its language, and wherever it runs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits, run, tongues
from spoold.cli.record import Record
from spoold.client.response import Phase, Response
from tests.actors.bench import Bench
from tests.patient import PATIENT

LINE = [*PATIENT, "run"]


def environment(spool: Path) -> dict[str, str]:
    return os.environ | {"SPOOLD_SPOOL": str(spool), "SPOOLD_CONFIG": os.devnull}


def ran(spool: Path, *words: object, data: bytes = b"", code: int = 0, **options: Any) -> tuple[bytes, bytes]:
    """Run a program. Return what it printed."""
    line = [*LINE, *map(str, words)]
    given: dict[str, Any] = {"input": data, "env": environment(spool), **options}
    done = subprocess.run(line, capture_output=True, check=False, **given)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "hello.sh"
    path.write_text('echo "$#: $*"; cat; echo "to err" >&2; exit $1')
    return path


# -- streams and codes


@pytest.mark.parametrize("code", [0, 3, 6, 255])
def test_it_is_as_if_it_ran_here(bench: Bench, script: Path, code: int) -> None:
    out, err = ran(bench.root, script, "--", code, "--x", "b  c", data=b"\xff\0in\n", code=code)
    assert out == b"3: %d --x b  c\n\xff\0in\n" % code
    assert err == b"to err\n"


def test_a_signal_is_told_as_a_shell_tells_it(bench: Bench, script: Path) -> None:
    script.write_text("kill -SEGV $$")
    _, err = ran(bench.root, script, code=128 + signal.SIGSEGV)
    assert err.endswith(b": SIGSEGV ended it\n")


def test_what_is_not_compiled_is_told_with_the_compilers_words(bench: Bench, script: Path) -> None:
    compile_script = script.with_name("compile.sh")
    compile_script.write_text("echo main.c:1: wrong; echo hint >&2; exit 4")
    out, err = ran(bench.root, script, compile_script, code=exits.NOT_COMPLETED)
    assert out == b""
    assert err.startswith(b"main.c:1: wrong\nhint\n")
    assert err.endswith(b": it was not compiled: see above\n")
    compile_script.write_text("echo a warning")
    assert ran(bench.root, script, compile_script, "--", 0) == (b"1: 0\n", b"to err\n")


def test_refused_and_failed_are_told_apart(bench: Bench, script: Path, tmp_path: Path) -> None:
    bad = tmp_path / "a\\b.sh"
    bad.write_text("true")
    out, err = ran(bench.root, bad, code=exits.REFUSED)
    assert (out, b"files[0].name" in err) == (b"", True)
    ran("ssh://host.invalid/spool", script, code=exits.SERVICE)  # type: ignore[arg-type]
    told = json.loads(ran(bench.root, tmp_path / "x.h", "--json", code=exits.USAGE)[0])
    assert "does not exist" in told["error"]
    assert b"give a FILE to run, or -c CODE" in ran(bench.root, code=exits.USAGE)[1]


@pytest.mark.parametrize(
    ("response", "code", "said"),
    [
        (Response(status="COMPLETED", run=Phase(outcome="ok", exit_code=0)), 0, ""),
        (Response(status="RUN_FAILED", run=Phase(outcome="nonzero_exit", exit_code=9)), 9, ""),
        (Response(status="RUN_FAILED", run=Phase(outcome="signalled", signal="SIGKILL")), 137, "SIGKILL ended it"),
        (Response(status="RUN_FAILED", run=Phase(outcome="signalled", signal="SIGODD")), 137, "SIGODD ended it"),
        (Response(status="RUN_FAILED", run=Phase(outcome="time_limit")), 5, "ran longer than it may"),
        (Response(status="RUN_FAILED", run=Phase(outcome="memory_limit")), 5, "--memory allows more"),
        (Response(status="RUN_FAILED", run=Phase(outcome="of a later version")), 5, ""),
        (Response(status="COMPILE_FAILED", compile=Phase(outcome="time_limit")), 5, "not compiled: it ran longer"),
        (Response(status="DEPENDENCIES_FAILED"), 5, "its packages could not be installed"),
        (Response(status="REJECTED", reason="files: why"), 6, "REJECTED: files: why"),
        (Response(status="INTERNAL_ERROR"), 7, "INTERNAL_ERROR"),
        (Response(status="CANCELLED"), 8, "CANCELLED"),
    ],
)
def test_codes_and_words_for_each_end(response: Response, code: int, said: str) -> None:
    assert run.code_of(response) == code
    assert said in run.why_ended(response)
    assert bool(said) == bool(run.why_ended(response))


def test_a_program_that_cannot_start_gets_the_note(bench: Bench, script: Path) -> None:
    bench.sandbox.notes = ["run.sh cannot be started: \x1b"]
    script.write_text("exit 127")
    assert b"cannot be started: \\x1b\n" in ran(bench.root, script, code=127)[1]
    script.write_text("exit 0")
    assert ran(bench.root, script)[1] == b""


# -- live


def test_output_comes_while_it_runs_and_each_byte_once(bench: Bench, script: Path, tmp_path: Path) -> None:
    """This holds even if the program prints more at once than progress shows."""
    gate = tmp_path / "gate"
    script.write_text(
        f"printf 'first\\n'; until [ -e {gate} ]; do sleep 0.1; done; seq 100000; "
        f"until [ -e {gate}2 ]; do sleep 0.1; done; printf '\\xfflast'"
    )
    with subprocess.Popen([*LINE, str(script)], env=environment(bench.root), stdin=-3, stdout=-1, stderr=-1) as runs:
        assert runs.stdout
        assert runs.stdout.readline() == b"first\n"
        gate.touch()
        (tmp_path / "gate2").touch()
        rest, err = runs.communicate()
    assert rest == b"".join(b"%d\n" % number for number in range(1, 100001)) + b"\xfflast"
    assert (runs.returncode, err) == (0, b"")


def test_what_is_not_kept_is_counted(bench: Bench, script: Path) -> None:
    script.write_text("head -c 5000 /dev/zero")
    out, err = ran(bench.root, script, "--limit", "stdout=1000")
    assert out == bytes(1000)
    assert err == b"... 4000 bytes of run stdout after this were not kept: --limit stdout=SIZE keeps more\n"


def test_a_terminal_is_not_read(bench: Bench, script: Path) -> None:
    ours, theirs = pty.openpty()
    out, _ = ran(bench.root, script, "--", 0, input=None, stdin=theirs)
    assert out == b"1: 0\n"
    os.close(ours)
    os.close(theirs)
    line = ["sh", "-c", 'exec "$@" <&-', "sh", *LINE, str(script), "--", "0"]
    assert subprocess.run(line, env=environment(bench.root), stdout=-1, check=True).stdout == b"1: 0\n"


def test_an_interrupt_cancels_it(bench: Bench, script: Path) -> None:
    script.write_text("echo runs; sleep 1000")
    with subprocess.Popen([*LINE, str(script)], env=environment(bench.root), stdin=-3, stdout=-1, stderr=-1) as runs:
        assert runs.stdout
        assert runs.stderr
        assert runs.stdout.readline() == b"runs\n"
        runs.send_signal(signal.SIGINT)
        said = runs.stderr.read().decode()
    match = re.search(r"(hello-[0-9a-f]{12}): its cancel was requested\. `spoolctl status", said)
    assert (runs.returncode, "Traceback" in said) == (exits.INTERRUPTED, False)
    assert match
    bench.until(lambda: bench.has("done", f"{match[1]}.response.json"), lambda: None)
    assert bench.response(match[1])["status"] == "CANCELLED"


def test_it_ends_when_nobody_reads_it_any_more(bench: Bench, script: Path) -> None:
    script.write_text("while sleep 0.1; do echo more; done")
    with subprocess.Popen([*LINE, str(script)], env=environment(bench.root), stdin=-3, stdout=-1, stderr=-1) as runs:
        assert runs.stdout
        assert runs.stdout.readline() == b"more\n"
        runs.stdout.close()
        assert runs.stderr
        assert runs.stderr.read() == b""
    assert runs.returncode == exits.PIPE_CLOSED
    id_ = Record(str(bench.root)).entries()[0].id
    bench.until(lambda: bench.has("done", f"{id_}.response.json"), lambda: None)
    assert bench.response(id_)["status"] == "CANCELLED"


def test_that_nothing_takes_it_in_is_said(tmp_path: Path, script: Path) -> None:
    for name in ("incoming", "done", "progress"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    line = [sys.executable, "-m", "spoold.cli.ctl", "run", str(script)]
    with subprocess.Popen(line, env=environment(tmp_path / "spool"), stdin=-3, stdout=-1, stderr=-1) as runs:
        assert runs.stderr
        assert b"was not taken in yet: it is still arriving, intake does not run" in runs.stderr.readline()
        runs.send_signal(signal.SIGINT)
        runs.communicate()
    _, err = ran(tmp_path / "spool", script, "--timeout", "0.1", code=exits.TIMED_OUT)
    assert b"Nothing is lost: `spoolctl wait hello-" in err


# -- what the command asks for


def request_of(tmp_path: Path, *words: object, **options: Any) -> Any:
    return json.loads(ran(tmp_path, "--dry-run", *words, **options)[0])


def test_options_become_the_request(tmp_path: Path, script: Path) -> None:
    words = [
        "--time",
        "2min",
        "--memory",
        "64M",
        "--limit",
        "compile.time=9",
        "--limit",
        "run.cpu_time=3",
        "--env",
        "A=b",
    ]
    words += ["--output", "*.png", "--nixpkgs", "24.11", "--packages", "jq bc", "--packages", "python3Packages.numpy"]
    request = request_of(tmp_path, script, *words, "--", "--time", data=b"in")
    assert request["limits"] == {"run": {"time": 120, "cpu_time": 3, "memory": 64 << 20}, "compile": {"time": 9}}
    assert (request["args"], request["env"], request["inputs"]) == (["--time"], {"A": "b"}, "in")
    assert (request["outputs"], request["nixpkgs"], request["progress"]) == ([{"path": "*.png"}], "24.11", True)
    (shell,) = (each["content"] for each in request["files"] if each["name"] == "cutor.nix")
    assert "[ pkgs.jq pkgs.bc pkgs.python3Packages.numpy ]" in shell


def test_a_line_of_code_is_a_program(bench: Bench, tmp_path: Path) -> None:
    assert ran(bench.root, "-c", 'echo "$1"; cat', "--", "a b", data=b"in") == (b"a b\nin", b"")
    beside = tmp_path / "data.txt"
    beside.write_text("beside")
    assert ran(bench.root, "--language", "python", "-c", "print(open('data.txt').read())", beside)[0] == b"beside\n"
    names = [
        each["name"] for each in request_of(tmp_path, "--packages", "python3 jq", "-c", "python3 --version")["files"]
    ]
    assert names == ["main.sh", "cutor.nix", "run.sh"]
    (tmp_path / "main.sh").write_text("")
    assert b"-c makes main.sh" in ran(bench.root, "-c", "true", tmp_path / "main.sh", code=exits.FAILED)[1]


def test_the_language_is_asked_for_where_the_name_does_not_tell(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "x.pl").write_text("")
    _, err = ran(bench.root, tmp_path / "x.pl", code=exits.FAILED)
    assert err == b"spoolctl: x.pl: programs in Perl and Prolog end in .pl: use --language perl or --language prolog\n"
    assert tongues.find(tongues.languages(), "Perl") == "perl"


def test_tables_of_the_users_own_are_used_and_their_mistakes_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "spoold").mkdir()
    table = tmp_path / "spoold" / "languages.toml"
    table.write_text("[shout]\nextensions = ['up']\nrun = 'tr a-z A-Z <$main'\n")
    (tmp_path / "x.up").write_text("loud\n")
    env = environment(bench.root) | {"XDG_CONFIG_HOME": str(tmp_path)}
    assert ran(bench.root, tmp_path / "x.up", env=env)[0] == b"LOUD\n"
    table.write_text("[shout]\nextension = ['up']\n")
    _, err = ran(bench.root, tmp_path / "x.up", env=env, code=exits.FAILED)
    assert f"spoolctl: {table}: [shout]: Object contains unknown field `extension`".encode() in err


# -- what the command leaves


def test_files_that_come_back_replace_files_here_but_none_of_its_own(
    bench: Bench, script: Path, tmp_path: Path
) -> None:
    script.write_text('echo new >out.txt; mkdir -p d; echo $1 >d/n.txt; echo evil >hello.sh; echo x >"$PWD/sent.txt"')
    sent = tmp_path / "sent.txt"
    sent.write_text("sent")
    here = tmp_path / "here"
    here.mkdir()
    (here / "out.txt").symlink_to(tmp_path / "elsewhere")
    for number in (1, 2):
        ran(bench.root, script, sent, "--output", "**", "--", number, cwd=here)
        assert {path.name: path.read_text() for path in here.rglob("*.txt")} == {
            "out.txt": "new\n",
            "n.txt": f"{number}\n",
        }
    assert sorted(path.name for path in here.iterdir()) == ["d", "out.txt"]
    assert not (tmp_path / "elsewhere").exists()


def test_json_is_the_response_and_the_code_is_the_same(bench: Bench, script: Path) -> None:
    out, err = ran(bench.root, script, "--json", "--", 4, code=4)
    response = json.loads(out)
    assert (response["status"], response["run"]["exit_code"], err) == ("RUN_FAILED", 4, b"")


def test_it_is_in_the_record(bench: Bench, script: Path) -> None:
    ran(bench.root, script, "--", 0)
    newest = Record(str(bench.root)).entries()[0]
    assert newest.id.startswith("hello-")
    assert newest.name == str(script)


def test_little_is_imported(bench: Bench, script: Path) -> None:
    code = (
        f"import sys; sys.argv[1:] = ['run', {str(script)!r}, '--', '0']\n"
        "from spoold.cli import ctl\n"
        "try: ctl.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'docker', 'filelock', 'asyncio', 'watchdog', 'prometheus_client', 'ssl', 'urllib.request'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=environment(bench.root), capture_output=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stderr == b"to err\n[]\n"
