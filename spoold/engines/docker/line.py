"""A container's own line: a Unix socket on which its supervisor calls, in place of the engine's attached stream.

Theory of operation. The shim and the engine copy all that goes through the attached stream, and both wake for it. That
is a tenth of a small job's CPU time. So a container that serves many jobs gets a directory with a socket in it, mounted
read-only. Its supervisor calls there before it greets. Then the directory is removed, so no job finds a socket, and
nobody can call later. The attached stream stays for what the supervisor writes to its stderr.

Nobody else on the host can call meanwhile, since the mounted directory lies in one that only the executor's user can
enter.

Where something prevents the call (an engine that does not see that directory, a kernel of the container's own, a
security module), the supervisor greets by the attached stream, and everything goes through that.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import tempfile

from spoold.engines.docker.framing import Attached
from spoold.model.errors import TemporaryError
from spoold.sandbox.facts import LINE_NAME
from spoold.sandbox.pipes import WithLastWords, read_to_the_end


def base() -> str:
    """Return the directory in which lines are made. Where there is one that the engine sees too, it is that one."""
    own = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # systemd.exec(5)
    return own or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()


class Listener:
    """A socket on which nobody has called yet. ``directory`` is the one to be mounted."""

    def __init__(self) -> None:
        try:
            self._outer = tempfile.mkdtemp(prefix="spoold-line-", dir=base())
        except OSError as error:
            raise TemporaryError(f"no directory for a socket can be made: {error}") from error
        self.directory = os.path.join(self._outer, "line")
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            os.mkdir(self.directory)
            os.chmod(self.directory, 0o755)  # noqa: S103 - root in a container may be any user of the host
            self._socket.bind(path := os.path.join(self.directory, LINE_NAME))
            os.chmod(path, 0o666)  # noqa: S103 - as above
            self._socket.listen(1)
            self._socket.setblocking(False)
        except OSError as error:  # this is also raised where a path is too long for a socket
            self.close()
            raise TemporaryError(f"no socket can be made in {self.directory}: {error}") from error

    def answer(self, attached: Attached, patience: float) -> Line | None:
        """Return the line once the supervisor calls; None where it speaks by the attached stream, or not at all."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(attached.reader(), select.POLLIN)
        poll.poll(patience * 1000)
        with contextlib.suppress(BlockingIOError):
            return Line(self._socket.accept()[0], attached)
        return None

    def close(self) -> None:
        """Accept no more calls, and remove the directory."""
        self._socket.close()
        shutil.rmtree(self._outer, ignore_errors=True)


class Line(WithLastWords):
    """The pipe to a supervisor that has called."""

    def __init__(self, connection: socket.socket, attached: Attached) -> None:
        super().__init__(connection)
        self._attached = attached

    def _last_words(self) -> bytes:
        def more() -> bytes | bytearray | None:
            found = self._attached.receive()
            return None if found is None else found.stderr

        return read_to_the_end(self._attached.reader(), more)

    def close(self) -> None:
        """Close both. The supervisor takes that as the order to stop."""
        with contextlib.suppress(OSError):
            self._socket.close()
        self._attached.close()
