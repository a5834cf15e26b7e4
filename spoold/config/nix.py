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
    patience: Annotated[
        float, setting("a build that takes longer than this makes room for builds that wait", "seconds", ge=0)
    ] = 5.0
    slow: Annotated[
        int,
        setting("how many builds that made room may go on besides; with 0 each build keeps its place to the end", ge=0),
    ] = 4
    failure_memory: Annotated[
        float, setting("how long the failure of a build is remembered and given as the answer", "seconds", ge=0)
    ] = 60.0
    limits: BuildLimits = BuildLimits()


class NixSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nix and its store."""

    state: Annotated[str, setting("the directory that contains the store, as nix/")] = "/var/lib/spoold"
    system: Annotated[
        str, setting("Nix's name for this kind of machine, such as aarch64-linux; empty means what the host is")
    ] = ""
    substituters: Annotated[list[str], setting("the binary caches to ask; empty means none")] = []
    trusted_public_keys: Annotated[
        list[str],
        setting("the public keys whose signatures are trusted, on paths from binary caches and on imported files"),
    ] = []
    signing_key: Annotated[
        str, setting("the file with the secret key that signs exported files; only root needs to read it")
    ] = ""
    fetch: Annotated[
        list[str],
        setting(
            "the hosts from which sources that are pinned by a hash may be downloaded. Each is an exact name, for "
            "ports 80 and 443, or with the port that is allowed, such as 'mirror.example.org:8080'. Empty means none"
        ),
    ] = []
    fetch_inside: Annotated[
        list[str],
        setting(
            "networks outside the Internet that such hosts may be in, such as 10.1.2.0/24. Names that lead to any "
            "other private, link-local or loopback address are refused"
        ),
    ] = []
    netrc: Annotated[
        str,
        setting(
            "the file with names and passwords for binary caches and for pins that are URLs, in the format of curl's "
            ".netrc"
        ),
    ] = ""
    certificates: Annotated[
        str,
        setting(
            "the file of certificate authorities, in PEM, by which binary caches, pins that are URLs and the hosts in "
            "fetch are verified; empty means those of the host"
        ),
    ] = ""
    jail_user: Annotated[  # not nobody, since other programs run as that: no system gives out this uid
        int, setting("the uid that evaluates expressions if the builder runs as root")
    ] = 60705
    build_users: Annotated[
        str,
        setting(
            "the group whose members run builds. auto: spoold-build under the builder's unit, nixbld if root runs the "
            "builder, and the subordinate ids of an ordinary user. Empty: builds run as the builder's own user and "
            "can rewrite what others use. Leave it empty only if all submissions are your own"
        ),
    ] = "auto"
    enter: Annotated[
        Literal["captured", "nix-shell"],
        setting(
            "how the environment of a job's phases is set up in its sandbox. captured: from what the builder captured "
            "of it. nix-shell: by nix-shell itself, each time"
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
    def kind(self) -> str:
        """Return Nix's name for the kind of machine that this is, or that it is to be."""
        return self.system or f"{os.uname().machine}-linux"

    @property
    def physical_store(self) -> str:
        """Return the directory that builds and jobs see as ``/nix/store``."""
        return os.path.abspath(os.path.join(self.state, "nix/nix/store"))
