"""How Nix programs ask servers of the operator's: binary caches, and pins that are URLs.

Theory of operation: a program that asks by HTTP gets a door (:mod:`spoold.nix.door`), so that nothing that the builder
runs has the host's network. What no forward proxy leads to (s3, ssh) does without, and so does a builder at a desk
whose builds have no users of their own: it may make no network namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

from spoold.host import proc
from spoold.nix import caches, door
from spoold.nix.store import Store
from spoold.proxy import rules


def run(
    store: Store,
    urls: Sequence[str],
    argv: Sequence[str],
    bounds: proc.Bounds,
    fetch: door.Fetch,
    *,
    watch: proc.Watch | None = None,
) -> proc.Finished:
    """Run a Nix program that asks the servers ``urls``, some of which may be directories.

    Raises :class:`OperatorError` for a file of the settings that cannot be read.
    """
    remote = [url for url in urls if not caches.is_local(url)]
    has_door = bool(remote) and store.is_root and all(map(rules.is_http, remote))
    return store.run(
        caches.with_netrc(argv, store.settings) if remote else argv,
        bounds,
        readable=caches.files(store.settings, urls),
        network=bool(remote) and not has_door,
        fetch=fetch if has_door else None,
        cancel=fetch.cancel,
        watch=watch,
    )
