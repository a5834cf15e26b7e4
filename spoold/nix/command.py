"""How Nix programs are called: with every option that matters, and with an environment of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from spoold.config import NixSettings
from spoold.host import proc
from spoold.nix import caches, confine

PASSED_TO_NETWORK = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def line(argv: Sequence[str], root: str, settings: NixSettings, group: str | None = None) -> list[str]:
    """Return the command line of a Nix program on the store at ``root``. Options that ``argv`` sets itself win.

    ``group`` is the group of the users of builds, "" where builders run as the program's user. None is for a program
    that must not build.
    """
    # `nix copy` and `nix store verify` want their options after the name of the command.
    name_ends = 1 if argv[0] != "nix" else 3 if argv[1] == "store" else 2
    chosen = options(settings, group)
    return [proc.find(argv[0]), *argv[1:name_ends], "--store", root, *chosen, *argv[name_ends:]]


def options(settings: NixSettings, group: str | None = None) -> list[str]:
    """Return the options of every Nix program. For ``group`` see :func:`line`."""
    chosen = {
        "system": settings.kind,
        "sandbox": "true",
        "sandbox-fallback": "false",
        "sandbox-paths": "",
        # With an empty group Nix leaves the mode of the store's directory alone, see nix/store.
        "build-users-group": group or "",
        "substituters": " ".join(caches.urls(settings)),
        "system-features": "",
        "builders": "",
        # A program that may build builds one derivation at a time, since all share one cage: see nix/cage.
        "max-jobs": "auto" if group is None else "1",
        "build-poll-interval": "1",  # seconds between looks at an output that another process is building
        "gc-reserved-space": "0",
        "restrict-eval": "true",
        "allow-import-from-derivation": "false",
        "experimental-features": "nix-command",
    }
    if settings.trusted_public_keys:
        chosen["trusted-public-keys"] = " ".join(settings.trusted_public_keys)
    return [word for name, value in chosen.items() for word in ("--option", name, value)]


def environment(scratch: Path, configuration: Path, state: Path, *, network: bool) -> dict[str, str]:
    """Return the whole environment. ``configuration`` is an empty directory, so that no nix.conf is read."""
    base = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "NIX_CONF_DIR": str(configuration),
        "NIX_USER_CONF_FILES": "",
        "NIX_STATE_DIR": str(state),
    }
    if network:
        base["NIX_SSL_CERT_FILE"] = confine.CERTIFICATES
    passed = {name: os.environ[name] for name in PASSED_TO_NETWORK if network and name in os.environ}
    return base | passed
