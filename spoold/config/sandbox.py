"""Settings of sandboxes and of the engines that run them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from spoold.model.setting import setting


class DockerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Docker, if it is the engine."""

    host: Annotated[
        str, setting("the address at which the engine listens; empty means $DOCKER_HOST or the default socket")
    ] = ""
    runtime: Annotated[
        str,
        setting(
            "one of the engine's OCI runtimes; empty means crun if the engine has it and a container starts with it, "
            "otherwise the engine's default"
        ),
    ] = ""


class OciSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """runc or crun without Docker, if oci is the engine."""

    runtime: Annotated[
        str,
        setting(
            "the OCI runtime, by its name or its path; empty means crun if it is installed and a container starts "
            "with it, otherwise runc"
        ),
    ] = ""
    state: Annotated[
        str,
        setting(
            "the directory where containers are kept, on a file system that is not mounted noexec. Empty means "
            "$STATE_DIRECTORY, which the unit sets; without that, /var/lib/spoold-executor for root and "
            ".local/state/spoold-executor of any other user"
        ),
    ] = ""


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The containers in which programs run, with any engine."""

    engine: Annotated[
        str, setting("the engine that runs jobs: docker, oci, or a Python module that provides an engine")
    ] = "docker"
    mode: Annotated[
        Literal["single-use", "recycled"],
        setting(
            "how containers are used. single-use: each job gets its own. recycled: a container serves jobs one after "
            "the other, each in namespaces of its own"
        ),
    ] = "single-use"
    replace_after: Annotated[
        int, setting("a recycled container is replaced after this many jobs, or after anything unusual", ge=1)
    ] = 200
    replace_on_owner_change: Annotated[
        bool, setting("true replaces a recycled container before it serves a job of another user")
    ] = False
    waiting: Annotated[
        int,
        setting(
            "how many started containers wait for a job. A negative number means as many as there are slots; "
            "single-use containers are then kept for bursts as well, up to 48, in a 32nd of the memory"
        ),
    ] = -1
    pin_cpus: Annotated[
        bool,
        setting(
            "whether each job runs on one CPU. With no more slots than CPUs, each job has a CPU of its own. Starting "
            "a job takes about 20 ms longer, and all processes of the job share that CPU"
        ),
    ] = False
    view: Annotated[
        Literal["auto", "required", "off"],
        setting(
            "whether a job sees only its own closure of the Nix store. auto: if that is possible. required: no job "
            "runs without that. off: never"
        ),
    ] = "auto"
