"""Work: what is done with one build that has a place.

Spec: spool-layout.md, "The Build store". The build is claimed and realised. The record says what nix-shell would have
set up, or why there is nothing. A failure that is the client's is a result like any other. A fault of ours costs an
attempt, and the last attempt ends with the outcome ``internal_error``. Trouble with the spool's disk costs none.
Thread-safe.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from spoold.actors.builder.places import Places
from spoold.actors.builder.provider import Provider
from spoold.config import Settings
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.metrics import BUILD
from spoold.model.errors import CacheError, LeaseLostError, NewerFormatError, OperatorError, TemporaryError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.response import Fetching, Outcome, Phase
from spoold.model.states import Role, State
from spoold.spool.builds import BuildStore
from spoold.spool.holding import Holder
from spoold.spool.lease import Heartbeat, Lease

log = Log(Role.BUILDER)
BACK_OFF = 5.0  # seconds to wait before a build is tried again when the fault was ours
CACHE_BACK_OFF = 30.0  # the same where the fault was a binary cache's
Tell = Callable[[Fetching], None]


class Realiser(Protocol):
    """Realises expressions: Nix."""

    def build(
        self, build_id: str, expression: str, nixpkgs: str, cancelled: threading.Event, tell: Tell | None = None
    ) -> BuildResult:
        """Realise one expression. ``tell`` is called at times with how much has been fetched for it."""


class Work:
    """The work of one builder. Once ``stopping`` is set, builds that are cancelled go back with the same attempt."""

    def __init__(
        self,
        settings: Settings,
        realiser: Realiser,
        builds: BuildStore,
        clock: Clock,
        *,
        places: Places,
        provider: Provider,
        heartbeat: Heartbeat,
        stopping: threading.Event,
    ) -> None:
        self._attempts = settings.lease.attempts
        self._realiser, self._builds, self._clock = realiser, builds, clock
        self._places, self._provider, self._stopping = places, provider, stopping
        self._holder = Holder(builds.queue, heartbeat, stopping, log)

    def build(self, entry: Entry) -> None:
        """Build an entry of ``builds/new``, or leave it there where a newer version filed it."""
        with contextlib.suppress(LeaseLostError, OSError):  # the claim meets these errors too
            if newer := self._builds.newer(State.NEW, entry):
                self._places.leave(entry, newer)
                return
        back = partial(self._places.put_back, entry, entry.attempt, BACK_OFF)
        self._holder.hold(entry, State.NEW, State.BUILDING, partial(self._hold, entry), give_back=back)

    def _hold(self, entry: Entry, lease: Lease) -> None:
        try:
            self._realise(entry, lease)
        except LeaseLostError:
            log.warning("lost the lease on a build; another worker may have it", build=entry.id, attempt=entry.attempt)
        except (TemporaryError, OperatorError) as error:
            self._postpone(entry, error)
        except NewerFormatError as error:
            self._places.leave(entry, error)
            self._builds.queue.give_back(entry, State.BUILDING, entry.attempt)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug costs this build an attempt, but does not end the builder
            log.bug("an attempt at a build failed", build=entry.id, attempt=entry.attempt, error=error)
            self._try_again(entry, error)

    def _realise(self, entry: Entry, lease: Lease) -> None:
        try:
            wanted = self._builds.read(State.BUILDING, entry)
        except msgspec.DecodeError as error:
            self._finish(entry, failure_of_ours(f"the build's entry cannot be read: {error}"))
            return
        pin = self._provider.pin(wanted.nixpkgs)
        if pin is None:
            self._finish(entry, failure_of_ours("the pin of nixpkgs has changed meanwhile: submit it again"))
            return
        log.info("building", build=entry.id, attempt=entry.attempt)
        try:
            tell = partial(self._builds.fetching.tell, entry.id)
            result = self._realiser.build(entry.id, wanted.expression, pin, lease.stop, tell)
        except OSError as error:  # not the spool's, and perhaps this build's alone: it costs an attempt
            raise TemporaryError(f"the build failed by an error of the host: {error}") from error
        finally:
            self._builds.fetching.tell(entry.id, None)
        lease.check()
        self._finish(entry, result)

    def _postpone(self, entry: Entry, error: Exception) -> None:
        """Put back a build that did not finish.

        It loses no attempt where it was stopped, or where the store is away. After any other failure it loses one.
        Otherwise an expression that always fails in the same way would come back for ever.
        """
        if self._stopping.is_set():
            self._places.put_back(entry, entry.attempt)
        elif self._places.was_stopped(entry):
            log.info("a long build was put back: other builds go first", build=entry.id, attempt=entry.attempt)
            self._places.put_back(entry, entry.attempt)
        else:
            log.error("a build could not be finished", build=entry.id, attempt=entry.attempt, error=error)
            if self._provider.is_possible():
                self._try_again(entry, error)
            else:
                self._places.rest(BACK_OFF)
                self._places.put_back(entry, entry.attempt)

    def _try_again(self, entry: Entry, error: Exception) -> None:
        """Let a build be tried once more after a pause, or end it after the last attempt."""
        if entry.attempt < self._attempts:
            pause = CACHE_BACK_OFF if isinstance(error, CacheError) else BACK_OFF
            self._places.put_back(entry, entry.attempt + 1, pause=pause)
        else:
            self._finish(entry, failure_of_ours(f"attempt {entry.attempt} failed, which was the last: {error}"))

    def abandon(self, entry: Entry) -> None:
        """End a build whose builder died during its last attempt."""
        self._finish(entry, failure_of_ours(f"given up: the builder died {self._attempts} times while it built this"))

    def _finish(self, entry: Entry, result: BuildResult) -> None:
        self._builds.finish(entry, result, self._clock.file_system())
        if not isinstance(result.phase.time, str):
            BUILD.observe(result.phase.time, str(result.phase.outcome))
        log.info("built", build=entry.id, outcome=result.phase.outcome, seconds=result.phase.time)


def failure_of_ours(reason: str) -> BuildResult:
    """Return the result of a build that failed through no fault of the client's."""
    return BuildResult(phase=Phase(stderr=f"spoold: {reason}\n", outcome=Outcome.INTERNAL_ERROR))
