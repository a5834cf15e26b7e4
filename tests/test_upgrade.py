"""What an earlier version left is gone on with, or replaced, and nothing of it is lost."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import docker
import pytest

from spoold.sandbox import image
from spoold.spool import layout
from spoold.spool.check import Check
from spoold.spool.requeue import requeue
from tests import frozen
from tests.actors.bench import Bench, settings_for


def test_a_frozen_spool_is_explained(tmp_path: Path) -> None:
    root = frozen.spool(tmp_path / "spool")
    layout.check(str(root))
    assert layout.create(str(root)) == [], "its modes are today's"
    assert Check(settings_for(root), "test").unexplained() == []


# What each submission of the frozen spool comes to. One that was answered keeps its answer, to the byte.
OUTCOMES = {
    "again": "COMPLETED",  # taken in, while the client's file still lies in incoming/
    "cancelling": "CANCELLED",  # taken by intake, and not answered
    "committed": "COMPLETED",  # its result is in tmp/
    "dropped": "COMPLETED",
    "first": "COMPLETED",
    "list": "COMPLETED",
    "queued": "COMPLETED",
    "queued-too": "COMPLETED",  # with a pin that was added
    "runs": "COMPLETED",  # by an executor that died
    "second": "COMPLETED",  # its second attempt
    "tried-build": "COMPLETED",  # whose build has its second attempt
    "waits": "COMPLETED",  # its build had a builder that died; a cancel without the id does nothing any more
    "wrote": "COMPLETED",  # a result that was not committed
}
RUN_AGAIN = OUTCOMES.keys() - {"cancelling", "committed", "list"}


def test_a_frozen_spool_goes_on_to_its_end(tmp_path: Path) -> None:
    root = frozen.spool(tmp_path / "spool")
    answered = {path.name: path.read_bytes() for path in (root / "done").glob("*.response.json")}
    answered |= {path.name: path.read_bytes() for path in (root / "done").glob("*.refused.json")}
    set_aside = {path.name: path.read_bytes() for path in (root / "quarantine").iterdir()}
    for lock in (root / "tmp").glob("*.lock"):
        lock.unlink()  # which a daemon leaves, and no actor makes
    committed = (root / "tmp" / "committed@1.response.json").read_bytes()
    bench = Bench(root, settings_for(root))
    try:
        for actor in (bench.intake, bench.health):
            actor.start()

        def step() -> None:
            bench.intake.step()
            bench.step()
            bench.health.step()

        bench.until(lambda: all(bench.has("done", f"{id_}.response.json") for id_ in OUTCOMES), step)
        bench.until(lambda: bench.builds.report("by-hand-4e5f6071"), step)
        bench.until(lambda: not bench.names("builds/new") | bench.names("builds/building"), step)
        bench.assert_nothing_is_left()
        assert {id_: bench.response(id_)["status"] for id_ in OUTCOMES} == OUTCOMES
        assert (root / "done" / "committed.response.json").read_bytes() == committed
        assert {name: (root / "done" / name).read_bytes() for name in answered} == answered
        assert {path.name: path.read_bytes() for path in (root / "quarantine").iterdir()} == set_aside
        names = {name.removesuffix(".response.json") for name in bench.names("done") if name.endswith(".response.json")}
        assert names == OUTCOMES.keys() | {name.removesuffix(".response.json") for name in answered if "@" not in name}
        assert sorted(job.submission_id for job in bench.sandbox.jobs) == sorted(RUN_AGAIN), "each once"
        assert len(bench.backend.built) == len(set(bench.backend.built)) == 4, "what was built is not built again"
        assert len(bench.builds.packages(None)) == 1
        assert bench.builds.pins() == {"24.11": "/srv/nixpkgs-24.11"}
        runtime = bench.builds.runtime()
        assert runtime is not None
        assert runtime.format == runtime.NEWEST
        assert set(runtime.nixpkgs) == {"default", "24.11"}
    finally:
        bench.close()


def test_a_frozen_answer_may_be_taken_back_and_given_anew(tmp_path: Path) -> None:
    bench = Bench(frozen.spool(tmp_path / "spool"))
    try:
        before = bench.response("answered")
        requeue(bench.spool, "answered")
        bench.wait_for("answered")
        after = bench.response("answered")
        assert before["run"]["stdout"] == after["run"]["stdout"] == "20 22\nfast a\nhi\n"
        assert before["status"] == after["status"] == "COMPLETED"
    finally:
        bench.close()


@pytest.mark.parametrize("group", [None, os.getegid()])
def test_a_frozen_nix_state_is_laid_out(tmp_path: Path, group: int | None) -> None:
    state = frozen.nix_state(tmp_path / "state", group=group)
    store = state / "nix/nix/store"
    assert stat.S_IMODE(store.stat().st_mode) == (0o711 if group is None else 0o1771)
    programs = state / "nix/nix/var/nix/gcroots/spoold/runtime"
    assert {"python3", "bash", "coreutils"} <= {link.name for link in programs.iterdir()}
    assert all(os.readlink(link).startswith("/nix/store/") for link in programs.iterdir())


class _TheseAlone:
    """An engine in which nobody sees images but those of a test, which are old: others use the engine as well."""

    def __init__(self, api: docker.APIClient, tags: list[str]) -> None:
        self._api, self._tags = api, tags

    def images(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        found = self._api.images(*arguments, **options)
        return [
            each | {"Created": time.time() - 86400} for each in found if set(each["RepoTags"] or ()) & {*self._tags}
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


def test_images_of_an_earlier_version_are_removed(docker_host: str) -> None:
    tags = frozen.image_tags()
    api = docker.APIClient(base_url=docker_host)
    try:
        for number, tag in enumerate(tags):  # one image each, as the engine has them
            repository, _, name = tag.partition(":")
            api.import_image_from_data(frozen.image_root() + bytes(512 * number), repository=repository, tag=name)
        assert {*tags} <= _tags(api)
        image.remove_old(_TheseAlone(api, tags), "spoold-sandbox:0123456789abcdef")  # type: ignore[arg-type]
        assert not _tags(api) & {*tags}
    finally:
        for tag in _tags(api) & {*tags}:
            api.remove_image(tag)
        api.close()


def _tags(api: docker.APIClient) -> set[str]:
    return {tag for found in api.images(name="spoold-sandbox") for tag in found["RepoTags"] or ()}
