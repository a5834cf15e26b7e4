"""A spool behind contrib/deploy/ssh-gateway, an account that accepts five commands and runs nothing else.

Where many keys share one account, the gateway puts a name before each id. So the id to use is the one that the gateway
returns. When a request is submitted, the gateway says whether its id is used. A client cannot look for files here. So
it asks for each submission by id, several at once.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from spoold.client import names
from spoold.client.errors import AnswerError, RequestError, UnreachableError
from spoold.client.ssh import SESSIONS, Connection, Done, done_text
from spoold.client.transport import MOST, Dropped, digest

DONE, REFUSED, USAGE, HOST, WAITING = range(5)  # the exit codes of the gateway
USED = b"ssh-gateway: this id is used: "
ENDING = names.response_name("")


class Gateway:
    """A spool behind a gateway."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asking = ThreadPoolExecutor(SESSIONS - 2, thread_name_prefix="spoold-gateway")

    def _run(self, text: str, data: bytes = b"", most: int = MOST) -> Done:
        done = self._connection.run(text, data, most=most)
        if done.code in (DONE, REFUSED, WAITING):
            return done
        raise UnreachableError(done_text(done) or f"the gateway ended with exit code {done.code}")

    def require(self) -> None:
        """Do nothing: each question fails where there is no spool."""

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Submit a request. The gateway returns its id.

        An id that this key has used may belong to this same request, submitted before. Its answer tells whether it
        does.
        """
        done = self._run(f"submit {id_}", data)
        said = done.out.decode(errors="replace").strip()
        if done.code == REFUSED and done.err.startswith(USED):
            return Dropped(id_, f"{id_}.json", None, digest(data))
        if done.code != DONE:
            raise RequestError(f"{id_}: {done_text(done)}")
        if not names.is_id(said):
            raise UnreachableError(f"the host does not answer like a gateway of spoold: {said[:80]!a}")
        return Dropped(said, f"{said}.json", None, digest(data))

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Ask for the response of each name. Let the gateway wait where each question can have a session of its own."""
        asked = {name: name.removesuffix(ENDING) for name in names if name.endswith(ENDING)}
        seconds = int(patience) if len(asked) <= SESSIONS - 2 else 0
        found = self._asking.map(lambda id_: self._run(f"wait {id_} {seconds}"), asked.values())
        return {name: _checked(name, done) for name, done in zip(asked, found, strict=True) if done.code == DONE}

    def is_dropped(self, file: str) -> bool:  # noqa: ARG002 - the gateway cannot be asked
        """Return False: the gateway has already looked whether the request was taken in."""
        return False

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far."""
        done = self._run(f"status {id_}")
        return (_checked(id_, done), True) if done.out else (None, done.code == WAITING)

    def cancel(self, id_: str) -> None:
        """Ask for a submission to be cancelled."""
        done = self._run(f"cancel {id_}")
        if done.code:
            raise RequestError(f"{id_}: {done_text(done)}")

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return the tar beside a response."""
        done = self._run(f"outputs {id_}", most=size)
        return None if done.code == REFUSED else done.out

    def close(self) -> None:
        """End the connection."""
        self._asking.shutdown(cancel_futures=True)
        self._connection.close()


def _checked(name: str, done: Done) -> bytes:
    if len(done.out) > MOST:
        raise AnswerError(f"{name} is larger than any response")
    return done.out
