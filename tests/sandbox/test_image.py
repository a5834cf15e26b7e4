"""An image that differs from the imported one is never used, whoever gave it our name, and at any time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from spoold.engines.docker import image
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.job import Runtime
from spoold.sandbox import root
from tests import frozen
from tests.sandbox.conftest import Mode, make_job, settings_for

pytestmark = pytest.mark.docker
OTHER = "spoold-test-other"


@pytest.fixture
def content(runtime: Runtime, api: docker.APIClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """Yield the bytes of an image that only this test makes. Images with its name are removed at the end."""
    made = root.archive(runtime) + bytes(512)  # a tar may end in any number of empty blocks
    monkeypatch.setattr(root, "archive", lambda _: made)
    yield made
    for name in (name_of(made), f"{OTHER}:x"):
        while found := api.images(name=name):
            api.remove_image(found[0]["Id"], force=True)


@pytest.fixture
def sandbox(docker_host: str, runtime: Runtime, tmp_path: Path, mode: Mode, content: bytes) -> Iterator[DockerSandbox]:
    """Yield a sandbox with that image. It is not prepared."""
    made = DockerSandbox(settings_for(docker_host, str(tmp_path), mode=mode), runtime)
    yield made
    made.close()
    if made.plan is not None:
        with contextlib.closing(docker.APIClient(base_url=docker_host)) as api:
            api.remove_image(made.plan.image.id, force=True)


def name_of(content: bytes) -> str:
    return f"{image.REPOSITORY}:{hashlib.sha256(content).hexdigest()[:16]}"


def id_of(api: docker.APIClient, name: str) -> str:
    found: str = api.inspect_image(name)["Id"]  # type: ignore[no-untyped-call]
    return found


def other_tar(api: docker.APIClient, content: bytes) -> None:
    """Give our name to an image with one more file."""
    buffer = io.BytesIO(content)
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("canary"))
    api.import_image_from_data(buffer.getvalue(), repository=OTHER, tag="x")


def committed(api: docker.APIClient, content: bytes) -> None:
    """Give our name to an image that was committed from one of our containers."""
    api.import_image_from_data(content, repository=OTHER, tag="base")
    made = api.create_container(f"{OTHER}:base", command=["/none"])["Id"]
    try:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("canary"))
        api.put_archive(made, "/", data.getvalue())
        api.commit(made, repository=OTHER, tag="x")
    finally:
        api.remove_container(made)
        api.remove_image(f"{OTHER}:base")


def configured(*changes: str) -> Callable[[docker.APIClient, bytes], None]:
    """Return a function that gives our name to an image with the same content, but other settings for its start."""

    def _configured(api: docker.APIClient, content: bytes) -> None:
        api.import_image_from_data(content, repository=OTHER, tag="x", changes=list(changes))

    return _configured


STRANGE: dict[str, Callable[[docker.APIClient, bytes], None]] = {
    "another tar": other_tar,
    "a container that was committed": committed,
    "an entry point": configured('ENTRYPOINT ["/bin/sh"]'),
    "a variable": configured("ENV LD_PRELOAD=/nix/store/x"),
    "a user": configured("USER 1000"),
    "a volume": configured("VOLUME /spoold"),
    "a check of health": configured("HEALTHCHECK CMD /bin/sh"),
    "a trigger": configured("ONBUILD RUN /bin/sh"),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("mode", ["single-use"], indirect=True)  # the image is the same in both modes
def test_a_strange_image_under_our_name_is_not_used(
    sandbox: DockerSandbox, api: docker.APIClient, content: bytes, strange: str, caplog: pytest.LogCaptureFixture
) -> None:
    STRANGE[strange](api, content)
    bad = id_of(api, f"{OTHER}:x")
    api.tag(bad, name_of(content))
    with caplog.at_level(logging.WARNING):
        sandbox.prepare()
        sandbox.prepare()
    assert sandbox.plan is not None
    assert sandbox.plan.image.id == id_of(api, name_of(content)) != bad
    assert sum("another image has the name of ours" in record.message for record in caplog.records) == 1


def test_containers_are_made_from_the_image_that_was_looked_at(
    sandbox: DockerSandbox, api: docker.APIClient, content: bytes, plain_shell: str
) -> None:
    sandbox.prepare()
    assert sandbox.plan is not None
    other_tar(api, content)
    api.tag(id_of(api, f"{OTHER}:x"), name_of(content))
    result = sandbox.run(make_job("ls -d /canary", shell=plain_shell), lambda *_: None, threading.Event())
    assert "No such file" in result.run.stderr
    container = start_container(sandbox._engine, sandbox.plan, threading.Event())
    try:
        assert api.inspect_container(container.transport.id)["Image"] == sandbox.plan.image.id
    finally:
        container.close()


def test_what_the_engine_has_is_what_was_imported(
    sandbox: DockerSandbox, api: docker.APIClient, content: bytes
) -> None:
    sandbox.prepare()
    assert sandbox.plan is not None
    assert sandbox.plan.image.name == name_of(content)
    found = api.inspect_image(sandbox.plan.image.id)  # type: ignore[no-untyped-call]
    assert found["RootFS"]["Layers"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]


class _TheseAlone:
    """An engine that shows only a test's images, as old ones, because other tests use the engine too."""

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
        for number, tag in enumerate(tags):  # a separate image for each tag, as in the engine
            repository, _, name = tag.partition(":")
            api.import_image_from_data(frozen.image_root() + bytes(512 * number), repository=repository, tag=name)
        assert {*tags} <= _tags(api)
        image.remove_old(_TheseAlone(api, tags), "spoold-sandbox:0123456789abcdef")  # type: ignore[arg-type] # it stands in for one
        assert not _tags(api) & {*tags}
    finally:
        for tag in _tags(api) & {*tags}:
            api.remove_image(tag)
        api.close()


def _tags(api: docker.APIClient) -> set[str]:
    return {tag for found in api.images(name="spoold-sandbox") for tag in found["RepoTags"] or ()}
