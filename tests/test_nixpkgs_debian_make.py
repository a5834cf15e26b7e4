"""contrib/nixpkgs-debian/make with the test's own apt: which packages it chooses, when it fetches them, its messages.

The packages are those of the real packages.txt and a few more. Each is almost empty.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import distribution
from distribution import Index, MakeError
from tests.engines import REPOSITORY
from units import Resolver, Table

RECIPE = REPOSITORY / "contrib" / "nixpkgs-debian"
MORE = {
    "figlet": {"Depends": "libfig1, debconf"},
    "libfig1": {},
    "debconf": {"Depends": "libfig1"},
    "default-jdk-headless": {"Depends": "openjdk-17-jdk-headless, ca-certificates"},
    "openjdk-17-jdk-headless": {"Version": "17.0.2+8-1~deb12u1", "Depends": "libjpeg1", "Size": "999"},
    "ca-certificates": {},
    "libjpeg1": {},
    "python3-numpy": {"Depends": "python3, python3-six, libblas.so.3", "Section": "python"},
    "libblas3": {"Provides": "libblas.so.3"},
    "python3-later": {"Depends": "python3-six"},
}
APT = f"""#!{sys.executable}
import os, shutil, sys
here = os.path.dirname(os.path.abspath(__file__))
words = [word for word in sys.argv[1:] if not word.startswith("-") and word != "APT::Sandbox::User=root"]
if words[0] == "dumpavail":
    print(open(here + "/index").read())
elif "--print-uris" in sys.argv:
    for name in (word.partition("=")[0] for word in words[1:]):
        print(f"'http://mirror.example/{{name}}.deb' {{name}}_1_all.deb 9 SHA256:0")
else:
    assert words[0] == "download", sys.argv
    for name in (word.partition("=")[0] for word in words[1:]):
        shutil.copy(f"{{here}}/{{name}}.deb", ".")
"""


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar.xz with these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return lzma.compress(packed.getvalue())


def deb(name: str) -> bytes:
    """Return a package that contains one program with the package's name."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": archive({"./control": f"Package: {name}\n".encode()}),
        "data.tar.xz": archive({f"./bin/{name.removesuffix('-static')}": name.encode()}),
    }
    packed = b"!<arch>\n"
    for member, content in parts.items():
        packed += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


class Machine:
    """A machine with apt, dpkg, and a mirror that has every package of packages.txt."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.out = place / "out"
        self.tools = place / "tools"
        self.tools.mkdir()
        for name, text in (("apt-cache", APT), ("apt-get", APT), ("dpkg", "#!/bin/sh\necho amd64\n")):
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.packages: dict[str, dict[str, str]] = {
            name: {} for unit in Table(RECIPE / "packages.txt").units for name in unit.roots
        }
        self.packages |= MORE
        self.write_index()

    def write_index(self) -> None:
        """Write the index through which apt knows the packages."""
        paragraphs = []
        for name, given in self.packages.items():
            content = deb(name)
            (self.tools / f"{name}.deb").write_bytes(content)
            fields = {"Package": name, "Version": "1", "Size": str(len(content)), "Description": f"the {name}"} | given
            fields |= {"Filename": f"pool/{name}_1_all.deb", "SHA256": hashlib.sha256(content).hexdigest()}
            paragraphs.append("\n".join(f"{key}: {value}" for key, value in fields.items()))
        (self.tools / "index").write_text("\n\n".join(paragraphs))

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the program on the machine's OUT."""
        environment = {"PATH": f"{self.tools}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(self.place / "cache")}
        command = [sys.executable, str(RECIPE / "make"), *words, str(self.out)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def made(self, *words: str) -> str:
        """Run the program, which must succeed, and return its messages."""
        done = self.make(*words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    @property
    def lock(self) -> Any:
        """Return the lock."""
        return json.loads((self.out / "lock.json").read_bytes())

    def has(self, package: str) -> bool:
        """Tell whether OUT has the file of a package."""
        file = str(self.lock["sources"][package]["file"])
        return (self.out / "sources" / file).exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without an OUT."""
    return Machine(tmp_path)


def test_what_every_job_needs_is_fetched_and_all_is_locked(machine: Machine) -> None:
    machine.made()
    assert machine.has("bash")
    assert machine.has("gcc")
    assert not machine.has("default-jdk-headless")
    entry = machine.lock["sources"]["openjdk-17-jdk-headless"]
    assert entry["url"] == "http://mirror.example/openjdk-17-jdk-headless.deb"
    assert entry["sha256"] == hashlib.sha256(deb("openjdk-17-jdk-headless")).hexdigest()
    assert machine.lock["units"]["jdk"]["version"] == "17.0.2+8"
    assert "up to date" in machine.made()


def test_more_is_fetched_and_nothing_of_the_nixpkgs_changes(machine: Machine) -> None:
    machine.made()
    before = (machine.out / "lock.json").read_bytes()
    machine.made("--with", "jdk,python3Packages.numpy")
    assert all(map(machine.has, ("default-jdk-headless", "openjdk-17-jdk-headless", "libjpeg1")))
    assert all(map(machine.has, ("python3-numpy", "python3-six", "libblas3")))
    assert not machine.has("nodejs")
    assert (machine.out / "lock.json").read_bytes() == before
    listed = subprocess.run(
        [sys.executable, RECIPE / "make", "--list", machine.out], capture_output=True, text=True, check=True
    ).stdout
    states = {line.split()[0]: line for line in listed.splitlines()}
    assert " fetched " in states["jdk"]
    assert " to fetch " in states["nodejs"]


def test_what_was_fetched_is_there_after_an_update(machine: Machine) -> None:
    machine.made("--with", "jdk")
    machine.packages["openjdk-17-jdk-headless"] |= {"Version": "17.0.3-1"}
    machine.write_index()
    machine.made("--update")
    assert machine.lock["units"]["jdk"]["version"] == "17.0.3"
    assert machine.has("openjdk-17-jdk-headless")
    assert not machine.has("nodejs")


@pytest.mark.parametrize("name", ["figlet", "python3Packages.later", "python3-later"])
def test_any_package_is_added_and_stays(machine: Machine, name: str) -> None:
    machine.made()
    before = machine.lock
    assert "the old one lacks" in machine.made("--with", name)
    package = "figlet" if name == "figlet" else "python3-later"
    assert package not in before["units"]
    assert machine.has(package)
    assert machine.has("libfig1" if name == "figlet" else "python3-six")
    machine.made("--update")
    assert machine.has(package)
    assert "up to date" in machine.made("--with", name)


def test_a_package_that_there_is_not_is_named(machine: Machine) -> None:
    machine.made()
    done = machine.make("--with", "nosuch")
    assert done.returncode == 1
    assert "apt knows no package nosuch" in done.stderr
    assert machine.lock["units"]["bash"]


def test_a_package_that_the_mirror_lacks_by_now_says_what_to_do(machine: Machine) -> None:
    machine.made()
    (machine.tools / "nodejs.deb").unlink()
    done = machine.make("--with", "nodejs")
    assert done.returncode == 1
    assert "--update takes those" in done.stderr
    assert not machine.has("nodejs")
    assert "up to date" in machine.made()


def test_the_names_of_all_members_of_a_family_are_there(machine: Machine) -> None:
    machine.made()
    names = json.loads((machine.out / "names" / "python3Packages.json").read_bytes())
    assert "python3-later" in names
    assert "python3-numpy" in names
    assert "python3" not in names


def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, packages: dict[str, str]) -> Resolver:
    """Resolve a table of lines against packages, given by name and further fields."""
    index = "\n\n".join(
        f"Package: {name}\nVersion: 1\nFilename: {name}.deb\nSHA256: 0\n{fields}" for name, fields in packages.items()
    )
    monkeypatch.setattr(distribution, "run", lambda *_: index)
    (tmp_path / "packages.txt").write_text(table)
    resolver = Resolver(Table(tmp_path / "packages.txt"))
    resolver.resolve()
    return resolver


def test_dependencies_of_the_same_source_become_part_of_what_is_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {
        "tool": "Source: tools (2)\nDepends: tool-data, libtool1, other",
        "tool-data": "Source: tools",
        "libtool1": "",
        "other": "",
    }
    [now, _] = resolved(tmp_path, monkeypatch, "tool tool\n", packages).units
    assert (now.debs, now.needs, now.dropped) == (["tool"], {"libtool1"}, {"tool-data", "other"})
    later = resolved(tmp_path, monkeypatch, "[on demand]\ntool tool -libtool1 other\n", packages).units[0]
    assert (later.debs, later.needs) == (["tool", "tool-data", "other"], set())


def test_units_that_need_each_other_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {
        "tool": "Depends: liba1",
        "liba1": "Depends: libb1",
        "libb1": "Depends: liba1, libc1",
        "libc1": "",
    }
    resolver = resolved(tmp_path, monkeypatch, "tool tool\n", packages)
    assert resolver.aliases == {"libb1": "liba1"}
    joined = next(unit for unit in resolver.units if unit.attribute == "liba1")
    assert (joined.debs, joined.needs) == (["liba1", "libb1"], {"libc1"})
    assert resolver.closure(["libb1"]) == {"liba1", "libc1"}
    with pytest.raises(MakeError, match="need each other in a circle"):
        resolved(tmp_path, monkeypatch, "a liba1\nb libb1\n", packages)


def test_a_virtual_package_is_the_one_that_provides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {"tool": "Depends: libx-abi4", "libx1": "Provides: libx-abi4 (= 4), libx-abi3"}
    [tool, _] = resolved(tmp_path, monkeypatch, "tool tool\n", packages).units
    assert tool.needs == {"libx1"}


def test_a_candidate_that_no_mirror_has_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "dumpavail": "Package: tool\nVersion: 2\n",
        "show": "Package: tool\nVersion: 2\n\nPackage: tool\nVersion: 1\nFilename: f\nSHA256: 0\n",
    }
    monkeypatch.setattr(distribution, "run", lambda *words: said[words[1]])
    assert Index().field("tool", "Version") == "1"


def test_an_address_with_a_password_stays_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "'http://u:p@mirror.example/a.deb' a_1_all.deb 1 SHA256:0\n'https://mirror.example/b.deb' b_1_all.deb 1 S\n"
    monkeypatch.setattr(distribution, "run", lambda *_: said)
    assert distribution.addresses({"a": "1", "b": "1"}) == {"b": "https://mirror.example/b.deb"}


def test_a_library_may_have_another_name_in_another_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian 13 has libmagic1t64, which is what libmagic1 was before it kept times in 64 bits."""
    packages = {"file": "Depends: libmagic1t64", "libmagic1t64": "Provides: libmagic1 (= 1)"}
    [unit] = resolved(tmp_path, monkeypatch, "file file,libmagic1\n", packages).units
    assert (unit.roots, unit.debs) == (["file", "libmagic1t64"], ["file", "libmagic1t64"])
