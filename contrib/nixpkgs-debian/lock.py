"""lock.json of an OUT: which units there are, of which packages, and who asks for them by which name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distribution import Index, MakeError
from units import Family, Resolver, Unit

FORMAT = 2


class Lock:
    """A lock that is there, as far as this program needs it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.recipe = content.get("recipe")
        self.extras: list[str] = content.get("extras", [])
        self.units: dict[str, Any] = content.get("units", {})
        self.sources: dict[str, Any] = content.get("sources", {})

    @property
    def is_current(self) -> bool:
        """Tell whether this program's own version made it."""
        return self.content.get("format") == FORMAT

    def asked(self) -> dict[str, str]:
        """Return what can be asked for, and the unit of each."""
        return {entry["asked"]: name for name, entry in self.units.items() if entry.get("asked")}

    def unit_of(self, name: str) -> str | None:
        """Return the unit that somebody asks for by this name: the attribute, or a Debian package."""
        found = self.asked().get(name, self.content.get("aliases", {}).get(name, name))
        return found if found in self.units else None

    def packages(self, unit: str) -> list[str]:
        """Return the Debian packages of a unit and of all that it needs."""
        found: dict[str, None] = {}
        todo, seen = [unit], set()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                found |= dict.fromkeys(self.units[name]["sources"])
                entry = self.units[name]
                unwrapped = [f"{brought}-unwrapped" for brought in entry["brings"]]
                todo += [other for other in (*entry["needs"], *entry["brings"], *unwrapped) if other in self.units]
        return sorted(found)

    def missing(self, out: Path, packages: Iterable[str]) -> list[str]:
        """Return those of the packages whose files are not in OUT."""
        return [name for name in packages if not (out / "sources" / self.sources[name]["file"]).exists()]

    def fetched(self, out: Path) -> list[str]:
        """Return what was asked for and is there."""
        return sorted(asked for asked, unit in self.asked().items() if not self.missing(out, self.packages(unit)))


def read(out: Path) -> Lock | None:
    """Return the lock of an OUT that this program made; None when there is no OUT."""
    if not out.exists():
        return None
    try:
        content = json.loads((out / "lock.json").read_bytes())
    except (OSError, ValueError):
        if out.is_dir() and not any(out.iterdir()):
            return None
        raise MakeError(
            f"{out} exists, but this program did not make it: it has no readable lock.json\n"
            f"  name another directory, or remove that one"
        ) from None
    return Lock(content) if isinstance(content, dict) else Lock({})


def write(
    made: Path,
    resolver: Resolver,
    *,
    recipe: str,
    system: str,
    extras: list[str],
    sources: dict[str, dict[str, str | int]],
) -> Lock:
    """Write the lock of what was resolved."""
    units, at_once = sorted(resolver.units, key=lambda unit: unit.attribute), resolver.at_once()
    content = {
        "format": FORMAT,
        "recipe": recipe,
        "system": system,
        "extras": sorted(extras),
        "families": {family.attribute: _family(family) for family in resolver.table.families},
        "aliases": resolver.aliases,
        "units": {unit.attribute: _unit(unit, resolver.index, at_once) for unit in units},
        "sources": sources,
    }
    (made / "lock.json").write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return Lock(content)


def _family(family: Family) -> dict[str, str]:
    prefix, _, suffix = family.pattern.partition("*")
    return {"prefix": prefix, "suffix": suffix}


def _unit(unit: Unit, index: Index, at_once: set[str]) -> dict[str, object]:
    # The version of a package that only depends on others ("default") tells nothing.
    largest = max(unit.debs, key=lambda name: (int(index.field(name, "Size") or 0), name))
    version = re.sub(r"-[^-]*$", "", re.sub(r"^\d+:", "", index.field(largest, "Version")))
    first = index.get(unit.roots[0]) or {}
    return {
        "version": re.sub(r"[^A-Za-z0-9+._-]", ".", re.sub(r"[+~.](dfsg|ds|git|really).*$", "", version)),
        "description": first.get("Description", first.get("Description-en", "")),
        "homepage": first.get("Homepage", ""),
        "asked": unit.asked,
        "family": unit.family,
        "brings": unit.brings,
        "later": unit.attribute not in at_once,
        "sources": sorted(unit.debs),
        "needs": sorted(unit.needs),
    }
