"""Returned files of strangers, with arbitrary names and contents."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from spoold import client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("incoming", "done", "progress"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    return tmp_path / "spool"


def told(name: str, data: bytes, *, inline: bool = True, **changes: Any) -> dict[str, Any]:
    content = {"content": data.decode(), "encoding": "utf8"} if inline else {}
    return {
        "name": name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "mode": "0755",
        **content,
    } | changes


def tar_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def publish(root: Path, tar: bytes | None = None, **keys: Any) -> client.Spool:
    if tar is not None:
        (root / "done" / "x.outputs.tar").write_bytes(tar)
        sha256 = hashlib.sha256(tar).hexdigest()
        keys.setdefault("outputs_tar", {"name": "x.outputs.tar", "size": len(tar), "sha256": sha256})
    (root / "done" / "x.response.json").write_text(json.dumps({"Submission_id": "x", "status": "COMPLETED", **keys}))
    return client.Spool(root)


def test_out_of_the_response_and_the_tar(root: Path) -> None:
    tar = tar_of({"a": b"A", "sub/b": b"B" * 10_000})
    spool = publish(root, tar, outputs=[told("a", b"A"), told("sub/b", b"B" * 10_000, inline=False)])
    assert spool.outputs("x") == {"a": b"A", "sub/b": b"B" * 10_000}
    target = root.parent / "here"
    assert spool.save("x", target) == ["a", "sub/b"]
    assert (target / "sub" / "b").read_bytes() == b"B" * 10_000
    assert os.access(target / "a", os.X_OK)
    with pytest.raises(client.RequestError, match="already"):
        spool.save("x", target)
    assert spool.save("x", target, over=True) == ["a", "sub/b"]


def test_patterns_are_given_as_text_or_whole(root: Path) -> None:
    made = client.program({"run.sh": "true"}, outputs=["plot*.png", {"path": "x", "required": True}])
    assert made["outputs"] == [{"path": "plot*.png"}, {"path": "x", "required": True}]
    assert "outputs" not in client.program({"run.sh": "true"})


def test_a_refused_request_is_no_request_without_files(root: Path) -> None:
    """Nobody should take the lack of files for a program that wrote none."""
    spool = publish(root, status="REJECTED", reason="outputs[0]: why")
    for ask in (spool.outputs, lambda id_: spool.save(id_, root)):
        with pytest.raises(
            client.RequestError, match=r"x: no files came back, because it was refused: outputs\[0\]: why"
        ):
            ask("x")


def test_of_a_case(root: Path) -> None:
    tar = tar_of({"one/a": b"A", "two/a": b"B"})
    cases = [
        {"name": name, "verdict": "accepted", "outputs": [told("a", data, inline=False)]}
        for name, data in (("one", b"A"), ("two", b"B"))
    ]
    spool = publish(root, tar, cases=cases)
    assert spool.outputs("x") == {}
    assert (spool.outputs("x", case="one"), spool.outputs("x", case="two")) == ({"a": b"A"}, {"a": b"B"})
    assert spool.save("x", root.parent / "two", case="two") == ["a"]
    assert (root.parent / "two" / "a").read_bytes() == b"B"
    with pytest.raises(client.RequestError, match="no case called 'three'"):
        spool.outputs("x", case="three")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../b", "", ".", "a//b", "a\\b", "a\0b"])
def test_a_name_that_leads_elsewhere_is_an_error(root: Path, name: str) -> None:
    spool = publish(root, outputs=[told(name, b"x")])
    with pytest.raises(client.AnswerError, match="not a name that a returned file can have"):
        spool.save("x", root.parent / "here")
    assert not (root.parent / "here").exists()


def test_no_link_is_followed_where_they_are_written(root: Path) -> None:
    here = root.parent / "here"
    (here / "real").mkdir(parents=True)
    (root.parent / "elsewhere").mkdir()
    (here / "sub").symlink_to(root.parent / "elsewhere")
    (here / "a").symlink_to(root.parent / "elsewhere" / "a")
    spool = publish(root, outputs=[told("sub/b", b"x")])
    with pytest.raises(client.RequestError, match="cannot be written"):
        spool.save("x", here, over=True)
    spool = publish(root, outputs=[told("a", b"x")])
    with pytest.raises(client.RequestError, match="already"):
        spool.save("x", here)
    spool.save("x", here, over=True)
    assert (here / "a").read_bytes() == b"x"
    assert os.listdir(root.parent / "elsewhere") == []


@pytest.mark.parametrize(
    "changes", [{"size": 2}, {"sha256": "0" * 64}, {"encoding": "base64"}], ids=["size", "digest", "encoding"]
)
def test_what_is_not_as_it_is_told_is_an_error(root: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(client.AnswerError):
        publish(root, outputs=[told("a", b"A", **changes)]).outputs("x")


def test_a_tar_that_is_gone_changed_or_none_is_an_error(root: Path) -> None:
    good = tar_of({"a": b"A"})
    files = [told("a", b"A", inline=False)]
    about = {"name": "x.outputs.tar", "size": len(good), "sha256": hashlib.sha256(good).hexdigest()}
    with pytest.raises(client.AnswerError, match="does not say where the files are"):
        publish(root, outputs=files).outputs("x")
    with pytest.raises(client.AnswerError, match="files were deleted"):
        publish(root, outputs=files, outputs_tar=about).outputs("x")
    for bad in (good + b"x", good[:-1], b"x" * len(good)):
        with pytest.raises(client.AnswerError, match="not the ones that the response names"):
            publish(root, bad, outputs=files, outputs_tar=about).outputs("x")
    with pytest.raises(client.AnswerError, match="differs from what the response says of it"):
        publish(root, tar_of({"a": b"B"}), outputs=files).outputs("x")
    with pytest.raises(client.AnswerError):
        publish(root, b"no tar at all", outputs=files).outputs("x")


def test_no_more_is_read_than_is_told(root: Path) -> None:
    files = [told("a", b"A", inline=False)]
    spool = publish(root, tar_of({"a": b"A"}), outputs=files, outputs_tar={"name": "x", "size": 1 << 60, "sha256": ""})
    with pytest.raises(client.AnswerError, match="does not say where the files are"):
        spool.outputs("x")


def test_links_and_devices_in_a_tar_are_nothing(root: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(client.AnswerError, match="differs from what the response says of it"):
        publish(root, made.getvalue(), outputs=[told("a", b"A", inline=False)]).outputs("x")
