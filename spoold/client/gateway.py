"""A spool behind contrib/deploy/ssh-gateway: an account that knows five words, and runs nothing else.

It puts a name before ids where many keys share one account, so the id is what it says. Whether an id is used is told
when something is submitted. There are no names to look for, so each submission is asked for by itself, several at once.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from spoold.client import names
from spoold.client.errors import AnswerError, RequestError, UnreachableError
from spoold.client.ssh import SESSIONS, Connection, Done, done_text
from spoold.client.transport import MOST, Dropped, digest

DONE, REFUSED, USAGE, HOST, WAITING = range(5)  # its exit codes
USED = b"ssh-gateway: this id is used: "
ENDING = names.response_name("")


class Gateway:
    """A spool that a gateway stands before."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asking = ThreadPoolExecutor(SESSIONS - 2, thread_name_prefix="spoold-gateway")

    def _run(self, text: str, data: bytes = b"", most: int = MOST) -> Done:
        done = self._connection.run(text, data, most=most)
        if done.code in (DONE, REFUSED, WAITING):
            return done
        raise UnreachableError(done_text(done) or f"the gateway ended with {done.code}")

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Submit it; the gateway says under which id.

        An id that we have used may be this very request, submitted before. Its answer says whether it is.
        """
        done = self._run(f"submit {id_}", data)
        said = done.out.decode(errors="replace").strip()
        if done.code == REFUSED and done.err.startswith(USED):
            return Dropped(id_, f"{id_}.json", None, digest(data))
        if done.code != DONE:
            raise RequestError(f"{id_}: {done_text(done)}")
        if not names.is_id(said):
            raise UnreachableError(f"what answers there is no gateway of spoold's: {said[:80]!a}")
        return Dropped(said, f"{said}.json", None, digest(data))

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Ask for each that is a response; one alone is waited for there."""
        asked = {name: name.removesuffix(ENDING) for name in names if name.endswith(ENDING)}
        seconds = int(patience) if len(asked) <= SESSIONS - 2 else 0
        found = self._asking.map(lambda id_: self._run(f"wait {id_} {seconds}"), asked.values())
        return {name: _checked(name, done) for name, done in zip(asked, found, strict=True) if done.code == DONE}

    def is_dropped(self, file: str) -> bool:  # noqa: ARG002 - it cannot be asked
        """It is not told: the gateway has looked whether it was taken in."""
        return False

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far."""
        done = self._run(f"status {id_}")
        return (_checked(id_, done), True) if done.out else (None, done.code == WAITING)

    def cancel(self, id_: str) -> None:
        """Ask for it."""
        done = self._run(f"cancel {id_}")
        if done.code:
            raise RequestError(f"{id_}: {done_text(done)}")

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return what lies beside a response."""
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
