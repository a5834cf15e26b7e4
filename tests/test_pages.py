"""Pages, units, programs and messages name only things of the checkout that exist: paths, links, headings of links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import REPOSITORY

TOP = ("*.md", "pyproject.toml", ".ci/*", "spoold/**/*", "systemd/**/*", "tests/**/*", "contrib/**/*")
PAGES = ("*.md", "contrib/**/*.md")
# A path below a package's share/doc is not in the checkout. tests/boot checks those.
NAMED = re.compile(r"(?<![\w-])(?<!doc/spoold/)(?<!\$\(doc\)/)(?:contrib|tests)/[\w./{},*$-]+")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the text files of the checkout. Of the changelog, yield only the unreleased part."""
    for path in sorted({path for pattern in TOP for path in REPOSITORY.glob(pattern)}):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # binary data of an example
        yield path, "## ".join(text.split("\n## ")[:2]) if path.name == "CHANGELOG.md" else text


def patterns(name: str) -> Iterator[str]:
    """Yield the paths to look for. ``{a,b}`` gives both. A path ends before a variable, whose value is unknown."""
    choice = re.search(r"\{([^{}]*,[^{}]*)\}", name)
    if choice:
        for each in choice[1].split(","):
            yield from patterns(name[: choice.start()] + each + name[choice.end() :])
    else:
        yield re.split(r"[{}$]", name)[0].rstrip(".,/")


def missing(text: str) -> set[str]:
    """Return the paths of contrib/ and tests/ that a text names and that don't exist."""
    wanted = {pattern for name in NAMED.findall(text) for pattern in patterns(name)}
    return {pattern for pattern in wanted if not any(REPOSITORY.glob(pattern))}


def test_every_path_that_is_named_exists() -> None:
    named = [(str(path.relative_to(REPOSITORY)), name) for path, text in texts() for name in sorted(missing(text))]
    assert named == []


@pytest.mark.parametrize(
    "text",
    [
        'see "contrib/{}".',
        "source $root/contrib/{}",
        "`./contrib/{} DIR`",
        "cp contrib/{{demo,{}}} .",
        "contrib/{}/*.sh",
    ],
)
def test_a_path_that_is_no_more_is_found(text: str) -> None:
    assert {pattern.split("/")[1] for pattern in missing(text.format("gone"))} == {"gone"}
    assert missing(text.format("nixpkgs-debian")) == set()


def headings(page: Path) -> set[str]:
    """Return the headings of a page, in the form in which links write them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_link_leads_somewhere() -> None:
    pages = {page for pattern in PAGES for page in REPOSITORY.glob(pattern)}
    links = [(page, link) for page in sorted(pages) for link in LINK.findall(page.read_text()) if "://" not in link]
    assert len(links) > 20
    for page, link in links:
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), (page, link)
        assert not heading or heading in headings(target), (page, link)
