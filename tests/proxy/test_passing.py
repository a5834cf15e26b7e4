"""The proxy lets through listed hosts, at the addresses that were checked, within bounds. And it reports them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading

import pytest

from spoold.proxy import passing, reaching, relay
from spoold.proxy.order import Ended, Trouble
from tests.proxy.conftest import LOOPBACK, MakeProxy, Proxy, everything
from tests.web import Handler, Web, closed


def resolving(patch: pytest.MonkeyPatch, **names: list[list[str]]) -> list[str]:
    """Let each name resolve to the next of its answers. Return the list of the names that were asked for."""
    asked: list[str] = []

    async def lookup(name: str) -> list[str]:
        asked.append(name)
        answers = names[name.replace(".", "_")]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    patch.setattr(reaching, "lookup", lookup)
    return asked


def test_a_listed_host_is_reached(proxy: MakeProxy, web: Web) -> None:
    made = proxy([f"localhost:{web.port}"])
    assert made.get(f"http://localhost:{web.port}/x").endswith(b"\r\n\r\ncontent")
    assert web.asked == ["GET /x"]
    assert web.headers[0]["Host"] == f"localhost:{web.port}"
    report = made.report()
    (passage,) = report.passages
    assert (passage.host, passage.target, passage.status) == (f"localhost:{web.port}", "/x", 200)
    assert passage.trouble is Trouble.NONE
    assert report.ended is Ended.BUILDER
    assert report.transferred == passage.sent + passage.received > len(b"content")


def test_a_tunnel_to_a_listed_host(proxy: MakeProxy, web: Web) -> None:
    made = proxy([f"localhost:{web.port}"])
    with made.tunnel(f"localhost:{web.port}") as tunnel:
        tunnel.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        tunnel.shutdown(socket.SHUT_WR)
        assert everything(tunnel).endswith(b"content")
    (passage,) = made.report().passages
    assert passage.method == "CONNECT"
    assert passage.received > len(b"content")


def test_a_server_may_close_a_tunnel_first(proxy: MakeProxy) -> None:
    """Many servers answer and close while the client's last bytes are on their way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        made = proxy([f"localhost:{port}"])
        with made.tunnel(f"localhost:{port}") as tunnel:
            server, _ = listener.accept()
            server.sendall(b"content")
            server.close()
            assert everything(tunnel) == b"content"
            with contextlib.suppress(ConnectionError):
                while True:
                    tunnel.sendall(b"farewell")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.NONE


@pytest.mark.parametrize(
    "asked",
    [
        "GET http://127.0.0.1:PORT/x",
        "GET http://127.1:PORT/x",
        "GET http://2130706433:PORT/x",
        "GET http://0x7f.0.0.1:PORT/x",
        "GET http://[::1]:PORT/x",
        "GET http://[::ffff:127.0.0.1]:PORT/x",
        "GET http://localhost/x",
        "GET http://localhost:22/x",
        "GET http://a.localhost:PORT/x",
        "GET http://localhost.evil:PORT/x",
        "CONNECT 127.0.0.1:PORT",
        "CONNECT localhost:22",
        "CONNECT [::1]:PORT",
    ],
)
def test_all_others_are_refused_unresolved(
    proxy: MakeProxy, web: Web, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolving(monkeypatch)
    made = proxy([f"localhost:{web.port}"])
    said = made.ask(f"{asked.replace('PORT', str(web.port))} HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403 ")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.UNLISTED
    assert resolved == []
    assert web.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "100.64.0.1", "224.0.0.1"),
        *("::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "fc00::1", "::127.0.0.1"),
    ],
)
@pytest.mark.parametrize("method", ["GET http://evil.example:PORT/x", "CONNECT evil.example:PORT"])
def test_a_listed_name_that_leads_inside(
    proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch, address: str, method: str
) -> None:
    resolving(monkeypatch, evil_example=[[address]])
    made = proxy([f"evil.example:{web.port}"], inside=[])
    said = made.ask(f"{method.replace('PORT', str(web.port))} HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403 ")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.INSIDE
    assert str(ipaddress.ip_address(address)) in passage.said
    assert "fetch_inside" in passage.said
    assert web.asked == []


def test_a_name_that_resolves_anew_is_connected_where_it_was_checked(
    proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lookup would give another address, but there is no second lookup."""
    asked = resolving(monkeypatch, evil_example=[["127.0.0.2"], ["127.0.0.1"]])
    made = proxy([f"evil.example:{web.port}"], inside=["127.0.0.2/32"])
    assert made.get(f"http://evil.example:{web.port}/x").startswith(b"HTTP/1.1 502 ")
    assert asked == ["evil.example"]
    assert web.asked == [], "the server listens at 127.0.0.1 and must not be reached"
    (passage,) = made.report().passages
    assert "127.0.0.2" in passage.said


def test_of_several_addresses_only_those_that_are_allowed_are_tried(
    proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, both_example=[["::1", "127.0.0.2", "127.0.0.1"]])
    with socket.create_server(("127.0.0.2", web.port)) as forbidden:
        forbidden.settimeout(0)
        made = proxy([f"both.example:{web.port}"], inside=["127.0.0.1/32"])
        assert made.get(f"http://both.example:{web.port}/x").endswith(b"content")
        with pytest.raises(BlockingIOError):
            forbidden.accept()


def test_a_name_that_nobody_knows_is_away(proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lookup(name: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(reaching, "lookup", lookup)
    made = proxy(["nowhere.example"])
    assert made.get("http://nowhere.example/x").startswith(b"HTTP/1.1 502 ")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.AWAY
    assert "nowhere.example cannot be resolved" in passage.said


def test_a_port_at_which_nobody_listens_is_away(proxy: MakeProxy) -> None:
    with closed() as port:
        made = proxy([f"localhost:{port}"])
        assert made.get(f"http://localhost:{port}/x").startswith(b"HTTP/1.1 502 ")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.AWAY
    assert "Connection refused" in passage.said


def half(handler: Handler) -> None:
    handler.send(b"half", length=10)
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("path", "said"), [("/half", "4 of 10 bytes"), ("/nothing", "closed the connection"), ("/503", "answers 503")]
)
def test_an_answer_that_is_none_is_the_servers(proxy: MakeProxy, web: Web, path: str, said: str) -> None:
    web.answers = {"/half": half, "/nothing": hang_up, "/503": lambda handler: handler.send(b"", 503)}
    made = proxy([f"localhost:{web.port}"])
    made.get(f"http://localhost:{web.port}{path}")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.AWAY
    assert said in passage.said


def test_what_is_not_there_is_no_trouble_of_the_server(proxy: MakeProxy, web: Web) -> None:
    made = proxy([f"localhost:{web.port}"])
    made.get(f"http://localhost:{web.port}/none")
    (passage,) = made.report().passages
    assert (passage.status, passage.trouble) == (404, Trouble.NONE)


def test_what_comes_behind_a_request_is_not_passed_on(proxy: MakeProxy) -> None:
    """A second request behind the first would be one that nobody checked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        authority = f"localhost:{server.getsockname()[1]}"
        made = proxy([authority])
        one = f"POST http://{authority}/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        with made.connect() as client:
            client.sendall(f"{one}GET /secret HTTP/1.1\r\nHost: other\r\n\r\n".encode())
            reached, _ = server.accept()
            with reached:
                got = b""
                while b"abc" not in got:
                    got += reached.recv(65536)
                reached.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                got += everything(reached)
            assert everything(client).endswith(b"ok")
    assert got.endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"A" * 40_000 + b"\r\n\r\n"])
def test_what_is_no_request_is_refused(proxy: MakeProxy, text: bytes) -> None:
    made = proxy(["localhost"])
    assert made.ask(text).startswith(b"HTTP/1.1 400 ")
    (passage,) = made.report().passages
    assert passage.trouble is Trouble.MALFORMED


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.server.ending.is_set():
            handler.wfile.write(bytes(65536))


@pytest.mark.parametrize("tunnelled", [False, True])
def test_bytes_are_bounded(proxy: MakeProxy, web: Web, tunnelled: bool) -> None:
    web.answers["/endless"] = endless
    made = proxy([f"localhost:{web.port}"], bytes_=1_000_000)
    if tunnelled:
        with made.tunnel(f"localhost:{web.port}") as tunnel:
            tunnel.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
            got = len(everything(tunnel))
    else:
        got = len(made.get(f"http://localhost:{web.port}/endless"))
    assert got <= 1_000_000
    report = made.wait()
    assert report.ended is Ended.BYTES
    assert report.transferred == report.bytes == 1_000_000
    with pytest.raises(OSError, match="refused"):
        made.connect()


def test_bytes_are_bounded_upwards(proxy: MakeProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = proxy([f"localhost:{server.getsockname()[1]}"], bytes_=1_000_000)
        with made.tunnel(f"localhost:{server.getsockname()[1]}") as tunnel:
            reached, _ = server.accept()
            sending = threading.Thread(target=send_all, args=(tunnel,), daemon=True)
            sending.start()
            with reached:
                assert len(everything(reached)) <= 1_000_000
            sending.join()
    assert made.wait().ended is Ended.BYTES


def send_all(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(bytes(65536))


def test_time_is_bounded_in_a_tunnel_too(proxy: MakeProxy) -> None:
    """Data in the tunnel doesn't extend the time.

    The time is longer if the machine stood still before there was a tunnel.
    """
    for seconds in (0.5, 5.0, 50.0):
        with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
            made = proxy([f"localhost:{server.getsockname()[1]}"], time=seconds)
            try:
                tunnel = held.enter_context(made.tunnel(f"localhost:{server.getsockname()[1]}"))
            except ConnectionError:
                assert made.wait().ended is Ended.TIME
                continue
            reached, _ = server.accept()
            with reached, contextlib.suppress(OSError):
                while not select_end(tunnel):
                    reached.sendall(b".")
            assert made.wait().ended is Ended.TIME
            return
    pytest.fail("there was no tunnel within any of these times")


def select_end(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return not connection.recv(65536)
    except TimeoutError:
        return False


def slow(made: Proxy, held: contextlib.ExitStack) -> list[socket.socket]:
    """Make all allowed connections. None of them ever ends its request."""
    connections = [held.enter_context(made.connect()) for _ in range(passing.CONNECTIONS)]
    for each in connections:
        each.sendall(b"GET http://localhost")
    return connections


def test_connections_are_few(proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "HEAD_TIME", 300.0)
    made, other = proxy([f"localhost:{web.port}"]), proxy([f"localhost:{web.port}"])
    with contextlib.ExitStack() as held:
        slow(made, held)
        assert made.get(f"http://localhost:{web.port}/x").startswith(b"HTTP/1.1 503 ")
        assert other.get(f"http://localhost:{web.port}/x").endswith(b"content"), "the bound is for one download"


def test_connections_that_say_nothing_are_closed(proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "HEAD_TIME", 0.5)
    made = proxy([f"localhost:{web.port}"])
    with contextlib.ExitStack() as held:
        assert [everything(each) for each in slow(made, held)] == [b""] * passing.CONNECTIONS
    monkeypatch.setattr(passing, "HEAD_TIME", 300.0)
    assert made.get(f"http://localhost:{web.port}/x").endswith(b"content")


@pytest.mark.parametrize("speaks", [True, False])
def test_a_server_that_falls_silent_is_away_and_a_client_that_does_is_gone(
    proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    monkeypatch.setattr(relay, "SILENCE", 300.0 if speaks else 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
        made = proxy([f"localhost:{server.getsockname()[1]}"])
        with made.tunnel(f"localhost:{server.getsockname()[1]}") as tunnel:
            reached = held.enter_context(server.accept()[0])
            if speaks:
                tunnel.sendall(b"hello")
                assert reached.recv(1)  # so that the client has spoken last, whenever the silence ends
                monkeypatch.setattr(relay, "SILENCE", 0.5)
                tunnel.sendall(b"hello")
            assert everything(tunnel) == b""
    (passage,) = made.report().passages
    assert passage.trouble is (Trouble.AWAY if speaks else Trouble.NONE)


def test_an_order_of_a_builder_that_is_gone_ends(proxy: MakeProxy, web: Web) -> None:
    made = proxy([f"localhost:{web.port}"], inside=LOOPBACK)
    with made.tunnel(f"localhost:{web.port}") as tunnel:
        made.control.close()
        assert everything(tunnel) == b""
    made.thread.join(60)
    assert not made.thread.is_alive()


# -- a proxy of the operator's before this one


def test_what_the_environment_names_is_asked_in_place_of_the_host(
    proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configured proxy resolves names, so nobody does here."""
    resolved = resolving(monkeypatch, localhost=[["127.0.0.1"]])
    monkeypatch.setenv("http_proxy", f"http://localhost:{web.port}/")
    web.has("http://far.example:80/x", b"by a proxy")
    made = proxy(["far.example"], inside=[])
    assert made.get("http://far.example/x").endswith(b"by a proxy")
    assert made.get("http://other.example/x").startswith(b"HTTP/1.1 403 ")
    assert resolved == ["localhost"]
    assert web.headers[0]["Host"] == "far.example"


def greet(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"through")
    handler.close_connection = True


def test_a_tunnel_through_it(proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://localhost:{web.port}")
    web.answers["far.example:443"] = greet
    made = proxy(["far.example", "gone.example"], inside=[])
    with made.tunnel("far.example:443") as tunnel:
        assert everything(tunnel) == b"through"
    assert made.get("gone.example:443", "CONNECT").startswith(b"HTTP/1.1 502 ")
    assert f"the proxy localhost:{web.port} answers 404" in made.report().passages[-1].said


@pytest.mark.parametrize(
    ("value", "said"),
    [("socks5://localhost:1", "write the proxy as http://HOST:PORT"), ("http://a b", "is not a host")],
)
def test_what_is_no_proxy_is_said(proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("all_proxy", value)
    made = proxy(["far.example"])
    assert made.get("http://far.example/x").startswith(b"HTTP/1.1 502 ")
    assert said in made.report().passages[0].said


def test_hosts_that_are_reached_without_it(proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost")
    made = proxy([f"localhost:{web.port}"])
    assert made.get(f"http://localhost:{web.port}/x").endswith(b"content")


def test_trouble_is_told_however_much_went_well_before(
    proxy: MakeProxy, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.proxy.passing.PASSAGES", 4)
    made = proxy([f"localhost:{web.port}"])
    for host in [f"localhost:{web.port}"] * 5 + ["other.example"] * 5:
        made.get(f"http://{host}/x")
    assert [each.trouble for each in made.report().passages] == [Trouble.NONE] * 2 + [Trouble.UNLISTED] * 2
