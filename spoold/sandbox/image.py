"""The image: an empty root with mount points, made here, since no registry is ever asked.

The programs in it come from the Nix store, which is mounted: ``/bin/sh`` and ``/usr/bin/env`` are links into it. The
tag is a hash of all that goes in, so another version of spoold or another runtime makes another image. It is made in
two steps: a tar is imported, and then the supervisor's modules are compiled in a container of that, by the Python that
will run them, for compiling them at each start would take longer than all else that they do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tarfile
import time
import uuid

import docker
from docker.types import LogConfig, Mount

from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.job import Runtime
from spoold.sandbox.attached import known
from spoold.sandbox.inside.files import HOLDERS, JOB_UID

log = Log("sandbox")

REPOSITORY = "spoold-sandbox"
MODULES = "/spoold"  # where the package "inside" is found
ENTER = "/spoold/enter.sh"
COMPILE_PATIENCE = 60
SOURCE = "-source"  # what is appended to the tag of the image of the first step
OURS = re.compile(rf"{REPOSITORY}:[0-9a-f]{{16}}(?:{SOURCE})?")
GRACE = 600.0  # seconds


def ensure(api: docker.APIClient, runtime: Runtime, labels: dict[str, str]) -> str:
    """Return the name of the image for ``runtime``; make it where the engine has none."""
    content = root(runtime)
    tag = hashlib.sha256(content).hexdigest()[:16]
    name = f"{REPOSITORY}:{tag}"
    try:
        api.inspect_image(name)  # type: ignore[no-untyped-call] # the SDK has no types for this one
    except docker.errors.ImageNotFound:
        api.import_image_from_data(content, repository=REPOSITORY, tag=f"{tag}{SOURCE}")
        _compile(api, runtime, labels, tag)
    return name


def remove_old(api: docker.APIClient, name: str) -> None:
    """Remove the images of earlier versions and runtimes that no container uses any more; ``name`` stays.

    One that is younger than GRACE may be in the making.
    """
    for found in api.images(name=REPOSITORY):
        if found["Created"] > time.time() - GRACE:
            continue
        for tag in found["RepoTags"] or ():
            if OURS.fullmatch(tag) and tag.removesuffix(SOURCE) != name:
                # The engine keeps what a container uses; and somebody else may have removed it meanwhile.
                with contextlib.suppress(docker.errors.APIError):
                    api.remove_image(tag)
                    log.info("removed an image that is not used any more", image=tag)


def _compile(api: docker.APIClient, runtime: Runtime, labels: dict[str, str], tag: str) -> None:
    name = f"spoold-{uuid.uuid4().hex}"
    known.add(name)
    try:
        _compile_in(api, runtime, labels, tag, name)
    finally:
        known.discard(name)


def _compile_in(api: docker.APIClient, runtime: Runtime, labels: dict[str, str], tag: str, name: str) -> None:
    container = api.create_container(
        f"{REPOSITORY}:{tag}{SOURCE}",
        name=name,
        entrypoint=[f"{runtime.python}/bin/python3", "-I", "-S", "-E", "-m", "compileall", "-q"],
        command=["--invalidation-mode", "unchecked-hash", f"{MODULES}/inside"],
        network_disabled=True,
        labels=labels,
        host_config=api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            mounts=[Mount("/nix/store", runtime.store, type="bind", read_only=True)],
            log_config=LogConfig(type="none"),
        ),
    )["Id"]
    try:
        api.start(container)
        code = api.wait(container, timeout=COMPILE_PATIENCE)["StatusCode"]
        if code != 0:
            raise OperatorError(
                f"the runtime's Python {runtime.python} does not work in a container (exit code {code})"
            )
        api.commit(container, repository=REPOSITORY, tag=tag)
    finally:
        api.remove_container(container, force=True, v=True)


def root(runtime: Runtime) -> bytes:
    """Return the image's root as a tar, the same bytes for the same input."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "nix", "nix/store", "proc", "sys", "usr", "usr/bin", "job"):
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)  # runc gives a tmpfs the mode of the directory it covers
        for name, target in (
            ("bin/sh", f"{runtime.bash}/bin/bash"),
            ("bin/bash", f"{runtime.bash}/bin/bash"),
            ("usr/bin/env", f"{runtime.coreutils}/bin/env"),
        ):
            _add(tar, name, tarfile.SYMTYPE, 0o777, link=target)
        ids = (JOB_UID, *HOLDERS)
        users = "".join(f"job:x:{uid}:{uid}::/job:/bin/sh\n" for uid in ids)
        _file(tar, "etc/passwd", f"root:x:0:0::/:/bin/sh\n{users}")
        _file(tar, "etc/group", "root:x:0:\n" + "".join(f"job:x:{gid}:\n" for gid in ids))
        for name in ("spoold", "spoold/inside"):
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        here = os.path.dirname(__file__)
        for name in ("enter.sh", *(f"inside/{name}" for name in sorted(os.listdir(f"{here}/inside")))):
            if not name.endswith("__pycache__"):
                with open(f"{here}/{name}", encoding="utf-8") as file:
                    _file(tar, f"spoold/{name}", file.read())
    return buffer.getvalue()


def _file(tar: tarfile.TarFile, name: str, content: str) -> None:
    _add(tar, name, tarfile.REGTYPE, 0o644, content=content.encode())


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, *, content: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content))
