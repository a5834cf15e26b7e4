"""Files that a run returns: in the response, or all of them in a tar beside it."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.actors.executor import slots
from spoold.host import fsops
from spoold.model.limits import Limits, OutputLimits
from spoold.spool.tar import Tar
from tests.actors.bench import Bench, settings_for
from tests.actors.test_cancel import PATIENT

SCRIPT = "mkdir out; printf abc >out/a.txt; printf '\\377' >out/b.bin; printf 12345678 >out/c; chmod 600 out/c"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a spool whose responses hold ten bytes of files."""
    made = Bench(tmp_path, settings_for(tmp_path, limits=Limits(outputs=OutputLimits(inline=10))))
    yield made
    made.close()


def run(bench: Bench, id_: str, *paths: str, script: str = SCRIPT, required: bool = False) -> dict[str, Any]:
    bench.drop(id_, script, outputs=[{"path": path, "required": required} for path in paths])
    bench.wait_for(id_)
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    return bench.response(id_)


def members(bench: Bench, id_: str) -> dict[str, tuple[bytes, tarfile.TarInfo]]:
    """Return the members of the tar beside a response, after a check of what the response says about it."""
    data = (bench.root / "done" / f"{id_}.outputs.tar").read_bytes()
    assert bench.response(id_)["outputs_tar"] == {
        "name": f"{id_}.outputs.tar",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {each.name: ((tar.extractfile(each) or io.BytesIO()).read(), each) for each in tar}


def test_files_are_in_the_response(bench: Bench) -> None:
    response = run(bench, "a", "out/*.txt", "./out/*.bin")
    assert response["status"] == "COMPLETED"
    assert response["outputs"] == [
        {
            "name": "out/a.txt",
            "size": 3,
            "sha256": hashlib.sha256(b"abc").hexdigest(),
            "mode": "0644",
            "content": "abc",
            "encoding": "utf8",
        },
        {
            "name": "out/b.bin",
            "size": 1,
            "sha256": hashlib.sha256(b"\xff").hexdigest(),
            "mode": "0644",
            "content": base64.b64encode(b"\xff").decode(),
            "encoding": "base64",
        },
    ]
    assert not {"outputs_missing", "outputs_tar"} & response.keys()
    assert bench.names("done") == {"a.json", "a.response.json"}


def test_all_files_lie_beside_a_response_that_has_no_room_for_one(bench: Bench) -> None:
    response = run(bench, "a", "out/**", "run.sh")
    assert [(file["name"], "content" in file, file["mode"]) for file in response["outputs"]] == [
        ("out/a.txt", True, "0644"),
        ("out/b.bin", True, "0644"),
        ("out/c", False, "0600"),
        ("run.sh", False, "0755"),
    ]
    found = members(bench, "a")
    assert {name: content for name, (content, _) in found.items()} == {
        "out/a.txt": b"abc",
        "out/b.bin": b"\xff",
        "out/c": b"12345678",
        "run.sh": SCRIPT.encode(),
    }
    for name, (_, member) in found.items():
        assert member.isreg()
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
        assert f"{member.mode:04o}" == next(file["mode"] for file in response["outputs"] if file["name"] == name)


def test_what_is_required_and_missing_fails_nothing(bench: Bench) -> None:
    response = run(bench, "a", "none", "**/*.none", "out/c", required=True)
    assert response["status"] == "COMPLETED"
    assert response["outputs_missing"] == ["none", "**/*.none"]
    assert [file["name"] for file in response["outputs"]] == ["out/c"]


def test_files_of_a_run_that_failed_come_back(bench: Bench) -> None:
    response = run(bench, "a", "x", script="echo x >x; exit 3")
    assert (response["status"], response["outputs"][0]["content"]) == ("RUN_FAILED", "x\n")


def test_who_asks_for_none_is_told_of_none(bench: Bench) -> None:
    assert "outputs" not in run(bench, "a")
    bench.drop("b", files=[{"name": "compile.sh", "content": "exit 1"}], outputs=[{"path": "*", "required": True}])
    bench.wait_for("b")
    assert not {"outputs", "outputs_missing"} & bench.response("b").keys()


def test_nothing_of_a_cancelled_run_comes_back(bench: Bench) -> None:
    bench.drop(
        "a",
        "echo x >x; touch $FLAG; sleep 60",
        env={"FLAG": str(bench.root / "flag")},
        outputs=[{"path": "*"}],
        limits=PATIENT,
    )
    bench.until((bench.root / "flag").exists)
    (bench.root / "incoming" / "a.cancel").write_text("a")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    response = bench.response("a")  # the executor's answer, or intake's if the executor takes too long here
    assert response["status"] == "CANCELLED"
    assert "outputs" not in response


def test_what_lies_beside_a_response_counts_in_its_owners_share(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    monkeypatch.setattr(bench.executor._shares, "add", lambda _, *sizes: added.extend(sizes))
    run(bench, "a", "out/**")
    sizes = [(bench.root / "done" / name).stat().st_size for name in ("a.response.json", "a.outputs.tar")]
    assert added == [sum(sizes)]


def test_a_try_that_failed_leaves_no_files_to_the_next_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the response is written. The next try of the same attempt finds no files."""
    real = fsops.write_private
    beside: list[bool] = []  # whether there was a tar at each write of a response

    def full(path: str, data: Any, **options: Any) -> None:
        if os.path.basename(path).startswith("a@") and path.endswith(".response.json"):
            beside.append(os.path.exists(path.replace(".response.json", ".outputs.tar")))
            if len(beside) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, **options)

    monkeypatch.setattr(fsops, "write_private", full)
    monkeypatch.setattr(slots, "BACK_OFF", 0.01)
    script = f"test -e {bench.root}/again || {{ touch {bench.root}/again; {SCRIPT}; }}"
    bench.drop("a", script, outputs=[{"path": "out/**"}])
    bench.wait_for("a")
    assert beside == [True, False]
    assert bench.response("a")["outputs"] == []
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    assert bench.names("done") == {"a.json", "a.response.json"}


def test_a_private_tar_of_the_same_attempt_is_not_shown_with_a_response_that_names_none(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.drop("a", outputs=[{"path": "none"}])
    bench.until(lambda: bench.names("running"))
    (name,) = bench.names("running")
    (bench.root / "tmp" / f"{name.removesuffix('.json')}.outputs.tar").write_bytes(b"of a try before")
    bench.sandbox.gate.set()
    bench.wait_for("a")
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    assert bench.names("done") == {"a.json", "a.response.json"}


def test_an_id_is_not_used_while_the_files_of_its_last_use_are_there(bench: Bench) -> None:
    tar = bench.root / "done" / "a.outputs.tar"
    tar.write_bytes(b"what retention is about to remove")
    bench.drop("a")
    assert (bench.names("incoming"), bench.names("new")) == ({"a.json"}, set())
    tar.unlink()

    def step() -> None:
        bench.intake.step()
        bench.step()

    bench.until(lambda: bench.has("done", "a.response.json"), step)


def test_a_large_tar_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tar is read in pieces, which are the same each time."""
    made = Bench(tmp_path)
    taken: list[int] = []
    real = Tar.__iter__

    def pieces(tar: Tar) -> Iterator[bytes]:
        for piece in real(tar):
            taken.append(len(piece))
            yield piece

    monkeypatch.setattr(Tar, "__iter__", pieces)
    run(made, "a", "*.bin", script="for i in 1 2 3; do head -c 3000000 /dev/zero >$i.bin; done")
    assert members(made, "a").keys() == {"1.bin", "2.bin", "3.bin"}
    assert max(taken) < 1 << 19
    assert sum(taken) == 2 * (tmp_path / "done" / "a.outputs.tar").stat().st_size
    made.close()


def test_names_of_all_kinds_are_in_a_tar(bench: Bench) -> None:
    script = "import os\nfor name in ('ä' * 100, 'd/' * 20 + 'n' * 200, 'a b', '=1'):\n"
    script += " os.makedirs(os.path.dirname(name) or '.', exist_ok=True); open(name, 'w').write(name * 10)"
    bench.drop("a", "python3 m", files=[{"name": "m", "content": script}], outputs=[{"path": "**/*"}])
    bench.wait_for("a")
    found = members(bench, "a")
    assert {"ä" * 100, "d/" * 20 + "n" * 200, "a b", "=1"} < found.keys()
    assert found["a b"][0] == b"a b" * 10


def test_settings_are_those_of_the_operator(tmp_path: Path) -> None:
    limits = Limits(outputs=OutputLimits(files=3, file_size=5, total=9, inline=1))
    made = Bench(tmp_path, msgspec.structs.replace(settings_for(tmp_path), limits=limits))
    run(made, "a", "*")
    (job,) = made.sandbox.jobs
    assert job.outputs
    assert (job.outputs.files, job.outputs.file_size, job.outputs.total) == (3, 5, 9)
    assert job.scratch.rstrip("/") == f"{tmp_path}/tmp"
    made.close()
