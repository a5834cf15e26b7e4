"""Settings of builds and of Nix."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from spoold.model import addresses, hosts
from spoold.model.job import BuildLimits
from spoold.model.setting import setting


class BuilderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Builds of dependencies.

    A build that takes longer than ``patience`` makes room for others that wait. It becomes one of up to ``slow`` more
    builds, or is put back until there is room among these.
    """

    parallel: Annotated[int, setting("how many builds run at once", ge=1)] = 2
    patience: Annotated[float, setting("after which a build makes room for others that wait", "seconds", ge=0)] = 5.0
    slow: Annotated[
        int, setting("how many more may go on that made room; with 0 each keeps its place to the end", ge=0)
    ] = 4
    failure_memory: Annotated[float, setting("for so long a failed build is answered from memory", "seconds", ge=0)] = (
        60.0
    )
    limits: BuildLimits = BuildLimits()


class NixSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nix and its store."""

    state: Annotated[str, setting("the directory of the store, which is nix/ below it")] = "/var/lib/spoold"
    system: Annotated[str, setting("what Nix calls this kind of machine")] = "x86_64-linux"
    substituters: Annotated[list[str], setting("the binary caches to ask; none if empty")] = []
    trusted_public_keys: Annotated[
        list[str], setting("whose signatures are trusted on what binary caches give, and on what is imported")
    ] = []
    signing_key: Annotated[
        str, setting("the file with the secret key that signs what is exported; root alone needs to read it")
    ] = ""
    fetch: Annotated[
        list[str],
        setting(
            "the hosts from which sources that are pinned by a hash may be downloaded: exact names, at ports 80 and "
            "443 or at the one named, such as 'mirror.example.org:8080'; none if empty"
        ),
    ] = []
    fetch_inside: Annotated[
        list[str],
        setting(
            "networks that are not the Internet's, such as 10.1.2.0/24, in which such hosts may be; names that lead to "
            "any other private, link-local or loopback address are refused"
        ),
    ] = []
    netrc: Annotated[
        str, setting("the file with names and passwords for binary caches and for pins that are URLs, as curl has it")
    ] = ""
    certificates: Annotated[
        str,
        setting(
            "the file of certificate authorities by which binary caches, pins that are URLs and the hosts in fetch "
            "are known, in PEM; if empty, those of the host"
        ),
    ] = ""
    jail_user: Annotated[  # not nobody, since other programs run as that: no system gives out this uid
        int, setting("the uid under which expressions are evaluated when the builder runs as root")
    ] = 60705
    build_users: Annotated[
        str,
        setting(
            "the group whose members run builds. auto: those of spoold-build under the builder's unit, those of nixbld "
            "when root runs the builder, and an ordinary user's subordinate ids. Empty: builds run as the builder's "
            "own user, and can rewrite what others use; only where all submissions are your own"
        ),
    ] = "auto"
    enter: Annotated[
        Literal["captured", "nix-shell"],
        setting(
            "what sets up the environment of a job's phases in its sandbox: what the builder captured of it, or "
            "nix-shell itself, each time"
        ),
    ] = "captured"

    def __post_init__(self) -> None:
        """Refuse entries that are no host or network already when the settings are read."""
        for name, entries, parse in (
            ("fetch", self.fetch, hosts.entry),
            ("fetch_inside", self.fetch_inside, addresses.network),
        ):
            for each in entries:
                try:
                    parse(each)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        if self.fetch and not self.build_users:
            raise ValueError(
                'fetch needs users that run builds, and build_users is "": what talks to the network must own nothing '
                "in the store. Remove one of the two"
            )

    @property
    def physical_store(self) -> str:
        """Return the directory that builds and jobs see as ``/nix/store``."""
        return os.path.abspath(os.path.join(self.state, "nix/nix/store"))
