"""The client library for asyncio.

Every call that may block runs in a thread. One task looks for the responses of all submissions that are waited for.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Self

from spoold.client.errors import SpoolError, TimedOutError
from spoold.client.response import Response
from spoold.client.spool import AHEAD, BOUND, Spool, Submission
from spoold.client.watch import Pause, Watch

PATIENCE = 0.5  # seconds that one look may wait; a submission that is added meanwhile is looked for in the next one

Requests = Iterable[Mapping[str, Any] | bytes]


class AsyncSpool:
    """A spool with the methods of :class:`Spool` as coroutines. Use each object in one event loop only."""

    def __init__(self, where: str | os.PathLike[str] | None = None, *, ssh: Iterable[str] | None = None) -> None:
        self._where, self._ssh = where, ssh
        self._made: asyncio.Task[Spool] | None = None
        self._watch: Watch | None = None
        self._looking: asyncio.Task[None] | None = None
        self._waiters: dict[Submission, asyncio.Future[None]] = {}

    async def __aenter__(self) -> Self:
        await self._spool()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _spool(self) -> Spool:
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(Spool, self._where, ssh=self._ssh))
        return await asyncio.shield(self._made)

    async def close(self) -> None:
        """Close the connection, where there is one. Submissions go on."""
        if self._looking:
            self._looking.cancel()
        if self._made:
            await asyncio.to_thread((await self._made).close)

    async def submit(
        self,
        request: Mapping[str, Any] | bytes,
        *,
        id: str | None = None,
        stem: str = "job",
    ) -> Submission:
        """Submit a request; see :meth:`Spool.submit`."""
        return await asyncio.to_thread((await self._spool()).submit, request, id=id, stem=stem)

    async def wait(self, submission: Submission | str, timeout: float | None = None) -> Response:
        """Return a response once it has come; see :meth:`Spool.wait`."""
        one = await asyncio.to_thread((await self._spool())._of, submission)
        try:
            async with asyncio.timeout(timeout):
                await self._done(one)
        except TimeoutError:
            if not one.done:
                why = f"{one.id}: no response within {timeout:g} s. The submission is not lost: wait again"
                raise TimedOutError(why) from None
        return one.result()

    async def _done(self, submission: Submission) -> None:
        """Wait until a submission is done. One task looks for all submissions."""
        spool = await self._spool()
        if submission.done:
            return
        if self._watch is None:
            self._watch = Watch(spool.transport)
        future = self._waiters.get(submission)
        if future is None:
            future = self._waiters[submission] = asyncio.get_running_loop().create_future()
            self._watch.add(submission)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(self._watch))
        await asyncio.shield(future)

    async def _look(self, watch: Watch) -> None:
        pause = Pause()
        try:
            while len(watch):
                finished = await asyncio.to_thread(watch.look, PATIENCE)
                for submission in finished:
                    self._waiters.pop(submission).set_result(None)
                if finished:
                    pause.reset()
                else:
                    await asyncio.sleep(pause.next())
        except (SpoolError, asyncio.CancelledError) as error:
            for submission, future in self._waiters.items():
                watch.drop(submission)
                if isinstance(error, SpoolError):
                    future.set_exception(error)
                else:
                    future.cancel()
            self._waiters.clear()

    async def as_completed(
        self,
        submissions: Iterable[Submission],
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[Submission]:
        """Yield submissions as they are done; see :meth:`Spool.as_completed`."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        on_their_way = {asyncio.create_task(self._done(each)): each for each in submissions}
        try:
            while on_their_way:
                left = None if deadline is None else max(0.0, deadline - loop.time())
                ready, _ = await asyncio.wait(on_their_way, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not ready:
                    raise TimedOutError(
                        f"{len(on_their_way)} submissions have no response within {timeout:g} s. "
                        "They are not lost: wait again"
                    )
                for task in ready:
                    task.result()
                    yield on_their_way.pop(task)
        finally:
            for task in on_their_way:
                task.cancel()

    async def map(self, requests: Requests, *, bound: int = BOUND, stem: str = "job") -> AsyncIterator[Response]:
        """Submit requests, ``bound`` at once, and yield their responses in the same order; see :meth:`Spool.map`."""
        source = iter(requests)
        room, ahead = asyncio.Semaphore(bound), AHEAD * bound
        tasks: deque[asyncio.Task[Response]] = deque()

        async def one(request: Mapping[str, Any] | bytes) -> Response:
            async with room:
                return await self.wait(await self.submit(request, stem=stem))

        try:
            while True:
                while len(tasks) < ahead and (request := next(source, None)) is not None:
                    tasks.append(asyncio.create_task(one(request)))
                if not tasks:
                    return
                yield await tasks.popleft()
        finally:
            for task in tasks:
                task.cancel()

    async def status(self, id: str) -> Response | None:
        """Return the response, or the response so far; see :meth:`Spool.status`."""
        return await asyncio.to_thread((await self._spool()).status, id)

    async def cancel(self, submission: Submission | str) -> None:
        """Ask for a submission to be cancelled; see :meth:`Spool.cancel`."""
        await asyncio.to_thread((await self._spool()).cancel, submission)

    async def outputs(self, submission: Submission | str, *, case: str | None = None) -> dict[str, bytes]:
        """Return the files that came back; see :meth:`Spool.outputs`."""
        await self.wait(submission)
        return await asyncio.to_thread((await self._spool()).outputs, submission, case=case)

    async def save(
        self,
        submission: Submission | str,
        directory: str | os.PathLike[str],
        *,
        case: str | None = None,
        over: bool = False,
    ) -> list[str]:
        """Write the files that came back; see :meth:`Spool.save`."""
        await self.wait(submission)
        return await asyncio.to_thread((await self._spool()).save, submission, directory, case=case, over=over)
