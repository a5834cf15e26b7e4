"""Names of hosts as operators write them, and which addresses belong to the Internet."""

from __future__ import annotations

import ipaddress
import re

import pytest

from spoold.model.addresses import is_outside, may_be_reached, network
from spoold.model.hosts import Host, Hosts, entry, of_url


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("github.com", Host("github.com", 0)),
        ("GitHub.com.", Host("github.com", 0)),
        ("mirror.corp:8080", Host("mirror.corp", 8080)),
        ("10.1.2.3:8080", Host("10.1.2.3", 8080)),
        ("[FD00:0::1]:8080", Host("fd00::1", 8080)),
        ("xn--bcher-kva.example", Host("xn--bcher-kva.example", 0)),
    ],
)
def test_an_entry_is_a_name_and_perhaps_a_port(text: str, host: Host) -> None:
    assert entry(text) == host


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://github.com/x", "is a URL: name the host alone, 'github.com'"),
        ("github.com/x", "is a URL: name the host alone, 'github.com'"),
        ("*.github.com", "only exact names count"),
        (".github.com", "only exact names count"),
        ("bücher.example", "in ASCII"),
        ("github.com:0", "there is no port 0"),
        ("github.com:70000", "there is no port 70000"),
        ("github.com:", "is not a host"),
        ("fd00::1", "is not a host"),
        ("a b", "is not a host"),
        ("", "is not a host"),
        ("a..b", "is not a name"),
    ],
)
def test_what_is_no_entry_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        entry(text)


def test_exact_names_and_ports_are_allowed_and_nothing_else() -> None:
    hosts = Hosts(["github.com", "mirror.corp:8080", "mirror.corp:8081"])
    for name, port in (("github.com", 80), ("github.com", 443), ("mirror.corp", 8080), ("mirror.corp", 8081)):
        assert hosts.allows(Host(name, port))
    for name, port in (
        ("github.com", 22),
        ("api.github.com", 443),
        ("com", 443),
        ("github.com.evil.example", 443),
        ("mirror.corp", 443),
        ("", 443),
    ):
        assert not hosts.allows(Host(name, port))
    assert not Hosts([])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://github.com/a/b.tar.gz", "github.com"),
        ("http://user:word@mirror.corp:8080/x", "mirror.corp:8080"),
        ("git+https://github.com/a", "github.com"),
        ("ftp://ftp.gnu.org/x", "ftp.gnu.org:21"),
        ("HTTPS://GitHub.com:443/", "github.com"),
    ],
)
def test_the_host_of_a_url(url: str, shown: str) -> None:
    assert str(of_url(url)) == shown


@pytest.mark.parametrize("url", ["mirror://gnu/x", "file:///x", "x", "https://", "https://[::1", "git@github.com:a/b"])
def test_what_has_no_host(url: str) -> None:
    assert of_url(url) is None


@pytest.mark.parametrize(
    "text", ["140.82.121.3", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e", "223.255.255.1"]
)
def test_addresses_of_the_internet(text: str) -> None:
    assert is_outside(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1", "172.31.9.9"),
        *("192.0.0.8", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255", "203.0.113.1"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:140.82.121.3", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:8c52:7903::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:20::1"),
        *("fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "3fff::1", "5f00::1"),
    ],
)
def test_all_other_addresses(text: str) -> None:
    assert not is_outside(ipaddress.ip_address(text))


def test_a_network_that_the_operator_lists() -> None:
    inside = [network("10.1.2.0/24")]
    assert may_be_reached(ipaddress.ip_address("10.1.2.3"), inside)
    assert not may_be_reached(ipaddress.ip_address("10.1.3.3"), inside)
    assert not may_be_reached(ipaddress.ip_address("::ffff:10.1.2.3"), inside)
    with pytest.raises(ValueError, match=r"'10\.1\.2\.3/24' is not a network: .*; write it as '10\.1\.2\.0/24'"):
        network("10.1.2.3/24")
