"""A client reads why a download failed, as the proxy saw it."""

from __future__ import annotations

from spoold.model.hosts import parse
from spoold.model.response import Outcome
from spoold.nix import sources
from spoold.proxy.order import Ended, Passage, Report, Trouble

WANTED = [parse(name)._replace(port=443) for name in ("github.com", "mirror.example")]
MIRROR = Passage(host="mirror.example", trouble=Trouble.UNLISTED)
ELSEWHERE = Passage(host="codeload.github.com", trouble=Trouble.UNLISTED)
# In a tunnel nobody sees a status.
REACHED = Passage(method="CONNECT", host="github.com", received=1)


def note(*passages: Passage) -> str:
    report = Report(ended=Ended.BUILDER, bytes=1, time=1.0, transferred=0, passages=list(passages))
    outcome, said = sources.judged("x", WANTED, report)
    assert outcome is Outcome.NONZERO_EXIT
    return said


def test_no_host_is_listed() -> None:
    assert note(MIRROR).startswith("x would be downloaded from mirror.example, which `[nix] fetch` does not allow")


def test_a_mirror_that_is_not_listed_is_not_why_a_listed_host_failed() -> None:
    """nixpkgs' fetchurl asks its own mirror before the host of the URL."""
    assert note(MIRROR, REACHED) == (
        "x: github.com was reached, and the lines above say why that was not enough. It may come from mirror.example "
        "too, which `[nix] fetch` does not allow"
    )
    assert note(MIRROR, Passage(host="github.com", status=404, target="/a")) == "x: github.com answers 404 for /a"


def test_a_redirect_names_its_host_alone() -> None:
    said = note(MIRROR, REACHED, ELSEWHERE)
    assert said.startswith("x would be downloaded from codeload.github.com, by a redirect")


def test_what_hides_its_host_is_told() -> None:
    disguised = Passage(host="github.com", trouble=Trouble.MALFORMED, said="TLS asks for 'b' in a tunnel to github.com")
    assert note(disguised) == "x: the download was not let through: TLS asks for 'b' in a tunnel to github.com"
