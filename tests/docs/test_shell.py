"""How pages are followed: failures are found, and output is compared with the page's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.shell import Reader, blocks, matches
from tests.docs.test_guides import variables


def page(directory: Path, text: str) -> Path:
    made = directory / "page.md"
    made.write_text(text.replace("~~~", "```"))
    return made


def follow(directory: Path, text: str, **places: str) -> None:
    with Reader(directory / "hosts", {"here": variables(), "there": variables()}, places) as reader:
        reader.follow(page(directory, text))


def test_what_a_block_sets_is_there_for_the_next(tmp_path: Path) -> None:
    text = "~~~sh\nx=1; mkdir d; cd d\n~~~\nWords.\n\n~~~sh\necho $x $(basename $PWD)\n~~~\n\n~~~text\n1 d\n~~~\n"
    follow(tmp_path, text)


def test_hosts_have_shells_of_their_own(tmp_path: Path) -> None:
    text = "~~~sh\nx=1\n~~~\n\n~~~sh on there\necho ${x-none}\n~~~\n\n~~~text\nnone\n~~~\n"
    follow(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("~~~sh\ntrue\n~~~\n\n~~~sh\nfalse\necho on\n~~~\n", "line 5"),
        ("~~~sh\necho one\n~~~\n\n~~~text\ntwo\n~~~\n", "one"),
        ("~~~sh exits 3\nexit_with() { return 2; }; exit_with\n~~~\n", "exit_with"),
        ("~~~sh\nno-such-program\n~~~\n", "no-such-program"),
    ],
)
def test_the_first_block_that_does_otherwise_is_told(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        follow(tmp_path, text)


def test_a_command_may_be_meant_to_fail(tmp_path: Path) -> None:
    follow(tmp_path, "~~~sh exits 3\nsh -c 'echo no; exit 3'\n~~~\n\n~~~text\nno\n~~~\n\n~~~sh\ntrue\n~~~\n")


def test_paths_of_a_page_stand_for_others(tmp_path: Path) -> None:
    text = "~~~sh\necho there >/srv/x/file; cat /srv/xy/file; echo /srv/xy\n~~~\n\n~~~text\nthere\n/srv/xy\n~~~\n"
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "x-link").symlink_to(tmp_path)  # its path contains the other name
    follow(tmp_path, text, **{"/srv/x": str(tmp_path), "/srv/xy": f"{tmp_path}/srv/x-link"})


def test_only_a_block_right_below_tells_what_is_printed(tmp_path: Path) -> None:
    made = page(tmp_path, "~~~sh\na\n~~~\n\nWords.\n\n~~~text\nb\n~~~\n\n* ~~~sh\n  c\n  ~~~\n")
    assert [(block.text, said) for block, said in blocks(made)] == [("a\n", None)]


@pytest.mark.parametrize(
    ("said", "printed", "right"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\n", False),
        ("a ... c", "a b c\n", True),
        ("a ... c", "a b d\n", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a\n...", "a\n", True),
        ("...\nd", "a\nb\n", False),
        ("[x] (y)", "[x] (y)  \n", True),
    ],
)
def test_dots_stand_for_anything(said: str, printed: str, right: bool) -> None:
    assert matches(said, printed) == right
