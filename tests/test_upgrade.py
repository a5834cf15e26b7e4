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
from tests import frozen
from tests.actors.bench import settings_for


def test_a_frozen_spool_is_explained(tmp_path: Path) -> None:
    root = frozen.spool(tmp_path / "spool")
    layout.check(str(root))
    assert layout.create(str(root)) == [], "its modes are today's"
    assert Check(settings_for(root), "test").unexplained() == []


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
