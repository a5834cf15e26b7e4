"""One static program that only root can change starts as root in containers, and nothing else does."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox import program, root
from tests.standins import store_path

STRANGER = 64_101
RUNTIME = Runtime(system="x86_64-linux", bash=store_path("bash"), coreutils=store_path("coreutils"), nixpkgs={})


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the source that replaces the original."""
    source = tmp_path / "inside"
    shutil.copytree(program.SOURCE, source)
    monkeypatch.setattr(program, "SOURCE", source)
    return source


def test_it_needs_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "supervisor"
    target.write_bytes(program.content())
    target.chmod(0o755)
    said = subprocess.run(["readelf", "-ld", target], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in said
    assert "NEEDED" not in said
    assert subprocess.run([target], check=False).returncode == 2  # main.c says how it is used


def test_no_compiler_warns_of_anything(tmp_path: Path) -> None:
    program.compile_to(tmp_path / "strict", flags=(*program.FLAGS, "-Werror", "-Wshadow", "-Wstrict-prototypes"))


def test_it_is_the_only_program_of_the_image() -> None:
    with tarfile.open(fileobj=io.BytesIO(root.archive(RUNTIME))) as tar:
        entries = {entry.name: entry for entry in tar}
    files = {name: entry for name, entry in entries.items() if entry.isfile()}
    assert [name for name, entry in files.items() if entry.mode & 0o111] == [program.IN_IMAGE.lstrip("/")]
    found = entries[os.path.dirname(program.IN_IMAGE).lstrip("/")]
    assert (found.uid, found.gid, found.mode) == (0, 0, 0o700)  # a job can neither run nor read it


def test_a_package_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    brought = tmp_path / "supervisor"
    brought.write_bytes(b"made elsewhere")
    monkeypatch.setattr(program, "PACKAGED", brought)
    assert program.content() == b"made elsewhere"
    brought.chmod(0o666)
    with pytest.raises(OperatorError, match="supervisor can be changed by everybody"):
        program.content()


def test_it_is_kept_for_the_next_process_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Path
) -> None:
    """An executor of a pool lives for minutes, and the compiler takes seconds."""
    made = [b"one", b"two", b"three"]
    monkeypatch.setattr(program, "_compiled", lambda _: made.pop(0))
    kept = tmp_path / "kept"
    kept.mkdir()
    assert [program.content(str(kept)) for _ in range(2)] == [b"one", b"one"]
    (copied / "wire.c").write_text((copied / "wire.c").read_text() + "\n")
    assert program.content(str(kept)) == b"two", "it is another one"
    for each in kept.iterdir():
        os.utime(each, (1.0, 1.0))
    assert program.content(str(kept)) == b"three"
    (left,) = kept.iterdir()
    left.chmod(0o777)
    with pytest.raises(OperatorError, match="can be changed by everybody"):
        program.content(str(kept))


def test_where_it_cannot_be_kept_it_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_compiled", lambda _: b"made")
    assert program.content(str(tmp_path / "none")) == b"made"


def test_a_package_is_built_with_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "spoold.sandbox.program", "supervisor"], check=True, cwd=tmp_path)
    assert (tmp_path / "supervisor").read_bytes()[:4] == b"\x7fELF"


def test_source_that_others_can_change_is_refused(copied: Path) -> None:
    assert program.content()
    (copied / "wire.c").chmod(0o666)
    (copied / "wire.c").write_text((copied / "wire.c").read_text() + "\n")  # a changed source is compiled again
    with pytest.raises(OperatorError, match=r"wire\.c can be changed by everybody"):
        program.content()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_source_may_be_whoevers_all_of_spoold_is(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied.parent / "program.py").touch()
    monkeypatch.setattr(program, "__file__", str(copied.parent / "program.py"))
    for path in (copied.parent, *copied.parent.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    (copied / "wire.c").write_text((copied / "wire.c").read_text() + "\n\n")
    assert program.content()
    os.chown(copied / "cell.c", STRANGER + 1, STRANGER)
    (copied / "wire.c").write_text((copied / "wire.c").read_text() + "\n")
    with pytest.raises(OperatorError, match=r"cell\.c belongs to"):
        program.content()


def test_without_a_compiler_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch, copied: Path) -> None:
    (copied / "wire.c").write_text((copied / "wire.c").read_text() + "\n\n\n")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OperatorError, match=r"no C compiler .*: install one"):
        program.content()


def test_what_a_compiler_says_is_passed_on(copied: Path) -> None:
    (copied / "wire.c").write_text("nonsense\n")
    with pytest.raises(OperatorError, match=r"cannot be compiled by .*wire\.c:1"):
        program.content()
