"""The proxy as a program: who may call it, which rules it follows, and that it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import NixSettings
from spoold.config.file import decode
from spoold.proxy import rules
from spoold.proxy.order import ACCEPTED, Ended, Order, Purpose, Report
from tests.proxy.conftest import everything
from tests.waiting import until
from tests.web import Web

ORDER = Order(build="b", what="w", bytes=10**12, time=10**6)
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Yield a function that starts the program with these settings, in a directory that everybody can enter."""
    running: list[subprocess.Popen[bytes]] = []

    def start(settings: str) -> subprocess.Popen[bytes]:
        (place / "spoold.toml").write_text(settings)
        command = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(place / "spoold.toml"), "fetch"]
        environment = os.environ | {"RUNTIME_DIRECTORY": str(place)}
        with (place / "log").open("wb") as log:
            running.append(subprocess.Popen(command, env=environment, stderr=log))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def call(place: Path) -> socket.socket:
    until((place / "socket").exists)
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(60)
    until(lambda: control.connect_ex(str(place / "socket")) == 0)
    return control


def settings(web: Web) -> str:
    return (
        f'[nix]\nfetch = ["localhost:{web.port}"]\nfetch_inside = ["127.0.0.0/8", "::1/128"]\n'
        "[builder.limits]\nfetch_bytes = 5_000\nfetch_time = 200.0\n"
    )


def test_it_serves_orders_by_its_own_settings(start: Start, place: Path, web: Web) -> None:
    start(settings(web))
    for _ in range(2):
        with call(place) as control, socket.create_server(("127.0.0.1", 0)) as listener:
            socket.send_fds(control, [msgspec.json.encode(ORDER)], [listener.fileno()])
            assert control.recv(1) == ACCEPTED
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(f"GET http://localhost:{web.port}/x HTTP/1.1\r\n\r\n".encode())
                assert everything(client).endswith(b"content")
            control.shutdown(socket.SHUT_WR)
            report = msgspec.json.decode(everything(control), type=Report)
            assert (report.ended, report.bytes, report.time) == (Ended.BUILDER, 5000, 200.0)
    assert f"host=localhost:{web.port}" in (place / "log").read_text()


@pytest.mark.parametrize("said", [b"", b"{}", b"not JSON", msgspec.json.encode(ORDER)])
def test_what_is_no_order_ends_no_one(start: Start, place: Path, web: Web, said: bytes) -> None:
    """The last one is an order, but comes without a socket."""
    process = start(settings(web))
    with call(place) as control:
        control.sendall(said)
        control.shutdown(socket.SHUT_WR)
        assert everything(control) == b""
    assert process.poll() is None
    until(lambda: "an order was not carried out" in (place / "log").read_text())


CALLS = """
import socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect(sys.argv[1])
    control.sendall(b"{}")
    print(control.recv(1))
"""


def test_nobody_but_the_builder_may_call(start: Start, place: Path, web: Web) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    start(settings(web))
    call(place).close()
    stranger = ["setpriv", "--reuid=60706", "--regid=60706", "--clear-groups", "--", "/usr/bin/python3", "-c", CALLS]
    subprocess.run([*stranger, str(place / "socket")], check=False, capture_output=True)
    until(lambda: "a user other than the builder connected" in (place / "log").read_text())


def test_without_hosts_it_has_nothing_to_do(start: Start, place: Path) -> None:
    assert start("").wait(60) == 0
    assert "nothing to do" in (place / "log").read_text()


def test_a_reload_changes_nothing_and_a_stop_ends_it(start: Start, place: Path, web: Web) -> None:
    process = start(settings(web))
    call(place).close()
    process.send_signal(signal.SIGHUP)
    call(place).close()
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM


def test_settings_are_read_for_each_order_and_a_mistake_changes_nothing(start: Start, place: Path, web: Web) -> None:
    start('[nix]\nfetch = ["other.example"]\n')
    for text, status in (
        ('[nix]\nfetch = ["other.example"]\n', b"403"),
        (settings(web), b"200"),
        ("[nix]\nfetch = 3\n", b"403"),
    ):
        (place / "spoold.toml").write_text(text)
        with call(place) as control, socket.create_server(("127.0.0.1", 0)) as listener:
            socket.send_fds(control, [msgspec.json.encode(ORDER)], [listener.fileno()])
            assert control.recv(1) == ACCEPTED
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(f"GET http://localhost:{web.port}/x HTTP/1.1\r\n\r\n".encode())
                assert everything(client).split()[1] == status
    assert "the settings cannot be read; those from the start stay in use" in (place / "log").read_text()


CACHES = """
[nix]
fetch = ["source.example"]
substituters = ["https://cache.example", "/srv/cache", "s3://bucket"]
[nixpkgs]
default = "/srv/nixpkgs"
other = "http://pins.example:8080/x.tar.gz"
"""


def test_each_purpose_has_its_hosts() -> None:
    settings = decode(CACHES.encode())
    found = {
        purpose: rules.of(purpose, settings.nix, settings.nixpkgs.values(), settings.builder.limits)
        for purpose in Purpose
    }
    assert {purpose: each.hosts for purpose, each in found.items()} == {
        Purpose.SOURCE: ["source.example"],
        Purpose.CACHE: ["source.example", "cache.example:443"],
        Purpose.PIN: ["source.example", "pins.example:8080"],
    }
    assert found[Purpose.SOURCE].inside == []
    assert rules.any_at_all(settings.nix, settings.nixpkgs.values())
    assert not rules.any_at_all(NixSettings(substituters=["/srv"]), ["/srv/nixpkgs"])


def test_settings_with_a_mistake_are_named(start: Start, place: Path) -> None:
    assert start('[nix]\nfetch = ["https://a.example/"]\n').wait(60) == 1
    assert "fetch: 'https://a.example/' is a URL: name the host alone, 'a.example'" in (place / "log").read_text()
