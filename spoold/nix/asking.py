"""How Nix programs ask the operator's servers: binary caches, and pins that are URLs.

Theory of operation: a program that asks by HTTP gets a door (:mod:`spoold.nix.door`), so that it does not have the
host's network. In two cases there is no door and the program gets the host's network. The first is a server that no
forward proxy can reach (s3, ssh). The second is a builder whose builds have no users of their own, such as on a
developer's machine, since it may not make a network namespace.
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
    """Run a Nix program that asks the servers ``urls``. Some of these may be directories.

    Raises :class:`OperatorError` where a file that the settings name cannot be read.
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
