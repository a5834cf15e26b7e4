"""Test data of a package: the cases below ``data/sample`` and ``data/secret``, and the tree of their groups.

``testdata.yaml`` (in the older format) and ``test_group.yaml`` (in the newer one) say how the results of a directory
are combined, and how outputs in it are compared. They apply to the directories below as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spoold.cli.grading.cases import MOST_FILES, MOST_LEVELS, SAMPLE, Test, refuse
from spoold.cli.grading.documents import Document, read_if_there
from spoold.cli.grading.package import Package, comparison, inside
from spoold.cli.text import printable
from spoold.model.errors import ClientError

OLDER, NEWER = "testdata.yaml", "test_group.yaml"
FLAGS = ("output_validator_flags", "output_validator_args")
TOPS = (SAMPLE, "secret")
OF_OLDER = (
    *("on_reject", "grading", "grader_flags", "accept_score", "reject_score", "range"),
    *("input_validator_flags", "output_validator_flags"),
)
# Keys of the newer format and of its drafts. The format wants others to be errors, because a misspelt one would change
# verdicts silently.
ARGUMENTS = (
    "args",
    *FLAGS,
    "input_validator_flags",
    *(f"{one}_args" for one in ("input_validator", "static_validator")),
)
OF_ALL = (*ARGUMENTS, "input_visualizer_args", "output_visualizer_args", "full_feedback", "hint", "description")
OF_GROUPS = (*OF_ALL, "max_score", "score_aggregation", "require_pass")


class Group(NamedTuple):
    """A directory: its name relative to ``data``, its settings, and in order its subgroups and the places of its cases.

    ``settings`` are its own. ``inherited`` are its own laid over those of the directories above. ``is_marked`` says
    that it has a settings file.
    """

    name: str
    settings: Document
    inherited: Mapping[str, Any]
    items: tuple[Group | int, ...]
    is_marked: bool = False

    def groups(self) -> Iterator[Group]:
        """Yield this group and all groups in it."""
        yield self
        for item in self.items:
            if isinstance(item, Group):
                yield from item.groups()

    def places(self) -> list[int]:
        """Return the places of all cases in it, in order."""
        found: list[int] = []
        for item in self.items:
            found += item.places() if isinstance(item, Group) else [item]
        return found

    @property
    def own(self) -> list[int]:
        """Return the places of the cases that are in it and in none of its subgroups."""
        return [item for item in self.items if isinstance(item, int)]


class Data(NamedTuple):
    """All cases of a package, and the group of all. ``is_older`` says that they are scored as in the older format.

    ``unknown`` names keys of the older format's files that it does not have.
    """

    tests: list[Test]
    root: Group
    is_older: bool
    unknown: tuple[str, ...] = ()

    def find(self, name: str) -> Group | None:
        """Return the group with a name."""
        return next((group for group in self.root.groups() if group.name == name), None)


def load(package: Package) -> Data:
    """Return the test data. Raises :class:`ClientError`, which names what is wrong."""
    reader = _Reader(package)
    top = package.path / "data"
    settings = reader.settings(top)
    inherited = dict(settings.values)
    groups = [
        reader.group(top / name, name, inherited, (os.path.realpath(top),)) for name in TOPS if (top / name).is_dir()
    ]
    refuse(str(top), reader.problems)
    if not reader.tests:
        raise ClientError(
            f"{printable(str(top))}: there are no cases in it. A case is N.in with N.ans in sample or secret"
        )
    is_older = not package.is_newer or (reader.has_older and not reader.has_newer)
    return Data(reader.tests, Group("", settings, inherited, tuple(groups)), is_older, tuple(reader.unknown))


class _Reader:
    def __init__(self, package: Package) -> None:
        self.package = package
        self.tests: list[Test] = []
        self.problems: list[str] = []
        self.unknown: list[str] = []
        self.has_older = self.has_newer = False
        self._count = 0

    def settings(self, path: Path) -> Document:
        """Return the settings of a directory."""
        older = read_if_there(str(path / OLDER))
        newer = read_if_there(str(path / NEWER), self.package.constants) if self.package.is_newer else None
        self.has_older |= older is not None
        self.has_newer |= newer is not None
        found = newer or older or Document({}, printable(str(path / (NEWER if self.package.is_newer else OLDER))))
        if "static_validation_score" in found:
            raise found.wrong("static_validation_score", "validators of source code cannot be run here")
        if newer is not None:
            _require_known(newer, OF_GROUPS)
        elif older is not None:
            self.unknown += older.unknown(OF_OLDER)
        return found

    def group(self, path: Path, name: str, above: Mapping[str, Any], ancestors: tuple[str, ...]) -> Group:
        inside(self.package, path)
        real = os.path.realpath(path)
        if real in ancestors:
            raise ClientError(f"{printable(str(path))} is a link to a directory that contains it")
        if len(ancestors) > MOST_LEVELS:
            raise ClientError(f"{printable(str(path))} is more than {MOST_LEVELS} directories deep")
        settings = self.settings(path)
        is_marked = any((path / each).exists() for each in (OLDER, NEWER))
        inherited = {**above, **settings.values}
        try:
            names = os.listdir(path)
        except OSError as error:
            raise ClientError(f"{printable(str(path))} cannot be read: {error.strerror}") from error
        self._count += len(names)
        if self._count > MOST_FILES:
            raise ClientError(f"{printable(str(path))}: the test data has more than {MOST_FILES} files")
        items: list[Group | int] = []
        for each in sorted(names, key=lambda each: each.removesuffix(".in") + ".ans" if each.endswith(".in") else each):
            inner = path / each
            if each.startswith("."):
                continue
            if inner.is_dir():
                if not each.endswith(".files"):
                    items.append(self.group(inner, f"{name}/{each}", inherited, (*ancestors, real)))
            elif each.endswith(".in"):
                items.append(self._test(inner, name, Document(inherited, settings.where)))
        return Group(name, settings, inherited, tuple(items), is_marked)

    def _test(self, path: Path, group: str, inherited: Document) -> int:
        """Add a case, and return its place."""
        stem = path.name.removesuffix(".in")
        answer = path.with_name(f"{stem}.ans")
        if not os.path.lexists(answer):
            self.problems.append(f"{printable(f'{group}/{stem}')}.in has no {printable(stem)}.ans beside it")
            return len(self.tests)
        if path.with_name(f"{stem}.files").is_dir():
            raise ClientError(f"{printable(str(path))}: a case with files of its own ({stem}.files) cannot be run here")
        if self.package.is_newer and path.with_name(f"{stem}.args").exists():
            raise ClientError(f"{printable(str(path))}: {printable(stem)}.args is not read: write args in {stem}.yaml")
        own = read_if_there(str(path.with_name(f"{stem}.yaml"))) if self.package.is_newer else None
        if own is not None:
            _require_known(own, OF_ALL)
        said = Document({**inherited.values, **own.values}, own.where) if own else inherited
        flags = [*self.package.flags, *(flag for key in FLAGS for flag in said.words(key) or ())]
        test = Test(f"{group}/{stem}", group, str(inside(self.package, path)), str(inside(self.package, answer)))
        arguments = said.words("args") if self.package.is_newer else None
        self.tests.append(
            test._replace(
                hidden=not group.startswith(SAMPLE),
                checker_arguments=tuple(flags),
                arguments=None if arguments is None else tuple(arguments),
            )
        )
        return len(self.tests) - 1


def _require_known(said: Document, keys: Sequence[str]) -> None:
    for key in said.values:
        if key not in keys:
            raise said.wrong(key, f"the format has no such key here. It has {', '.join(keys)}")


def compared(data: Data) -> Data:
    """Return the test data with comparison rules, for a package without its own validator."""
    tests = [
        test._replace(compare=comparison(test.checker_arguments, printable(test.name)), checker_arguments=())
        for test in data.tests
    ]
    return data._replace(tests=tests)
