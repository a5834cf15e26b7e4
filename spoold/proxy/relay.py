"""One request whose host is connected: each side's bytes go to the other side and are counted, until one side ends.

A request that is not tunnelled is the only one on its connection, which ends with the answer. In a tunnel each side may
end its own direction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from spoold.model.hosts import Host
from spoold.proxy import request
from spoold.proxy.greeting import DisguiseError, Greeting
from spoold.proxy.order import Passage, Trouble
from spoold.proxy.request import MalformedError, Request

SILENCE = 60.0  # seconds without a byte in either direction after which a connection is closed
PIECE = 64 * 1024  # bytes that are read at once


class RefusedError(Exception):
    """A request is not let through, or failed because of the server."""

    def __init__(self, trouble: Trouble, said: str, *, begun: bool = False) -> None:
        super().__init__(said)
        self.trouble = trouble
        self.begun = begun  # whether a part of an answer has gone to the client


class GoneError(Exception):
    """The client closed the connection or sends nothing, or the bytes of the order are used up."""


class Side(NamedTuple):
    """One side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Relay:
    """One request. It is connected to its host, or to an operator's proxy ``before`` the host."""

    def __init__(
        self,
        count: Callable[[int], None],
        asked: Request,
        client: Side,
        server: Side,
        *,
        passage: Passage,
        before: Host | None,
    ) -> None:
        self._count, self._asked, self._passage = count, asked, passage
        self._client, self._server, self._before = client, server, before
        self._client_spoke_last = False
        self._begun = False

    async def run(self) -> None:
        """Relay until either side has ended.

        Raises :class:`RefusedError` where the server ended too early, and :class:`GoneError` where the client did so
        or the bytes of the order are used up.
        """
        relayed = self._tunnel() if self._asked.is_tunnel else self._exchange()
        try:
            async with asyncio.timeout(SILENCE) as self._clock:
                await relayed
        except TimeoutError as error:
            if self._client_spoke_last:
                raise self._away(f"was silent for {SILENCE:g} s") from error
            raise GoneError from error

    async def _tunnel(self) -> None:
        if self._before:
            await self._to_server(self._asked.for_proxy())
            answer = await self._head()
            if answer.status // 100 != 2:
                raise self._away(f"cannot be reached: the proxy {self._before} answers {answer.status}")
        await self._to_client(b"HTTP/1.1 200 Connection established\r\n\r\n", received=False)
        ways = asyncio.ensure_future(self._upwards()), asyncio.ensure_future(self._downwards(None))
        try:
            await asyncio.gather(*ways)
        finally:
            await _cancelled(*ways)

    async def _exchange(self) -> None:
        await self._to_server(self._asked.for_proxy() if self._before else self._asked.head)
        body, answer = asyncio.ensure_future(self._body()), asyncio.ensure_future(self._respond())
        try:
            await asyncio.wait((body, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await body
            await answer  # a server may answer before it has the whole body
        finally:
            await _cancelled(body, answer)

    async def _upwards(self) -> None:
        """Pass on the client's bytes in a tunnel.

        A server may close the tunnel before the client has sent everything. That is no error here: ``_downwards``
        tells whether the server broke off. Raises :class:`RefusedError` where TLS asks for another host.
        """
        greeting = Greeting(self._asked.host.name)
        while data := await self._from_client():
            try:
                if known := self._greeted(greeting, data):
                    await self._send(known)
            except OSError:
                return
        with contextlib.suppress(OSError):
            self._server.writer.write_eof()

    def _greeted(self, greeting: Greeting, data: bytes) -> bytes:
        try:
            return greeting.take(data)
        except DisguiseError as error:
            raise RefusedError(Trouble.MALFORMED, str(error), begun=True) from error

    async def _body(self) -> None:
        """Pass on the body of a request, and nothing after it: that would be a request that nobody checked."""
        left = self._asked.length
        while left:
            data = await self._from_client(min(left, PIECE))
            if not data:
                raise GoneError
            left -= len(data)
            await self._to_server(data)

    async def _respond(self) -> None:
        """Pass on the answer to a request."""
        while True:
            answer = await self._head()
            self._passage.status = answer.status
            await self._to_client(answer.head)
            if answer.status >= 200:
                break
        if answer.status >= 500:
            self._passage.trouble = Trouble.AWAY
            self._passage.said = f"{self._asked.host} answers {answer.status}"
        got = await self._downwards(answer.length)
        if answer.length is not None and got < answer.length:
            raise self._away(f"sent {got} of {answer.length} bytes")

    async def _head(self) -> request.Answer:
        try:
            head = await self._server.reader.readuntil(b"\r\n\r\n")
            return request.read_answer(head, self._asked.method)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise self._away("closed the connection") from error
        except asyncio.LimitOverrunError as error:
            raise self._away("sent a head of an answer that is too long") from error
        except MalformedError as error:
            raise self._away("does not answer in HTTP/1.1") from error

    async def _downwards(self, length: int | None) -> int:
        """Pass on at most ``length`` bytes from the server. Return how many came."""
        got = 0
        while length is None or got < length:
            try:
                data = await self._server.reader.read(PIECE if length is None else min(PIECE, length - got))
            except OSError as error:
                raise self._away(f"broke off ({error.strerror or error})") from error
            if not data:
                break
            got += len(data)
            await self._to_client(data)
        if length is None:
            with contextlib.suppress(OSError):
                self._client.writer.write_eof()
        return got

    async def _from_client(self, most: int = PIECE) -> bytes:
        try:
            return await self._client.reader.read(most)
        except OSError as error:
            raise GoneError from error

    async def _to_client(self, data: bytes, *, received: bool = True) -> None:
        if received:
            self._count(len(data))
            self._passage.received += len(data)
            self._client_spoke_last = False
        self._begun = True
        self._client.writer.write(data)
        try:
            await self._client.writer.drain()
        except OSError as error:
            raise GoneError from error
        self._wait_anew()

    async def _to_server(self, data: bytes) -> None:
        try:
            await self._send(data)
        except OSError as error:
            raise self._away(f"broke off ({error.strerror or error})") from error

    async def _send(self, data: bytes) -> None:
        self._count(len(data))
        self._passage.sent += len(data)
        self._client_spoke_last = True
        self._server.writer.write(data)
        await self._server.writer.drain()
        self._wait_anew()

    def _wait_anew(self) -> None:
        self._clock.reschedule(asyncio.get_running_loop().time() + SILENCE)

    def _away(self, what: str) -> RefusedError:
        return RefusedError(Trouble.AWAY, f"{self._asked.host} {what}", begun=self._begun)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
