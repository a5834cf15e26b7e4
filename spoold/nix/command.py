"""How Nix programs are called: every option that matters, and an environment with nothing of the host's in it."""

from __future__ import annotations

import grp
import os
from collections.abc import Sequence
from pathlib import Path

from spoold.config import Nix
from spoold.host import proc
from spoold.model.errors import OperatorError
from spoold.nix import confine

AUTO = "auto"
USUAL_GROUP = "nixbld"
USERS = 10  # as many as Nix itself recommends
HOST_USER_LOCKS = "/nix/var/nix/userpool"
PASSED_TO_NETWORK = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def line(argv: Sequence[str], root: str, settings: Nix, *, building: bool) -> list[str]:
    """Return the command line of a Nix program on the store at ``root``; what ``argv`` sets itself wins."""
    # `nix copy` wants its options after the name of the command.
    name_ends = 2 if argv[0] == "nix" else 1
    chosen = options(settings, building=building)
    return [proc.find(argv[0]), *argv[1:name_ends], "--store", root, *chosen, *argv[name_ends:]]


def options(settings: Nix, *, building: bool) -> list[str]:
    """Return the options of every Nix program."""
    chosen = {
        "system": settings.system,
        "sandbox": "true",
        "sandbox-fallback": "false",
        "sandbox-paths": "",
        # Without it Nix leaves the mode of the store's directory alone, see nix/store.
        "build-users-group": build_group(settings) if building else "",
        "substituters": " ".join(settings.substituters),
        "system-features": "",
        "builders": "",
        "max-jobs": "auto",
        "build-poll-interval": "1",  # seconds between looks at an output that another process is building
        "gc-reserved-space": "0",
        "restrict-eval": "true",
        "allow-import-from-derivation": "false",
        "experimental-features": "nix-command",
    }
    if settings.trusted_public_keys:
        chosen["trusted-public-keys"] = " ".join(settings.trusted_public_keys)
    return [word for name, value in chosen.items() for word in ("--option", name, value)]


def environment(scratch: Path, configuration: Path, state: Path, settings: Nix, *, network: bool) -> dict[str, str]:
    """Return the whole environment: ``configuration`` is an empty directory, so that no nix.conf has a say."""
    base = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "NIX_CONF_DIR": str(configuration),
        "NIX_USER_CONF_FILES": "",
    }
    if not host_user_locks(settings):
        base["NIX_STATE_DIR"] = str(state)
    if network:
        base["NIX_SSL_CERT_FILE"] = confine.CERTIFICATES
    passed = {name: os.environ[name] for name in PASSED_TO_NETWORK if network and name in os.environ}
    return base | passed


def host_user_locks(settings: Nix) -> list[str]:
    """Where the host's own Nix, if there is one, locks the build users that we share with it.

    Who finishes a build kills every process of its build user: two at once would kill each other's builders.
    """
    return [HOST_USER_LOCKS] if build_group(settings) and os.access(HOST_USER_LOCKS, os.W_OK) else []


def build_group(settings: Nix) -> str:
    """Return the group whose members run builders, or "" where builders run as we do.

    Raises :class:`OperatorError` where the settings name a group that is not there or has no members.
    """
    if os.geteuid() != 0 or not settings.build_users:
        return ""
    name = USUAL_GROUP if settings.build_users == AUTO else settings.build_users
    try:
        members = grp.getgrnam(name).gr_mem
    except KeyError:
        members = []
    if members or settings.build_users == AUTO:
        return name if members else ""
    raise OperatorError(
        f"nix.build_users is {name!r}, and there is no group {name} with members on this host; make it with\n"
        f"  groupadd --system {name}\n"
        f"  for n in $(seq {USERS}); do useradd --system --no-create-home --home-dir /var/empty"
        f" --shell /usr/sbin/nologin --no-user-group --gid {name} --groups {name} {name}$n; done\n"
        'or set nix.build_users = "": then builders run as root, in nothing but Nix\'s sandbox'
    )
