"""Output for people and for pipes: readable, whole in a pipe, and exact to the byte on request."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits, tables
from spoold.cli.tables import Table, Text
from spoold.cli.text import readable
from spoold.spool import layout


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for name in ("incoming", "done", "progress"):
        (tmp_path / name).mkdir()
    return tmp_path


def publish(spool: Path, **keys: Any) -> None:
    (spool / "done" / "x.response.json").write_text(json.dumps({"Submission_id": "x", "status": "COMPLETED", **keys}))


def ran(data: bytes, **keys: Any) -> dict[str, Any]:
    encoded = {"stdout": base64.b64encode(data).decode(), "stdout_encoding": "base64"}
    return {**encoded, "time": 0.1, "outcome": "ok", "exit_code": 0, **keys}


LINE = [sys.executable, "-m", "spoold.cli.ctl"]


def piped(spool: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"SPOOLD_SPOOL": str(spool), "COLUMNS": "80"}
    return subprocess.run([*LINE, *words], env=environment, capture_output=True, check=True)


def on_a_terminal(spool: Path, *words: str) -> str:
    """Return what a terminal of 80 columns shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"SPOOLD_SPOOL": str(spool), "TERM": "xterm"}
    with subprocess.Popen([*LINE, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break  # all writers have closed it
            said += part
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_a_byte_that_is_no_text_is_shown_as_such(spool: Path) -> None:
    publish(spool, run=ran(b"caf\xe9\n\x1b[2J\n"))
    shown = piped(spool, "status", "x").stdout.decode()
    assert "run stdout:\ncaf\\xe9\n\\x1b[2J\n" in shown
    assert "base64" not in shown


def test_what_is_no_text_at_all_is_counted() -> None:
    assert readable(bytes(range(256)) * 4) == "(1024 bytes that are not text: --raw writes them)"
    assert readable("Ünïcode \0 once\n".encode()) == "Ünïcode \\x00 once\n"
    assert readable(b"\xe9" * 10) == "\\xe9" * 10
    assert readable(b"") == ""


def test_raw_is_to_the_byte(spool: Path) -> None:
    publish(spool, run=ran(b"\xff\0\x1b[2J", stderr="err\n"), compile={"stderr": "warned", "time": 1, "outcome": "ok"})
    done = piped(spool, "status", "x", "--raw")
    assert (done.stdout, done.stderr) == (b"\xff\0\x1b[2J", b"err\n")
    failed = {"stdout": "", "stderr": "error: x\n", "time": 1, "outcome": "nonzero_exit"}
    publish(spool, status="COMPILE_FAILED", compile=failed)
    done = piped(spool, "status", "x", "--raw")
    assert (done.stdout, done.stderr) == (b"", b"error: x\n")


def test_a_rejection_has_no_table_of_what_was_not_run(spool: Path) -> None:
    skipped = {"stdout": "", "stderr": "", "time": "", "signal": "", "outcome": "skipped"}
    publish(spool, status="REJECTED", reason="files: why", dependencies=skipped, compile=skipped, run=skipped)
    assert piped(spool, "status", "x").stdout == b"x: REJECTED\nfiles: why\n"


def test_what_is_piped_is_whole(spool: Path) -> None:
    text = "".join(f"{number} {'x' * 200}\n" for number in range(100))
    publish(spool, run=ran(text.encode()), notes=["n" * 300])
    shown = piped(spool, "status", "x").stdout.decode()
    assert text in shown
    assert "n" * 300 in shown
    assert not set("─│╭╮╰╯┏━┃\x1b") & set(shown)


def test_a_terminal_gets_colours_and_the_beginning(spool: Path) -> None:
    publish(spool, run=ran(b"line\n" * 100))
    shown = on_a_terminal(spool, "status", "x")
    assert "\x1b[1;32mx: COMPLETED\x1b[0m" in shown
    assert shown.count("line\n") == 40
    assert "60 more lines" in shown


def test_names_and_versions_of_packages_are_whole_at_80_columns(spool: Path) -> None:
    package = {
        "name": "python3.11-scikit-learn",
        "version": "1.5.2-unstable",
        "path": f"/nix/store/{'a' * 32}-python3.11-scikit-learn-1.5.2-unstable",
        "closure_size": 1 << 30,
    }
    publish(spool, packages=[package])
    for shown in (piped(spool, "status", "x").stdout.decode(), on_a_terminal(spool, "status", "x")):
        assert "python3.11-scikit-learn  1.5.2-unstable  " in shown
    assert str(package["path"]).removeprefix("/nix/store/") in piped(spool, "status", "x").stdout.decode()


def test_columns_line_up_whatever_the_letters_are() -> None:
    table = Table("name", "size", right=["size"])
    table.add_row("日本", "1")
    table.add_row("e\u0301", Text("22", "red"))
    assert table.lines() == ["name  size", "日本     1", "e\u0301       22"]
    assert table.lines(colours=True)[2].endswith("  \x1b[31m22\x1b[0m")
    assert tables.cut("日本語", 5) == "日本…"


def test_a_stream_that_cannot_say_a_letter_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tables.show(["é"], stream)
    stream.flush()
    assert stream.buffer.getvalue() == b"\\xe9\n"


def test_little_is_imported_for_one_response(spool: Path) -> None:
    """People wait for the start-up, so nothing is imported that this command does not use."""
    publish(spool, run=ran(b"x"))
    code = (
        "import sys; sys.argv[1:] = ['status', 'x']\n"
        "from spoold.cli import ctl\n"
        "try: ctl.main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    environment = os.environ | {"SPOOLD_SPOOL": str(spool)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    heavy = {"rich", "asyncio", "subprocess", "json", "tomllib", "hashlib", "shutil", "docker", "spoold.config"}
    assert not imported & heavy
    assert {name for name in imported if name.startswith("spoold.model")} == {
        *("spoold.model", "spoold.model.compare", "spoold.model.compare.excerpts"),
        *("spoold.model.errors", "spoold.model.paths", "spoold.model.response", "spoold.model.spans"),
    }


# -- standard output that cannot be written


def ended(spool: Path, *words: str, **streams: Any) -> tuple[int, str]:
    """Return the exit code, and what is on standard error."""
    environment = os.environ | {"SPOOLD_SPOOL": str(spool)}
    done = subprocess.run([*LINE, *words], env=environment, stderr=-1, check=False, **streams)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("words", [["--help"], ["status", "x"], ["status", "x", "--json"], ["submit", "--help"]])
def test_a_reader_that_is_gone_has_its_exit_code(spool: Path, words: list[str]) -> None:
    publish(spool)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        assert ended(spool, *words, stdout=theirs) == (exits.PIPE_CLOSED, "")
    finally:
        os.close(theirs)


def test_a_reader_that_is_gone_is_no_bug_of_other_output_either(tmp_path: Path) -> None:
    """rich ends the program by itself, with 1. An error in JSON has a code already."""
    layout.create(str(tmp_path / "spool"))
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        assert ended(tmp_path / "spool", "check", stdout=theirs) == (exits.PIPE_CLOSED, "")
        code, said = ended(tmp_path / "spool", "status", "--json", stdout=theirs)
    finally:
        os.close(theirs)
    assert code == exits.USAGE
    assert "Missing argument" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [["deps", "verify"], ["deps", "why", "a" * 32 + "-a"]])
def test_a_host_without_a_store_is_told_where_it_is(tmp_path: Path, words: list[str]) -> None:
    layout.create(str(tmp_path / "spool"))
    config = tmp_path / "spoold.toml"
    config.write_text(f'[nix]\nstate = "{tmp_path}/none"\n')
    code, said = ended(tmp_path / "spool", "--config", str(config), *words)
    assert code == exits.FAILED
    assert f"{tmp_path}/none has no Nix store: run this on the builder's host" in said


def test_errors_of_files_name_the_file_first(spool: Path) -> None:
    code, said = ended(spool, "report", "/dev/null/x", "-o", "x.html")
    assert (code, "Errno" in said) == (exits.FAILED, False)
    assert "/dev/null/x: Not a directory" in said


def test_a_misspelt_option_is_no_id(spool: Path) -> None:
    code, said = ended(spool, "status", "--jsno")
    assert code == exits.USAGE
    assert "there is no option --jsno" in said


def test_a_missing_spool_is_called_by_its_name(tmp_path: Path) -> None:
    code, said = ended(tmp_path / "none", "check")
    assert code == exits.FAILED
    assert f"{tmp_path}/none is missing: make the spool" in said


@pytest.mark.parametrize("place", ["none", "file"])
@pytest.mark.parametrize("words", [["wait", "x"], ["status", "x"], ["logs", "x"], ["outputs", "x"], ["cancel", "x"]])
def test_no_command_waits_at_a_place_that_is_no_spool(tmp_path: Path, place: str, words: list[str]) -> None:
    (tmp_path / "file").touch()
    code, said = ended(tmp_path / place, *words)
    assert code == exits.FAILED
    assert f"{tmp_path / place} holds no spool: name one with --spool" in said


@pytest.mark.parametrize(
    ("home", "says"), [("home", "records those"), ("file", "cannot be written, so it records none")]
)
def test_a_list_says_whether_anything_is_recorded(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, says: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / home / "state"))
    assert says in ended(spool, "list")[1]


@pytest.mark.parametrize("words", [["status", "x"], ["status", "x", "--json"], ["list"]])
def test_a_closed_standard_output_is_no_bug(spool: Path, words: list[str]) -> None:
    publish(spool)
    assert ended(spool, *words, preexec_fn=lambda: os.close(1))[0] == exits.OK


@pytest.mark.parametrize("words", [["status", "x"], ["status", "x", "--json"]])
def test_a_full_disk_is_said(spool: Path, words: list[str]) -> None:
    publish(spool)
    with open("/dev/full", "wb") as full:
        code, said = ended(spool, *words, stdout=full)
    assert (code, said) == (exits.FAILED, "spoolctl: reading or writing failed: No space left on device\n")
