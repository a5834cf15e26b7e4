"""A container that an OCI runtime starts: its control group, its directory, its supervisor; and the end of its life.

Theory of operation. The control group is made first, with its limits, and the runtime puts the supervisor into it. The
runtime ends once the supervisor runs (``run --detach``), and nothing but the container is left. The container's stdin
and stdout are a socket of ours, so nobody copies what goes through it. The runtime is not asked again. The group's own
files change a size, and show a want of memory. The process namespace ends with the supervisor. The runtime keeps a
directory for each container, and that lies in ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from pathlib import Path

from spoold.engines.oci import place
from spoold.engines.oci.walls import OciPlan, configuration
from spoold.host.groups import ended
from spoold.host.log import Log
from spoold.model.errors import SpooldError, TemporaryError
from spoold.sandbox.facts import HOLDERS
from spoold.sandbox.messages import Ready
from spoold.sandbox.pipes import Direct
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size
from spoold.sandbox.stream import ClosedError, Stream

log = Log("sandbox")

START_TIMEOUT = 60.0  # seconds from start to "ready"
EXIT_TIMEOUT = 1.0  # seconds for a program that was told to stop to end by itself
LOSS_TIMEOUT = 5.0  # seconds for a lost container to be gone
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # to find newuidmap


class Container:
    """A container whose supervisor waits for a job, see :class:`spoold.sandbox.transport.Transport`."""

    ready: Ready

    def __init__(self, plan: OciPlan, cancelled: threading.Event, holder: int, size: Size) -> None:
        self.plan, self.size = plan, size
        self.cpu: int | None = None  # the only CPU that it runs on
        self.pid = 0  # of the supervisor
        self.id = f"spoold-{uuid.uuid4().hex}"
        self.group = plan.groups.group(self.id)
        self._directory = os.path.join(plan.place, self.id)
        self._pidfd = -1
        self._placed = False  # whether the supervisor is in its group
        self._runtime: subprocess.Popen[bytes] | None = None
        self._stream: Stream | None = None
        try:
            self._start(cancelled, holder)
        except OSError as error:
            self.close()
            raise TemporaryError(f"a container cannot be made: {error}") from error
        except BaseException:  # any error, also an interrupt: no container may be left that nobody knows of
            self.close()
            raise

    def _start(self, cancelled: threading.Event, holder: int) -> None:
        place.write_down(self._directory, self.group)
        self.group.make(self.size.memory, self.size.processes)
        Path(self._directory, "config.json").write_text(json.dumps(configuration(self.plan, self.group, holder)))
        self._stream = Stream(self._run(), cancelled)
        try:
            self.ready = self._stream.greeting(START_TIMEOUT)
        except ClosedError as error:
            raise TemporaryError(f"the sandbox did not start: {error}") from error
        self._find()

    def _run(self) -> Direct:
        """Start the runtime, which starts the supervisor; return the pipe to the supervisor."""
        ours, theirs = socket.socketpair()
        stderr, said = os.pipe()
        pipe = Direct(ours, stderr)
        words = ["run", "--detach", "--bundle", self._directory, "--pid-file", self._pid_file, self.id]
        try:
            self._runtime = subprocess.Popen(
                [*self._command, *words],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a signal that ends us at a terminal is not meant for containers
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            theirs.close()
            os.close(said)
        return pipe

    def _find(self) -> None:
        """Find out which process the supervisor is, and check that the limits of its group hold for it."""
        assert self._runtime is not None  # noqa: S101 - it was started
        try:
            self._runtime.wait(START_TIMEOUT)
            self.pid = int(Path(self._pid_file).read_text())
            self._pidfd = os.pidfd_open(self.pid)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise TemporaryError(f"the runtime does not say which process the sandbox is: {error}") from error
        self._placed = self.group.holds(self.pid)
        if not self._placed:
            raise TemporaryError(
                f"{self.plan.oci} left the sandbox out of its control group, so its limits would not hold: "
                "let this user move processes there, or set another oci.runtime"
            )

    def _delete(self) -> None:
        """Make the runtime remove what it made, which may be elsewhere than it was told."""
        command = [*self._command, "delete", "--force", self.id]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, env=ENVIRONMENT, cwd="/", timeout=START_TIMEOUT, check=False)

    @property
    def _command(self) -> list[str]:
        return [self.plan.oci, "--root", f"{self.plan.place}/runtime"]

    @property
    def _pid_file(self) -> str:
        return os.path.join(self._directory, "pid")

    @property
    def stream(self) -> Stream:
        """Return the stream to its supervisor."""
        assert self._stream is not None  # noqa: S101 - the constructor attached, or raised
        return self._stream

    def resize(self, size: Size) -> None:
        """Give it this size, unless it has that already."""
        if size != self.size:
            self.group.limit(size.memory, size.processes)
            if size.halved != self.size.halved:
                self.group.weigh(halved=size.halved)
            self.size = size

    def pin(self, cpu: int) -> None:
        """Bind all of it to this CPU, unless it is bound to that already."""
        if cpu != self.cpu:
            self.group.pin(cpu)
            self.cpu = cpu

    def lacked_memory(self) -> bool:
        """Tell whether it ended for want of memory."""
        return ended(self._pidfd, LOSS_TIMEOUT) and self.group.oom_kills() > 0

    def stop(self) -> None:
        """End all that runs in it. Its supervisor takes the end of the stream as the order to stop."""
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """Stop and remove it. A container that stays is removed when the sandbox is closed or the next one is made."""
        self.stop()
        try:
            self._end()
            self.group.end()
            for each in (self._directory, f"{self.plan.place}/runtime/{self.id}"):
                shutil.rmtree(each, ignore_errors=True)
        except (SpooldError, OSError) as error:
            log.warning(
                "a container could not be removed; the next executor removes it", container=self.id, error=error
            )

    def _end(self) -> None:
        if self._runtime is not None and not self._placed:
            self._runtime.kill()
            self._runtime.wait()
            self._delete()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd < 0:
            return
        try:
            if not ended(pidfd, EXIT_TIMEOUT):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ended(pidfd, LOSS_TIMEOUT)
        finally:
            os.close(pidfd)


def start(plan: OciPlan, cancelled: threading.Event, holder: int, size: Size | None = None) -> Runner[Container]:
    """Return a started container that waits for a job; without a size it has that of jobs with default limits."""
    size = size or plan.size(plan.settings.limits.run.default)
    return Runner(Container(plan, cancelled, holder, size), plan)


def on_trial(plan: OciPlan) -> Runner[Container]:
    """Return a container that no job is meant for."""
    return start(plan, threading.Event(), HOLDERS.start)
