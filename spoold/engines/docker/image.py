"""The image: the root of ``sandbox.root``, imported here, since no registry is ever asked.

Nothing runs to make the image: a tar is imported as it is. The tag is a hash of everything in it, so another version of
spoold or of the runtime makes another image.

Everybody who may use the engine can put another image under our name. So an image of that name is used only if it has
one layer, with the digest of our tar, and says nothing of how to run it. Containers are made by the id of the image
that was checked, since the name may stand for something else a moment later.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import Any, NamedTuple

import docker

from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox import root

log = Log("sandbox")

REPOSITORY = "spoold-sandbox"
OURS = re.compile(rf"{REPOSITORY}:[0-9a-f]{{16}}(?:-source)?")  # earlier versions had the ending
GRACE = 600.0  # seconds


class Image(NamedTuple):
    """An image of the engine: the name by which it is found again, and the id by which it is used."""

    name: str
    id: str


def ensure(api: docker.APIClient, runtime: Runtime) -> Image:
    """Return the image for ``runtime``. Make it where the engine has none, or has something else under its name."""
    content = root.archive(runtime)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{REPOSITORY}:{digest[:16]}"
    found = _look(api, name)
    if found and not _is_as_imported(found, digest):
        log.warning("another image has the name of ours; spoold does not use it, and makes its own again", image=name)
        found = None
    if found is None:
        api.import_image_from_data(content, repository=REPOSITORY, tag=digest[:16])
        found = _look(api, name)
        if found is None or not _is_as_imported(found, digest):
            raise OperatorError(
                f"the image {name} is not as it was imported. Another user of the engine changes it, or the engine "
                "does. Find out who uses this name, or use an engine that keeps images as they are"
            )
    return Image(name, found["Id"])


def _look(api: docker.APIClient, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.inspect_image(name)  # type: ignore[no-untyped-call] # the SDK has no types for this
    except docker.errors.ImageNotFound:
        return None
    return found


def _is_as_imported(found: dict[str, Any], digest: str) -> bool:
    """Tell whether an image holds the tar with this digest and nothing else, and does not say how it is to be run.

    The container says what is run, by whom and with which variables. Anything that an image adds to that (a check of
    health, volumes, variables) would be root's in there.
    """
    layers = (found.get("RootFS") or {}).get("Layers")
    return layers == [f"sha256:{digest}"] and not any((found.get("Config") or {}).values())


def remove_old(api: docker.APIClient, name: str) -> None:
    """Remove images of earlier versions and runtimes that no container uses any more; ``name`` stays.

    An image younger than GRACE stays too, since it may be in the making.
    """
    for found in api.images(name=REPOSITORY):
        if found["Created"] > time.time() - GRACE:
            continue
        for tag in found["RepoTags"] or ():
            if OURS.fullmatch(tag) and tag != name:
                # The engine keeps an image that a container uses. Somebody else may also have removed the image
                # meanwhile.
                with contextlib.suppress(docker.errors.APIError):
                    api.remove_image(tag)
                    log.info("removed an image that is no longer used", image=tag)
