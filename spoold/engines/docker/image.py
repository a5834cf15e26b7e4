"""The image: an empty root with mount points and the program of its root, made here, since no registry is ever asked.

What jobs run comes from the Nix store, which is mounted: ``/usr/bin/env``, and ``sh`` and ``bash`` in ``/bin`` and
``/usr/bin``, are links into it, and so are the two places where programs look for time zones. ``/etc`` has what a C
library reads, see ``sandbox.etc``. What root runs is one program in the image, see ``sandbox.program``. Nothing is run
to make the image: a tar is imported as it is, and the tag is a hash of all that is in it. Another version of spoold or
of the runtime makes another image.

Whoever may use the engine can put another image under our name. So what stands there is used only if it has one layer,
with the digest of our tar, and says nothing of how to run it. Containers are made from the image that was looked at, by
its id: a name may stand for something else a moment later.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tarfile
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

import docker

from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox import etc, program
from spoold.sandbox.facts import ETC, KEPT, LINE
from spoold.sandbox.orders import ENTER, ZONES

log = Log("sandbox")

REPOSITORY = "spoold-sandbox"
OURS = re.compile(rf"{REPOSITORY}:[0-9a-f]{{16}}(?:-source)?")  # the ending is that of earlier versions
GRACE = 600.0  # seconds
DIRECTORIES = (
    *("bin", "dev", "etc", "nix", "nix/store", "proc", "sys", "usr", "usr/bin", "usr/share", "job", "spoold"),
    KEPT.lstrip("/"),
    LINE.lstrip("/"),
)


class Image(NamedTuple):
    """An image of the engine's: the name under which it is found again, and the id by which it is used."""

    name: str
    id: str


def ensure(api: docker.APIClient, runtime: Runtime) -> Image:
    """Return the image for ``runtime``; make it where the engine has none, or has something else under its name."""
    content = root(runtime)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{REPOSITORY}:{digest[:16]}"
    found = _look(api, name)
    if found and not _is_as_imported(found, digest):
        log.warning("another image has the name of ours; it is not used, and ours is made again", image=name)
        found = None
    if found is None:
        api.import_image_from_data(content, repository=REPOSITORY, tag=digest[:16])
        found = _look(api, name)
        if found is None or not _is_as_imported(found, digest):
            raise OperatorError(
                f"the image {name} is not as it was imported: somebody else who may use the engine changes it, or the "
                "engine does; find out who uses this name, and use an engine that keeps images as they are"
            )
    return Image(name, found["Id"])


def _look(api: docker.APIClient, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.inspect_image(name)  # type: ignore[no-untyped-call] # the SDK has no types for this
    except docker.errors.ImageNotFound:
        return None
    return found


def _is_as_imported(found: dict[str, Any], digest: str) -> bool:
    """Tell whether an image holds the tar with this digest and nothing else, and has no word on how it is to be run.

    What is run, by whom and with which variables, is for the container to say. What an image may add to that (a check
    of health, volumes, variables) would be root's in there.
    """
    layers = (found.get("RootFS") or {}).get("Layers")
    return layers == [f"sha256:{digest}"] and not any((found.get("Config") or {}).values())


def remove_old(api: docker.APIClient, name: str) -> None:
    """Remove the images of earlier versions and runtimes that no container uses any more; ``name`` stays.

    One that is younger than GRACE may be in the making.
    """
    for found in api.images(name=REPOSITORY):
        if found["Created"] > time.time() - GRACE:
            continue
        for tag in found["RepoTags"] or ():
            if OURS.fullmatch(tag) and tag != name:
                # The engine keeps what a container uses; and somebody else may have removed it meanwhile.
                with contextlib.suppress(docker.errors.APIError):
                    api.remove_image(tag)
                    log.info("removed an image that is not used any more", image=tag)


def root(runtime: Runtime) -> bytes:
    """Return the image's root as a tar, the same bytes for the same input."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in DIRECTORIES:
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)  # runc gives a tmpfs the mode of the directory it covers
        for name, target in _links(runtime):
            _add(tar, name, tarfile.SYMTYPE, 0o777, link=target)
        for name, content in etc.files():
            _file(tar, f"etc/{name}", content)
            if name in ETC:
                _file(tar, f"{KEPT.lstrip('/')}/{name}", content)
        with (resources.files("spoold.sandbox") / "enter.sh").open("rb") as file:
            _file(tar, ENTER.lstrip("/"), file.read())
        # Where users are others than the host's, the porter is root by another name: so all may run it who come there.
        _add(tar, os.path.dirname(program.IN_IMAGE).lstrip("/"), tarfile.DIRTYPE, 0o700)
        _file(tar, program.IN_IMAGE.lstrip("/"), program.content(), 0o555)
    return buffer.getvalue()


def _links(runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield the names of links into the store, and what they lead to."""
    for name in ("bin/sh", "bin/bash", "usr/bin/sh", "usr/bin/bash"):
        yield name, f"{runtime.bash}/bin/bash"
    yield "usr/bin/env", f"{runtime.coreutils}/bin/env"
    if runtime.tzdata:
        yield ZONES.lstrip("/"), f"{runtime.tzdata}/share/zoneinfo"
        yield "usr/share/zoneinfo", f"{runtime.tzdata}/share/zoneinfo"


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    _add(tar, name, tarfile.REGTYPE, mode, content=content)


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, *, content: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content))
