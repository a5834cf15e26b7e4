"""The work on one order: requests on its listening socket are let through, under one bound on bytes and on time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from spoold.host.log import Log
from spoold.model.addresses import ANYWHERE, network
from spoold.model.hosts import Hosts
from spoold.proxy import request, upstream
from spoold.proxy.order import PASSAGES, Ended, Order, Passage, Report, Rules, Trouble
from spoold.proxy.reaching import AwayError, InsideError, connect
from spoold.proxy.relay import GoneError, RefusedError, Relay, Side
from spoold.proxy.request import MalformedError, Request

log = Log("fetch")
CONNECTIONS = 32  # at once
SHOWN = 500  # characters of a method or a target that reports and logs show
HEAD_TIME = 20.0  # seconds for the head of a request
STATUS = {
    Trouble.UNLISTED: "403 Forbidden",
    Trouble.INSIDE: "403 Forbidden",
    Trouble.AWAY: "502 Bad Gateway",
    Trouble.MALFORMED: "400 Bad Request",
    Trouble.CROWDED: "503 Service Unavailable",
}


class Passing:
    """The work on one order."""

    def __init__(self, rules: Rules, order: Order) -> None:
        self._order = order
        self._hosts, self._setting = Hosts(rules.hosts), rules.setting
        self._inside = [network(each) for each in rules.inside]
        self._left = order.bytes
        self._spent = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passages: list[Passage] = []

    async def serve(self, listener: socket.socket, control: socket.socket) -> Report:
        """Serve requests on ``listener`` until the other end of ``control`` is closed or a bound is reached."""
        server = await asyncio.start_server(self._accept, sock=listener, limit=request.LARGEST)
        try:
            ended = await self._until_the_end(control)
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return Report(
            ended=ended,
            bytes=self._order.bytes,
            time=self._order.time,
            transferred=self._order.bytes - max(0, self._left),
            passages=self._passages[:PASSAGES],
        )

    async def _until_the_end(self, control: socket.socket) -> Ended:
        closing = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(control, 1))
        spending = asyncio.ensure_future(self._spent.wait())
        both: tuple[asyncio.Future[Any], ...] = (closing, spending)
        try:
            done, _ = await asyncio.wait(both, timeout=self._order.time, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            spending.cancel()
        if spending in done:
            return Ended.BYTES
        return Ended.BUILDER if closing in done else Ended.TIME

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Side(reader, writer)
        if len(self._tasks) >= CONNECTIONS:
            # Refused without a task, since there are too many tasks already.
            writer.write(_refusal(Trouble.CROWDED, f"all {CONNECTIONS} connections of this download are in use"))
            writer.close()
            return
        task = asyncio.ensure_future(self._meet(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _meet(self, client: Side) -> None:
        passage = Passage()
        try:
            await self._answer(client, passage)
        except RefusedError as error:
            passage.trouble, passage.said = error.trouble, str(error)
            if not error.begun:
                with contextlib.suppress(OSError):
                    client.writer.write(_refusal(error.trouble, str(error)))
        except GoneError:
            pass
        except Exception as error:  # noqa: BLE001 - a bug costs this request alone, and is not its client's fault
            log.bug("a request failed by a bug of the proxy", error=error)
            passage.trouble, passage.said = Trouble.AWAY, f"the proxy has a bug: {error}"
        finally:
            client.writer.close()
            room = PASSAGES if passage.trouble else PASSAGES // 2  # a cache gives hundreds of paths before it fails
            if len(self._passages) < room and (passage.host or passage.trouble):
                self._passages.append(passage)
                self._tell(passage)

    async def _answer(self, client: Side, passage: Passage) -> None:
        """Answer one request. Raises :class:`RefusedError` or :class:`GoneError`."""
        asked = await self._read(client)
        passage.method, passage.host, passage.target = asked.method[:SHOWN], str(asked.host), asked.target[:SHOWN]
        if not self._hosts.allows(asked.host):
            raise RefusedError(Trouble.UNLISTED, f"{asked.host} is not in {self._setting}")
        try:
            before = upstream.of(asked.host, "https" if asked.is_tunnel else "http")
            connection = await connect(before or asked.host, ANYWHERE if before else self._inside)
        except InsideError as error:
            raise RefusedError(Trouble.INSIDE, str(error)) from error
        except (AwayError, ValueError) as error:
            raise RefusedError(Trouble.AWAY, str(error)) from error
        passage.address = str(connection.getpeername()[0])
        server = Side(*await asyncio.open_connection(sock=connection, limit=request.LARGEST))
        try:
            await Relay(self._count, asked, client, server, passage=passage, before=before).run()
        finally:
            server.writer.close()

    async def _read(self, client: Side) -> Request:
        try:
            async with asyncio.timeout(HEAD_TIME):
                head = await client.reader.readuntil(b"\r\n\r\n")
            return request.read(head)
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise GoneError from error
        except asyncio.LimitOverrunError as error:
            raise RefusedError(Trouble.MALFORMED, "the head of a request is too long") from error
        except MalformedError as error:
            raise RefusedError(Trouble.MALFORMED, str(error)) from error

    def _count(self, bytes_: int) -> None:
        """Count bytes that are about to go through. Raises :class:`GoneError` where they exceed the bound."""
        self._left -= bytes_
        if self._left < 0:
            self._spent.set()
            raise GoneError

    def _tell(self, passage: Passage) -> None:
        tell = log.warning if passage.trouble else log.info
        tell(
            "a request was refused or failed" if passage.trouble else "let through",
            build=self._order.build,
            what=self._order.what,
            method=passage.method,
            host=passage.host,
            target=passage.target,
            address=passage.address,
            status=passage.status,
            sent=passage.sent,
            received=passage.received,
            **({"reason": passage.said} if passage.trouble else {}),
        )


def _refusal(trouble: Trouble, said: str) -> bytes:
    text = f"spoold: {said}\n".encode("ascii", "backslashreplace")
    head = f"HTTP/1.1 {STATUS[trouble]}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + text
