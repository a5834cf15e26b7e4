"""From packages.txt to units: which Debian packages are merged into one store path, and what each needs.

Theory of operation. A line of packages.txt names the first packages of a unit; what it merges are the dependencies that
its patterns name, and on demand those that were built from the same source package. Every other dependency leads out
of the unit. A library becomes a unit of its own, and so does a member of the unit's family (python3-*); what has a
line is a unit already; anything else is what a Debian system needs and a program in a store does not. Units that need
each other in a circle become one.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

from distribution import Index, MakeError, dependencies

ON_DEMAND = "[on demand]"
FAMILY = "Packages"  # how the attribute of a family ends


class Unit:
    """What becomes one store path: some Debian packages merged, and the units they need.

    ``asked`` is what the person asks for to have it fetched, "" where it comes at once or with others.
    """

    def __init__(self, attribute: str, roots: list[str], words: list[str] | None = None, family: str = "") -> None:
        self.attribute = attribute
        self.roots = roots
        self.family = family
        self.asked = ""
        self.merge = [word for word in words or [] if word[0] not in "+-"]
        self.without = [word[1:] for word in words or [] if word[0] == "-"]
        self.brings = [word[1:] for word in words or [] if word[0] == "+"]
        self.debs: list[str] = []
        self.needs: set[str] = set()
        self.dropped: set[str] = set()

    def is_without(self, name: str) -> bool:
        """Tell whether the line says that a dependency is of no use."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.without)

    def is_member(self, name: str) -> bool:
        """Tell whether the line says that a dependency becomes part of the unit."""
        return name in self.roots or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.merge)


class Family:
    """Packages that are alike: ``pattern`` has their Debian names, with a ``*`` for what stays in the attribute."""

    def __init__(self, attribute: str, pattern: str) -> None:
        self.attribute = attribute
        self.pattern = pattern

    def has(self, name: str) -> bool:
        """Tell whether a Debian package is one of them."""
        return fnmatch.fnmatchcase(name, self.pattern)

    def package(self, member: str) -> str:
        """Return the Debian package of a member."""
        return self.pattern.replace("*", member)

    def unit(self, package: str) -> Unit:
        """Return a unit for the Debian package of a member."""
        unit = Unit(package, [package], [], self.attribute)
        prefix, _, suffix = self.pattern.partition("*")
        unit.asked = f"{self.attribute}.{package.removeprefix(prefix).removesuffix(suffix)}"
        return unit


class Table:
    """What packages.txt says."""

    def __init__(self, path: Path) -> None:
        self.units: list[Unit] = []
        self.families: list[Family] = []
        on_demand = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split("#", 1)[0].split()
            if words == ON_DEMAND.split():
                on_demand = True
            elif len(words) == 1:
                raise MakeError(f"{path.name} line {number}: a Debian package is missing after {words[0]!r}")
            elif words and words[0].endswith(FAMILY):
                self.families.append(Family(*words[:2]))
                for member in words[2:]:
                    self._add_member(self.families[-1].package(member), self.families[-1])
            elif words:
                self.units.append(Unit(words[0], words[1].split(","), words[2:]))
                self.units[-1].asked = words[0].removesuffix("-unwrapped") if on_demand else ""

    def add(self, asked: str) -> None:
        """Add what somebody asked for and no line has: a member of a family, or a Debian package by its name."""
        for family in self.families:
            package = family.package(asked.partition(".")[2]) if asked.startswith(f"{family.attribute}.") else asked
            if family.has(package):
                self._add_member(package, family)
                return
        self.units.append(Unit(asked, [asked]))
        self.units[-1].asked = asked

    def _add_member(self, package: str, family: Family) -> None:
        if all(unit.attribute != package for unit in self.units):
            self.units.append(family.unit(package))

    def family(self, attribute: str) -> Family | None:
        """Return the family of this attribute."""
        return next((family for family in self.families if family.attribute == attribute), None)


def is_library(name: str, section: str) -> bool:
    """Tell whether a package has a library that programs are linked to, or that a language loads."""
    is_lib = name.startswith("lib") or section.rpartition("/")[2] == "libs"
    return is_lib and not name.endswith(("-base", "-bin", "-dev", "-doc"))


class Resolver:
    """Finds the members of each unit and the units that it needs."""

    def __init__(self, table: Table) -> None:
        self.index = Index()
        self.table = table
        self.units = list(table.units)
        self.aliases: dict[str, str] = {}  # a unit that became part of another -> that one
        self.owner: dict[str, str] = {}  # a package that others may need -> the unit that brings it
        for unit in table.units:
            unit.roots = [self._name_today(name) for name in unit.roots]
            for name in unit.roots:
                self.owner.setdefault(name, unit.attribute)

    def resolve(self) -> None:
        """Fill in the units."""
        self._require_roots()
        for unit in self.units:  # which gets longer: libraries turn up
            for group in self._find_members(unit):
                self._need(unit, group)
        self._join_circles()

    def closure(self, attributes: list[str]) -> set[str]:
        """Return the attributes of these units and of all that they need."""
        by_name = {unit.attribute: unit for unit in self.units}
        found: set[str] = set()
        todo = [self.aliases.get(name, name) for name in attributes]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += by_name[name].needs
        return found

    def at_once(self) -> set[str]:
        """Return the attributes of the units that are fetched at once."""
        return self.closure([unit.attribute for unit in self.table.units if not unit.asked])

    def _name_today(self, name: str) -> str:
        """Return a package by its name in this release. A library that has another name there provides the former."""
        if self.index.get(name) is not None:
            return name
        return next((other for other in self.index.providers(name) if self.index.get(other) is not None), name)

    def _require_roots(self) -> None:
        for unit in self.units:
            for name in unit.roots:
                if self.index.get(name) is None:
                    raise MakeError(
                        f"apt knows no package {name} (attribute {unit.attribute} in packages.txt)\n"
                        f"  run `apt-get update` as root and try again"
                    )

    def _find_members(self, unit: Unit) -> list[list[str]]:
        """Fill in the debs of the unit; return the dependencies that lead out of it."""
        outward: list[list[str]] = []
        todo = list(unit.roots)
        while todo:
            name = todo.pop(0)
            if name in unit.debs:
                continue
            unit.debs.append(name)
            for group in self._depends(name):
                inner = [other for other in group if self._is_member(unit, name, other)]
                if inner:
                    todo.append(inner[0])
                else:
                    outward.append(group)
        return outward

    def _depends(self, name: str) -> list[list[str]]:
        """Return what a package depends on: alternatives, with the packages that provide them at the end."""
        groups = dependencies(self.index.get(name) or {})
        return [[*group, *(other for name in group for other in self.index.providers(name))] for group in groups]

    def _is_member(self, unit: Unit, name: str, other: str) -> bool:
        if self.index.get(other) is None or unit.is_without(other):
            return False
        if unit.is_member(other):
            return True
        is_alike = bool(unit.asked) and self.index.source(other) == self.index.source(name)
        return is_alike and other not in self.owner

    def _need(self, unit: Unit, alternatives: list[str]) -> None:
        name = self._choose(unit, alternatives)
        if name is None:
            unit.dropped.add(alternatives[0])
            return
        if name not in self.owner:
            self.owner[name] = name
            family = next((family for family in self.table.families if family.has(name)), None)
            self.units.append(family.unit(name) if family else Unit(name, [name]))
        if self.owner[name] != unit.attribute:
            unit.needs.add(self.owner[name])

    def _choose(self, unit: Unit, alternatives: list[str]) -> str | None:
        """Return the first alternative that exists and is worth having."""
        family = self.table.family(unit.family)
        for name in alternatives:
            fields = self.index.get(name)
            if fields is None or unit.is_without(name):
                continue
            # A dependency on an essential package only states which version a maintainer script needs.
            is_owned = name in self.owner and fields.get("Essential") != "yes"
            if is_owned or is_library(name, fields.get("Section", "")) or (family is not None and family.has(name)):
                return name
        return None

    def _join_circles(self) -> None:
        by_name = {unit.attribute: unit for unit in self.units}
        for circle in circles({unit.attribute: sorted(unit.needs) for unit in self.units}):
            lines = [name for name in circle if by_name[name] in self.table.units and not by_name[name].family]
            if len(lines) > 1:
                raise MakeError(
                    f"Debian packages need each other in a circle: {' -> '.join([*circle, circle[0]])}\n"
                    f"  merge them: name the others in the line of one of them in packages.txt"
                )
            kept = by_name[(lines or sorted(circle))[0]]
            for name in circle:
                if name != kept.attribute:
                    self.aliases[name] = kept.attribute
                    kept.debs += [deb for deb in by_name[name].debs if deb not in kept.debs]
                    kept.needs |= by_name[name].needs
        self.units = [unit for unit in self.units if unit.attribute not in self.aliases]
        for unit in self.units:
            unit.needs = {self.aliases.get(name, name) for name in unit.needs} - {unit.attribute}


def circles(needs: dict[str, list[str]]) -> list[list[str]]:
    """Return the sets of more than one node that can all be reached from each other (Tarjan)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in needs[name]:
            if other not in order:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            component = path[path.index(name) :]
            del path[path.index(name) :]
            if len(component) > 1:
                found.append(component)

    for name in needs:
        if name not in order:
            visit(name)
    return found
