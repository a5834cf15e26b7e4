"""A job finds in /etc what any host has: names of users and hosts, and time zones, in both modes and views."""

from __future__ import annotations

import io
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.job import Runtime
from spoold.model.response import Outcome
from spoold.nix import build
from spoold.nix.build import NixBuilder
from spoold.sandbox import etc, root
from tests import engines
from tests.conftest import build_shell
from tests.sandbox.conftest import RUN, Mode, Run, make_job, settings_for

pytestmark = [pytest.mark.alike, pytest.mark.docker]

Go = Callable[..., str]
PATIENT = replace(RUN, time=60 * engines.SLOWNESS, cpu_time=60 * engines.SLOWNESS)

PYTHON = """
import os, socket, threading
names = [("localhost", socket.AF_INET), (socket.gethostname(), socket.AF_INET)]
if os.path.exists("/proc/net/if_inet6") and open("/proc/net/if_inet6").read():
    names += [("localhost", socket.AF_INET6), ("ip6-localhost", socket.AF_INET6)]
for name, family in names:
    listening = socket.create_server((name, 0), family=family)
    with socket.create_connection((name, listening.getsockname()[1])) as client:
        accepted, peer = listening.accept()
        accepted.sendall(b"found")
        print(client.recv(5).decode(), name, peer[0])
print(socket.gethostbyname(socket.gethostname()), socket.gethostbyname("localhost"))
print(socket.gethostbyaddr("127.0.0.1")[0], socket.gethostbyaddr("::1")[0])
print(socket.getaddrinfo(socket.gethostname(), 0, flags=socket.AI_CANONNAME)[0][3])  # what `hostname -f` says
print([socket.getprotobyname(name) for name in ("tcp", "udp", "icmp", "ipv6-icmp", "TCP")])
print([socket.getservbyname(*name) for name in (("http",), ("https", "tcp"), ("domain", "udp"), ("ssh",), ("www",))])
print(socket.getservbyport(80), socket.getservbyport(53, "udp"))
datagrams = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
datagrams[0].bind(("localhost", 0))
datagrams[1].sendto(b"datagram", ("localhost", datagrams[0].getsockname()[1]))
print(datagrams[0].recv(100).decode())
try:
    socket.getaddrinfo("example.org", 80)
except socket.gaierror as error:
    print(error.errno == socket.EAI_NONAME)
"""
C = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
static int meet(const char *name) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    if (getaddrinfo(name, NULL, &hints, &found)) return 1;
    int listening = socket(found->ai_family, SOCK_STREAM, 0), client = socket(found->ai_family, SOCK_STREAM, 0);
    if (bind(listening, found->ai_addr, found->ai_addrlen) || listen(listening, 1)) return 2;
    if (getsockname(listening, (struct sockaddr *)&at, &size)) return 3;
    if (connect(client, (struct sockaddr *)&at, size) || accept(listening, NULL, NULL) < 0) return 4;
    return 0;
}
int main(void) {
    char own[256];
    gethostname(own, sizeof own);
    struct hostent *host = gethostbyname(own);
    struct protoent *udp = getprotobyname("udp"), *six = getprotobynumber(6);
    struct servent *http = getservbyname("http", "tcp");
    struct netent *net = getnetbyname("loopback");
    if (!host || !udp || !six || !http || !net) return 1;
    printf("%d %d %s\n", meet("localhost"), meet(own), inet_ntoa(*(struct in_addr *)host->h_addr_list[0]));
    printf("%d %s %d %x\n", udp->p_proto, six->p_name, ntohs(http->s_port), net->n_net);
}
"""
PERL = """
use IO::Socket::INET; use Socket; use Sys::Hostname;
for my $name ("localhost", hostname()) {
    my $server = IO::Socket::INET->new(Listen => 1, LocalHost => $name, Proto => "tcp") or die "$name: $@";
    my $client = IO::Socket::INET->new(PeerHost => $name, PeerPort => $server->sockport, Proto => "tcp") or die $@;
    print "found $name\\n";
}
print inet_ntoa(inet_aton("localhost")), " ", (getprotobyname("tcp"))[2], " ", (getservbyname("smtp", "tcp"))[2], "\\n";
"""
CURL = """
python3 -c '
import http.server, os
server = http.server.ThreadingHTTPServer(("", 0), http.server.SimpleHTTPRequestHandler)
with open("/tmp/port.new", "w") as file:
    print(server.server_port, file=file)
os.rename("/tmp/port.new", "/tmp/port")
server.serve_forever()' 2>/dev/null &
until [ -e /tmp/port ]; do sleep 0.1; done
read port </tmp/port
for name in localhost $(uname -n) $(hostname -f); do curl --silent --show-error http://$name:$port/greeting; done
"""
TIMES = """
date -d @0 '+%H:%M %Z'
TZ=America/New_York date -d @0 '+%H:%M %Z'
TZ=Asia/Kolkata python3 -c 'import time; print(time.strftime("%H:%M %Z", time.localtime(0)))'
python3 -c 'import datetime as d, zoneinfo; print(d.datetime.fromtimestamp(0, zoneinfo.ZoneInfo("Asia/Tokyo")).time())'
TZ=Australia/Sydney perl -MPOSIX -e 'print strftime("%H:%M %Z\n", localtime(0))'
TZ=Europe/Paris ./clock
TZ=:Europe/Paris ./clock
TZ=EST5EDT ./clock
TZ=:/usr/share/zoneinfo/Pacific/Auckland ./clock
TZ=:/etc/zoneinfo/Pacific/Auckland ./clock
TZDIR=/nowhere TZ=Europe/Paris ./clock
echo $TZDIR
"""
CLOCK = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
    char said[64];
    time_t then = 0;
    strftime(said, sizeof said, "%H:%M %Z", localtime(&then));
    puts(said);
}
"""


@pytest.fixture(scope="module")
def shell(prepared: tuple[NixBuilder, Runtime]) -> str:
    """Return a shell with programs that look up names and times."""
    return build_shell(prepared, "buildInputs = with pkgs; [ python3 perl curl gcc hostname ];")


KINDS = [
    ("single-use", "its closure"),
    ("single-use", "the whole store"),
    ("single-use", "the whole store, without a porter"),
    ("recycled", "its closure"),
    ("recycled", "the whole store"),
]


@pytest.fixture(scope="module", params=KINDS, ids=" ".join)
def go(
    request: pytest.FixtureRequest, docker_host: str, prepared: tuple[NixBuilder, Runtime], shell: str
) -> Iterator[Go]:
    """Yield a function that runs a job in a sandbox of each mode, with each view of the store."""
    builder, runtime = prepared
    mode, seen = request.param
    with tempfile.TemporaryDirectory() as spool:
        settings = settings_for(docker_host, spool, mode=mode)
        if "without" in seen:
            settings = replace(settings, sandbox=replace(settings.sandbox, view="off"))
        sandbox = DockerSandbox(settings, runtime)
        sandbox.prepare()
        assert sandbox.viewed is ("without" not in seen)

        def _go(script: str, *, compile_sh: str | None = None, **files: str) -> str:
            named = {f"{name}.{'c' if compile_sh else 'x'}": content.encode() for name, content in files.items()}
            job = make_job(script, shell=shell, compile_sh=compile_sh, files=named, limits=PATIENT)
            closure = builder.store.closure([shell]) if seen == "its closure" else []
            result = sandbox.run(replace(job, closure=closure), lambda *_: None, threading.Event())
            assert (result.run.outcome, result.run.stderr) == (Outcome.OK, ""), result
            return result.run.stdout

        yield _go
        sandbox.close()


def test_python_finds_itself_by_name(go: Go) -> None:
    lines = go("exec python3 names.x", names=PYTHON).splitlines()
    met = [line for line in lines if line.startswith("found")]
    assert met[:2] == ["found localhost 127.0.0.1", "found sandbox 127.0.0.1"]
    assert met[2:] in ([], ["found localhost ::1", "found ip6-localhost ::1"])
    assert lines[len(met) :] == [
        "127.0.0.1 127.0.0.1",
        "localhost localhost",
        "sandbox",
        "[6, 17, 1, 58, 6]",
        "[80, 443, 53, 22, 80]",
        "http domain",
        "datagram",
        "True",
    ]


def test_c_finds_itself_by_name(go: Go) -> None:
    assert go("./names", compile_sh="gcc -o names names.c", names=C) == "0 0 127.0.0.1\n17 tcp 80 7f000000\n"


def test_perl_finds_itself_by_name(go: Go) -> None:
    assert go("exec perl names.x", names=PERL) == "found localhost\nfound sandbox\n127.0.0.1 6 25\n"


def test_curl_finds_a_server_by_name(go: Go) -> None:
    assert go(f"echo hi >greeting; {CURL}") == "hi\nhi\nhi\n"


def test_the_host_has_a_name(go: Go) -> None:
    asking = "import socket; print(socket.getfqdn())"
    said = go(f"hostname; hostname -f; hostname -i; uname -n; cat /etc/hostname; exec python3 -c '{asking}'")
    assert said.split() == ["sandbox", "sandbox", "127.0.0.1", "sandbox", "sandbox", "localhost"]


def test_time_zones(go: Go) -> None:
    assert go(TIMES, compile_sh="gcc -o clock clock.c", clock=CLOCK).splitlines() == [
        "00:00 UTC",
        "19:00 EST",
        "05:30 IST",
        "09:00:00",
        "10:00 AEST",
        "01:00 CET",
        "01:00 CET",
        "19:00 EST",
        "12:00 NZST",
        "12:00 NZST",
        "00:00 Europe",
        "/etc/zoneinfo",
    ]


def test_a_shell_that_has_time_zones_of_its_own(run: Run, prepared: tuple[NixBuilder, Runtime]) -> None:
    assert run("echo $TZDIR", shell=build_shell(prepared, 'TZDIR = "/of/the/shell";')).run.stdout == "/of/the/shell\n"


def test_a_nixpkgs_without_time_zones(
    nix_settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else goes on, and the log says so."""
    monkeypatch.setattr(build, "ZONES", "tzdata-of-another-name")
    without = NixBuilder(nix_settings).prepare()
    assert without.tzdata == ""
    assert set(runtime.closure) - set(without.closure) == {runtime.tzdata}
    assert [record for record in caplog.records if record.message.startswith("jobs have no time zones")]
    with tarfile.open(fileobj=io.BytesIO(root.archive(without))) as tar:
        assert not [name for name in tar.getnames() if "zoneinfo" in name]
    monkeypatch.undo()
    assert NixBuilder(nix_settings).prepare() == runtime


@pytest.mark.parametrize("mode", ["single-use"], indirect=True)
def test_a_file_that_others_can_change_is_not_mounted_into_sandboxes(
    docker_host: str,
    runtime: Runtime,
    plain_shell: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: Mode,
) -> None:
    """Others could let the engine mount any file of the host. Jobs go on without names, and the log says so."""
    own = tmp_path / "hosts"
    own.write_text("127.0.0.1 theirs\n")
    own.chmod(0o666)
    monkeypatch.setattr(etc, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "__init__.py").touch()
    settings = settings_for(docker_host, str(tmp_path), mode=mode)
    sandbox = DockerSandbox(replace(settings, sandbox=replace(settings.sandbox, view="off")), runtime)
    sandbox.prepare()
    phase = sandbox.run(make_job("cat /etc/hosts", shell=plain_shell), lambda *_: None, threading.Event()).run
    sandbox.close()
    assert (phase.outcome, phase.stdout) == (Outcome.OK, "")
    (said,) = [record for record in caplog.records if record.message.startswith("no name resolves in containers")]
    assert "can be changed by everybody" in str(said.__dict__["fields"]["reason"])
