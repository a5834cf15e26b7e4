"""A binary cache with stand-ins for what shells of a real nixpkgs need, under the names that the nixpkgs asks for.

The store path of an output depends on how it would be built, and not on its content. So a cache may hold anything under
a real name, as long as a trusted key has signed it. The content here is links into a package of the miniature nixpkgs,
or a program that prints its name where no package fits. Outputs that real caches lack too (allowSubstitutes), and the
hooks of packages, are built from these.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import msgspec

from spoold.nix import policy
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.nix.cache import INFO

# Names of real packages, without their versions, and the attributes of the miniature that stand in for them.
STANDS_IN = {
    "bash": "bash",
    "bash-interactive": "bash",
    "coreutils": "coreutils",
    "findutils": "findutils",
    "gnugrep": "gnugrep",
    "gnused": "gnused",
    "gawk": "gawk",
    "gcc-wrapper": "gcc",
    "perl": "perl",
    "python3": "python3",
    "python": "python3",
    "jq": "jq",
    "lua": "lua",
}
# Programs that fetchers run. Not every miniature has all of them.
FETCHERS = {
    "bash": "bash",
    "coreutils": "coreutils",
    "curl": "curl",
    "git": "git",
    "git-minimal": "git",
    "unzip": "unzip",
    "patchutils": "patchutils",
}
BASE = ("bash", "coreutils", "findutils", "gnugrep", "gnused", "gawk", "gnutar", "gzip", "xz", "bzip2")
SETUP = """export SHELL={bash}/bin/bash
initialPath="{initial}"
defaultNativeBuildInputs="{hooks}"
defaultBuildInputs=""
"""
OUTPUTS = "multiple-outputs.sh"  # nothing with a hook can be built without it
_VERSION = re.compile(r"-(?=[0-9])")


class Needed(msgspec.Struct, frozen=True):
    """An output that a cache has to have."""

    path: str
    name: str


def needed(builder: NixBuilder, derivation: str) -> Iterator[Needed]:
    """Yield the outputs that a cache must have so that ``derivation`` can be built."""
    seen, waiting = set(), [derivation]
    while waiting:
        for path, outputs in policy.read(builder.store, waiting.pop()).derivations:
            below = policy.read(builder.store, path)
            if _is_made_here(below, _plain(policy.name_of(path))):
                if path not in seen:
                    seen.add(path)
                    waiting.append(path)
                continue
            for output in below.outputs:
                if output.name in outputs:
                    yield Needed(output.path, _plain(policy.name_of(path)))


def _is_made_here(derivation: policy.Derivation, name: str) -> bool:
    attributes = derivation.attributes()
    if any(output.algorithm for output in derivation.outputs):
        return False
    if attributes.get("allowSubstitutes", "1") in ("", False):
        return True  # such as an environment of Python, whose name is Python's own: no cache is asked for it
    if name in {*STANDS_IN, *FETCHERS} or name.endswith("-wrapper"):
        return False  # caches have them, and a wrapper would look for the programs that it wraps
    return (
        attributes.get("preferLocalBuild", "") in ("1", True)  # texts and links: no cache has a client's own
        or str(attributes.get("name", "")).endswith("hook")
    )


def _plain(name: str) -> str:
    return _VERSION.split(name)[0]


class Maker:
    """Makes a cache for shells that ``builder`` evaluates. Its stand-ins come from the default pin, the miniature.

    ``stands_in`` is as STANDS_IN.
    """

    def __init__(
        self,
        builder: NixBuilder,
        directory: Path,
        secret: Path,
        *,
        stands_in: Mapping[str, str] = STANDS_IN,
    ) -> None:
        self._builder, self._directory, self._secret = builder, directory, secret
        self._stands_in = stands_in
        self._packages = self._built()
        self._made: set[str] = set()
        (directory / "nar").mkdir(parents=True, exist_ok=True)
        (directory / INFO).write_text("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n")
        self._copy(builder.store.closure([*self._packages.values()]))

    def _built(self) -> dict[str, str]:
        names = sorted({*self._stands_in.values(), *BASE})
        shell = room.build(self._builder, room.SHELL % f"packages = with pkgs; [ {' '.join(names)} ];")
        assert shell.shell, shell.phase.stderr
        paths = {package.name: package.path for package in shell.packages}
        runtime = room.runtime_of(self._builder)
        return paths | {"bash": runtime.bash, "coreutils": runtime.coreutils}

    def _copy(self, paths: list[str]) -> None:
        argv = ["nix", "--extra-experimental-features", "nix-command", "copy", "--store", str(self._builder.store.root)]
        argv += ["--option", "substituters", "", "--to", f"file://{self._directory}?compression=none"]
        subprocess.run([*argv, *paths], check=True, capture_output=True)
        self._sign(paths)

    def _sign(self, paths: Iterable[str]) -> None:
        argv = ["nix", "--extra-experimental-features", "nix-command", "store", "sign", "--key-file", str(self._secret)]
        subprocess.run([*argv, "--store", f"file://{self._directory}", *paths], check=True, capture_output=True)

    def add(self, expression: str, pin: str) -> int:
        """Add what a shell needs and the cache lacks. Return the number of paths added."""
        builder = self._builder
        location = builder.prepare().nixpkgs[pin]
        assert builder._evaluator is not None
        evaluation = builder._evaluator.evaluate(expression, location, builder.settings.builder.limits, Event())
        assert evaluation.derivation, evaluation.finished.stderr.data.decode()
        return self.serve([evaluation.derivation], pin)

    def serve(self, derivations: Iterable[str], pin: str) -> int:
        """Add what derivations need that the cache has not yet; return how many paths that was."""
        found = (each for derivation in derivations for each in needed(self._builder, derivation))
        fresh = {each.path: each for each in found if each.path not in self._made}
        for each in fresh.values():
            self._make(each, room.runtime_of(self._builder).nixpkgs[pin])
        if fresh:
            self._sign(fresh)
            self._made |= set(fresh)
        return len(fresh)

    def _make(self, wanted: Needed, pin: str) -> None:
        with TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            references = self._lay_out(tree, wanted, pin)
            archive = subprocess.run(["nix-store", "--dump", tree], check=True, capture_output=True).stdout
        digest = hashlib.sha256(archive).hexdigest()
        (self._directory / f"nar/{digest}.nar").write_bytes(archive)
        fields = {
            "StorePath": wanted.path,
            "URL": f"nar/{digest}.nar",
            "Compression": "none",
            "FileHash": f"sha256:{digest}",
            "FileSize": len(archive),
            "NarHash": f"sha256:{digest}",
            "NarSize": len(archive),
            "References": " ".join(path[11:] for path in references),
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items())
        (self._directory / f"{wanted.path[11:43]}.narinfo").write_text(text)

    def _lay_out(self, tree: Path, wanted: Needed, pin: str) -> list[str]:
        """Put a stand-in into a directory. Return the store paths that it refers to."""
        bash = self._packages["bash"]
        if wanted.name.startswith("stdenv"):
            initial = [self._packages[name] for name in BASE if name in self._packages]
            pkgs = self._builder.store.on_disk(pin) / "pkgs"
            hooks = ""
            if (hook := pkgs / "build-support/setup-hooks" / OUTPUTS).exists():
                shutil.copyfile(hook, tree / OUTPUTS)
                hooks = f"{wanted.path}/{OUTPUTS}"
            begin = SETUP.format(bash=bash, initial=" ".join(initial), hooks=hooks)
            real = (pkgs / "stdenv/generic/setup.sh").read_text()
            # nixpkgs of 2014 filled these in
            early = {"@shell@": f"{bash}/bin/bash", "@initialPath@": " ".join(initial)}
            for word, value in early.items():
                real = real.replace(word, value)
            (tree / "setup").write_text(begin + real)
            return [wanted.path, *initial]
        package = self._packages.get(self._stands_in.get(wanted.name, ""), "")
        if not package:
            (tree / "bin").mkdir()
            program = tree / "bin" / wanted.name.removesuffix("-wrapper")
            program.write_text(f"#!{bash}/bin/bash\necho stands in for {wanted.name}\n")
            program.chmod(0o755)
            return [bash]
        for entry in self._builder.store.on_disk(package).iterdir():
            (tree / entry.name).symlink_to(f"{package}/{entry.name}")
        pkgs = self._builder.store.on_disk(pin) / "pkgs"
        where = (f"by-name/??/{wanted.name}", f"tools/*/{wanted.name}")
        for hook in itertools.chain(*(pkgs.glob(f"{each}/setup-hook.sh") for each in where)):
            (tree / "nix-support").mkdir()
            shutil.copyfile(hook, tree / "nix-support/setup-hook")
        return [package]
