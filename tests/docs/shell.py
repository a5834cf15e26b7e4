"""Follow pages as people do: run their commands, one block after the other, in shells that stay open.

A block marked ``sh`` is run. Words behind ``sh`` are for this module, and no reader sees them:

* ``exits N``: the last command of the block ends with that exit code. All other blocks end with 0.
* ``on HOST``: the block runs on another host, in a shell of its own.
* ``serves``: the block goes on until the end. The next block is run once it has printed ``ready``.

A block marked ``text`` right below shows what the block above printed, errors included. ``...`` in it stands for
anything, and a line with ``...`` alone for any number of lines.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.engines import REPOSITORY

FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HERE = "here"


class Block(NamedTuple):
    """A block of a page: its marks, its text, and the line where it begins."""

    language: str
    words: str
    text: str
    line: int

    @property
    def host(self) -> str:
        """Return the host on which the block runs."""
        match = re.search(r"\bon (\S+)", self.words)
        return match[1] if match else HERE

    @property
    def code(self) -> int:
        """Return the exit code that the block must have."""
        match = re.search(r"\bexits (\d+)", self.words)
        return int(match[1]) if match else 0

    @property
    def serves(self) -> bool:
        """Tell whether the block goes on until the end."""
        return "serves" in self.words.split()


def blocks(page: Path, heading: str = "") -> Iterator[tuple[Block, Block | None]]:
    """Yield the blocks of a page that are run, each with the block right below it that has its output.

    With a heading they are those of its section, up to the next heading of any level.
    """
    text = page.read_text()
    if heading:
        section = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, f"{page} has no section {heading!r}"
        text = "\n" * text.count("\n", 0, section.start(1)) + section[1]
    found = [(match, _block(match, text)) for match in FENCE.finditer(text)]
    for at, (match, block) in enumerate(found):
        if block.language == "sh":
            below = found[at + 1] if at + 1 < len(found) else None
            is_printed = below and below[1].language == "text" and not text[match.end() : below[0].start()].strip()
            yield block, below[1] if below and is_printed else None


def _block(match: re.Match[str], text: str) -> Block:
    indent, language, words, inside = match.groups()
    plain = "".join(line.removeprefix(indent) for line in inside.splitlines(keepends=True))
    return Block(language, words.strip(), plain, text.count("\n", 0, match.start()) + 1)


def matches(said: str, printed: str) -> bool:
    """Tell whether the page's output matches what was printed."""
    parts = []
    for line in said.strip().splitlines():
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*")
        else:
            parts.append(re.escape(line.rstrip()).replace(re.escape("..."), "[^\n]*") + r"[ ]*\n")
    return re.fullmatch("".join(parts), printed.strip() + "\n") is not None


class Terminal:
    """A shell that runs one block after the other."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._script = Path(tempfile.mkdtemp(prefix="spoold-page.")) / "block"
        self._mark = f"--{secrets.token_hex(8)}--"
        self._printed = ""
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )

    def run(self, text: str, code: int = 0) -> tuple[bool, str]:
        """Run a block. Return whether it ended as it should, and what it printed."""
        mark = f"printf '%s %s\\n' '{self._mark}' $?"
        self._begin(text, f"set +e; . {{}} </dev/null; {mark}", "set -e" if code == 0 else "")
        printed = self._read_to(self._mark)
        if printed is None:
            return False, self._printed
        return printed[1] == str(code), printed[0]

    def serve(self, text: str) -> tuple[bool, str]:
        """Run a block that goes on, and return once it is ready."""
        self._begin(text, ". {} </dev/null; exit")
        return self._read_to("ready") is not None, self._printed

    def _begin(self, text: str, how: str, before: str = "") -> None:
        # The shell itself reads the block, so that variables stay set. It stops at the first failure.
        self._script.write_text(f"{before}\n{text}")
        assert self._shell.stdin
        self._shell.stdin.write(how.format(self._script) + "\n")
        self._shell.stdin.flush()

    def _read_to(self, mark: str) -> tuple[str, str] | None:
        """Read up to a line with a mark. Return the text before it, and the text behind it on the same line."""
        self._printed = ""
        assert self._shell.stdout
        for line in self._shell.stdout:
            before, found, behind = line.partition(mark)
            if found and (mark != "ready" or line == "ready\n"):
                return self._printed + before, behind.strip()
            self._printed += line
        return None

    def close(self) -> None:
        """End the shell and everything that was started in it."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.communicate()
        shutil.rmtree(self._script.parent)


class Reader:
    """A person who follows a page, on one host or on several.

    ``environments`` has the variables of each host. ``places`` has paths that stand for paths of the page, on all hosts
    or by host. A block that serves runs in the checkout, and ``serving`` gets its output. Without ``serving`` such a
    block is skipped, because its service runs already. Other blocks run in an empty directory, or in ``checkout`` where
    it is given.
    """

    def __init__(
        self,
        directory: Path,
        environments: Mapping[str, Mapping[str, str]],
        places: Mapping[str, str | Mapping[str, str]],
        serving: Callable[[str], None] | None = None,
        *,
        checkout: Path | None = None,
    ) -> None:
        self._directory, self._environments, self._places, self._serving = directory, environments, places, serving
        self._checkout = checkout
        self._terminals: dict[str, Terminal] = {}
        self._background: list[Terminal] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for terminal in (*self._terminals.values(), *self._background):
            terminal.close()

    def follow(self, page: Path, heading: str = "") -> None:
        """Run all blocks of a page or section. Fail at the first block that does not do as the page says."""
        for block, said in blocks(page, heading):
            what = f"{page.name}, line {block.line}:\n{block.text}\nprinted:\n"
            fine, printed = self._run(block)
            assert fine, f"{what}{printed}"
            assert said is None or matches(said.text, self._as_on_the_page(printed, block.host)), f"{what}{printed}"

    def _run(self, block: Block) -> tuple[bool, str]:
        text = self._here(block.text, block.host)
        if block.serves:
            return self._serve(text, block.host)
        if block.host not in self._terminals:
            home = self._directory / block.host / "home"
            home.mkdir(parents=True)
            environment = {**self._environments[block.host], "HOME": str(home)}
            self._terminals[block.host] = Terminal(self._checkout or home, environment)
        return self._terminals[block.host].run(text, block.code)

    def _serve(self, text: str, host: str) -> tuple[bool, str]:
        if self._serving is None:
            return True, ""
        self._background.append(Terminal(REPOSITORY, self._environments[host]))
        fine, printed = self._background[-1].serve(text)
        if fine:
            self._serving(printed)
        return fine, printed

    def _here(self, text: str, host: str) -> str:
        return _replaced(text, self._places_of(host))

    def _as_on_the_page(self, printed: str, host: str) -> str:
        return _replaced(printed, {place: name for name, place in self._places_of(host).items()})

    def _places_of(self, host: str) -> dict[str, str]:
        return {name: place if isinstance(place, str) else place[host] for name, place in self._places.items()}


def _replaced(text: str, by: Mapping[str, str]) -> str:
    """Replace names, each once. A name may be the beginning of another, or part of another's replacement."""
    names = "|".join(re.escape(name) for name in sorted(by, key=len, reverse=True))
    return re.sub(names, lambda match: by[match[0]], text) if names else text
