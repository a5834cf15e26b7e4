"""A door for one fetch: a network namespace whose only way out is the proxy.

Theory of operation: a small program, run as root of the build's user namespace, makes the network namespace, brings its
loopback interface up, and listens there. It hands the namespace and the listening socket to this process, and ends. The
proxy (:mod:`spoold.proxy`) serves that one socket from outside. The namespace has no route to anywhere. Each fetch has
a namespace of its own. Two fetches that shared one could meet over an abstract Unix socket and change each other's
output (CVE-2024-27297).

Where ``$SPOOLD_FETCH_PROXY`` names a socket, the proxy is the one of the unit. Elsewhere, such as on a developer's
machine, it is a process that is started here.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from threading import Event

import msgspec

from spoold.config import NixSettings
from spoold.host import launch, proc
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import BuildLimits
from spoold.nix import confine
from spoold.proxy import rules
from spoold.proxy.order import ACCEPTED, Ended, Given, Order, Passage, Report

PORT = 3128
SOCKET = "SPOOLD_FETCH_PROXY"  # the variable of the environment that names the proxy's socket
ANSWER_TIME = 30.0  # seconds within which a proxy has to start, and later to report
LARGEST = 4 * 1024**2  # bytes of a report
VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
CERTIFICATES = ("NIX_SSL_CERT_FILE", "NIX_GIT_SSL_CAINFO")  # the second one is for nixpkgs' fetchers that use git
_LIMITS = {Ended.BYTES: proc.Limit.OUTPUT, Ended.TIME: proc.Limit.WALL}
_START = "import sys; sys.path[:] = sys.argv[1].split(':'); from spoold.proxy.serving import main; main()"
# 0x8914 is SIOCSIFFLAGS. It sets IFF_UP of lo, see netdevice(7).
_NAMESPACE = f"""
import fcntl, os, socket, struct, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
fcntl.ioctl(listener, 0x8914, struct.pack("16sh22x", b"lo", 1))
listener.bind(("127.0.0.1", {PORT}))
listener.listen(128)
namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [listener.fileno(), namespace])
"""


class Fetch:
    """A fetch that is to get a door: its ``order``, and the proxy's ``report`` once the fetch has ended.

    A fetch may get a door several times. ``report`` is then the last report, and ``met`` has the troubles of all. The
    fetch ends when ``cancel`` is set. ``pins`` and ``limits`` are for a proxy that is started here. The unit's proxy
    uses its own settings.
    """

    def __init__(
        self, order: Order, limits: BuildLimits, *, pins: Sequence[str] = (), cancel: Event | None = None
    ) -> None:
        self.order, self.limits, self.pins, self.cancel = order, limits, pins, cancel
        self.report: Report | None = None
        self.met: list[Passage] = []


class Door:
    """An open door. ``namespace`` is the descriptor of its network namespace."""

    def __init__(self, namespace: int, control: socket.socket, authorities: str) -> None:
        self.namespace, self._authorities = namespace, authorities
        self._control = control
        self._report: Report | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables by which programs find the proxy, and the certificates if the host has any."""
        proxy = {name: f"http://127.0.0.1:{PORT}" for each in VARIABLES for name in (each, each.upper())}
        has_certificates = bool(confine.certificates(self._authorities))
        return proxy | (dict.fromkeys(CERTIFICATES, confine.CERTIFICATES) if has_certificates else {})

    @property
    def alarm(self) -> proc.Alarm:
        """Return the alarm that ends the fetch as soon as the proxy says that a bound is reached."""
        return proc.Alarm(self._look, self._control.fileno())

    def _look(self) -> tuple[proc.Limit, str] | None:
        if self._report is None and not self._has_spoken():
            return None
        ended = self.report().ended
        return (_LIMITS[ended], "") if ended in _LIMITS else None

    def _has_spoken(self) -> bool:
        """Tell whether the proxy has sent something, which it does only at its end, or is gone."""
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        return bool(waiting.poll(0))

    def report(self) -> Report:
        """End the order if it has not ended yet, and return the proxy's report.

        Raises :class:`TemporaryError` where the proxy sends none.
        """
        if self._report is None:
            self._report = self._ask()
        return self._report

    def _ask(self) -> Report:
        heard = b""
        try:
            with contextlib.suppress(OSError):  # the proxy has closed its end
                self._control.shutdown(socket.SHUT_WR)
            while len(heard) <= LARGEST and (piece := self._control.recv(65536)):
                heard += piece
            return msgspec.json.decode(heard, type=Report)
        except (OSError, msgspec.DecodeError) as error:
            raise TemporaryError(f"the proxy for downloads ended too early ({error}); see its log") from error


@contextlib.contextmanager
def opened(settings: NixSettings, fetch: Fetch, entering: launch.Entering | None) -> Iterator[Door]:
    """Open a door for one order. At the end put the proxy's report into ``fetch``.

    ``entering`` leads into the user namespace that is to own the network namespace. Raises :class:`TemporaryError`
    where the proxy does not answer, and :class:`OperatorError` where no namespace can be made.
    """
    with contextlib.ExitStack() as held:
        control = _called(settings, fetch, held)  # first, so that a proxy can start while the namespace is made
        listener, namespace = _network(entering)
        held.callback(os.close, namespace)
        try:
            control.settimeout(ANSWER_TIME)
            socket.send_fds(control, [msgspec.json.encode(fetch.order)], [listener])
            if control.recv(1) != ACCEPTED:
                raise TemporaryError("the proxy for downloads accepts no order now; see its log")
        except OSError as error:
            raise TemporaryError(f"the proxy for downloads does not answer ({error.strerror or error})") from error
        finally:
            os.close(listener)
        made = Door(namespace, control, settings.certificates)
        yield made
        fetch.report = made.report()
        fetch.met += [each for each in fetch.report.passages if each.trouble]


def _network(entering: launch.Entering | None) -> tuple[int, int]:
    """Make a network namespace. Return the descriptors of a socket that listens in it, and of the namespace."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = [sys.executable, "-I", "-S", "-c", _NAMESPACE, str(theirs.fileno())]
        done = proc.run(
            [proc.find("unshare"), "--net", "--", *script],
            proc.Bounds(wall=ANSWER_TIME),
            descriptors=[theirs.fileno()],
            entering=entering,
        )
        ours.settimeout(0)
        descriptors: list[int] = []
        with contextlib.suppress(OSError):
            _, descriptors, *_ = socket.recv_fds(ours, 1, 2)
    if len(descriptors) != 2:
        said = done.stderr.data.decode(errors="replace").strip()
        raise OperatorError(f"no network namespace can be made for the download of sources: {said or done.limit}")
    return descriptors[0], descriptors[1]


def _called(settings: NixSettings, fetch: Fetch, held: contextlib.ExitStack) -> socket.socket:
    """Return a connection to the proxy of the unit, or else to one that is started for this fetch."""
    name = os.environ.get(SOCKET, "")
    if not name:
        return _started(settings, fetch, held)
    control = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    control.settimeout(ANSWER_TIME)
    try:
        control.connect(name)
    except OSError as error:
        raise TemporaryError(
            f"the proxy for downloads does not run at {name} ({error.strerror}): systemctl restart spoold-fetch. It "
            "runs where the settings name a host ([nix] fetch or substituters, a URL in [nixpkgs])"
        ) from error
    return control


def _started(settings: NixSettings, fetch: Fetch, held: contextlib.ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        uid = settings.jail_user if os.geteuid() == 0 else -1
        given = Given(rules=rules.of(fetch.order.purpose, settings, fetch.pins, fetch.limits), uid=uid)
        words = [":".join(sys.path), msgspec.json.encode(given).decode(), str(theirs.fileno())]
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    held.callback(_reap, process)
    held.enter_context(ours)  # closed before _reap is called, so that the process ends
    return ours


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(ANSWER_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
