"""The image: an empty root with mount points, made here, since no registry is ever asked.

The programs in it come from the Nix store, which is mounted: ``/bin/sh`` and ``/usr/bin/env`` are links into it. The
tag is a hash of all that goes in, so another version of spoold or another runtime makes another image.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import docker

from spoold.model.job import Runtime
from spoold.sandbox.supervisor import JOB_UID

REPOSITORY = "spoold-sandbox"
SUPERVISOR = "/spoold/supervisor.py"
ENTER = "/spoold/enter.sh"


def ensure(api: docker.APIClient, runtime: Runtime) -> str:
    """Return the name of the image for ``runtime``; import it where the engine has none."""
    content = root(runtime)
    tag = hashlib.sha256(content).hexdigest()[:16]
    name = f"{REPOSITORY}:{tag}"
    try:
        api.inspect_image(name)  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        api.import_image_from_data(content, repository=REPOSITORY, tag=tag)
    return name


def root(runtime: Runtime) -> bytes:
    """Return the image's root as a tar, the same bytes for the same input."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "nix", "nix/store", "proc", "spoold", "sys", "usr", "usr/bin", "work"):
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)  # runc gives a tmpfs the mode of the directory it covers
        for name, target in (
            ("bin/sh", f"{runtime.bash}/bin/bash"),
            ("bin/bash", f"{runtime.bash}/bin/bash"),
            ("usr/bin/env", f"{runtime.coreutils}/bin/env"),
        ):
            _add(tar, name, tarfile.SYMTYPE, 0o777, link=target)
        _add(
            tar,
            "etc/passwd",
            tarfile.REGTYPE,
            0o644,
            f"root:x:0:0::/:/bin/sh\njob:x:{JOB_UID}:{JOB_UID}::/work:/bin/sh\n",
        )
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, f"root:x:0:\njob:x:{JOB_UID}:\n")
        for path in (SUPERVISOR, ENTER):
            _add(tar, path[1:], tarfile.REGTYPE, 0o644, _beside(os.path.basename(path)))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: str = "", *, link: str = "") -> None:
    data = content.encode()
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
    tar.addfile(entry, io.BytesIO(data))


def _beside(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()
