"""contrib/nixpkgs-debian with the real Nix, used as spoold uses it.

An expression is evaluated under restrict-eval in a throw-away store that has none of the sources. Only the derivations
are copied to the store that has the sources, and realised there in Nix's sandbox. The result runs in a root directory
that holds the store and nothing else, so any path of the machine that is left in a program shows.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MAKE = Path(__file__).resolve().parent.parent / "contrib" / "nixpkgs-debian" / "make"
PROGRAMS = ("nix-store", "nix-instantiate", "bwrap", "apt-get")
PACKAGES = (
    "bash", "coreutils", "findutils", "diffutils", "gnugrep", "gnused", "gawk", "gnutar", "gzip", "bzip2", "xz",
    "which", "file", "gcc", "tinycc", "gnumake", "binutils", "python3", "lua", "perl", "jq", "hello",
)  # fmt: skip
C_PROGRAM = """\
#include <pthread.h>
#include <stdio.h>
static void *leave(void *word) { puts(word); pthread_exit(0); return 0; }
int main(void) { pthread_t thread; pthread_create(&thread, 0, leave, "from C"); return pthread_join(thread, 0); }
"""
CXX_PROGRAM = """\
#include <iostream>
#include <stdexcept>
int main() {
    try { throw std::runtime_error("from C++"); } catch (std::exception &e) { std::cout << e.what() << std::endl; }
}
"""

pytestmark = [pytest.mark.nix, pytest.mark.timeout(600)]


def setup_module() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (apt-get install nix-bin bubblewrap)"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass
class Nix:
    """A chroot store that has the sources, and a nixpkgs that doesn't."""

    state: Path
    nixpkgs: Path
    environment: dict[str, str] = field(default_factory=dict)
    _evaluations: int = 0

    def __post_init__(self) -> None:
        settings = (
            "substituters =",
            "sandbox = true",
            "sandbox-fallback = false",
            "build-users-group =",
            "system-features =",
            "max-jobs = 2",
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.state),
            "NIX_CONFIG": "\n".join((*settings, "experimental-features = nix-command")),
        }

    @property
    def store(self) -> Path:
        return self.state / "nix"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, cwd=self.state, capture_output=True, text=True, check=False
        )

    def succeed(self, *command: str) -> list[str]:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def add_sources(self, directory: Path) -> None:
        entries = sorted(directory.iterdir())
        add = ("nix-store", "--store", str(self.store), "--add-fixed")
        self.succeed(*add, "sha256", *(str(entry) for entry in entries if entry.is_file()))
        self.succeed(*add, "--recursive", "sha256", *(str(entry) for entry in entries if entry.is_dir()))

    def instantiate(self, expression: str) -> subprocess.CompletedProcess[str]:
        self._evaluations += 1
        file = self.state / f"cutor{self._evaluations}.nix"
        file.write_text(f"{{ pkgs ? import <nixpkgs> {{ }} }}: with pkgs; {expression}")
        restricted = ("--option", "restrict-eval", "true", "--option", "allow-import-from-derivation", "false")
        where = ("--store", str(self.state / "evaluation"), "-I", f"nixpkgs={self.nixpkgs}", "-I", f"w={file}")
        return self.run("nix-instantiate", *where, *restricted, str(file))

    def realise(self, expression: str) -> list[str]:
        done = self.instantiate(expression)
        assert done.returncode == 0, done.stderr
        derivations = done.stdout.split()
        throwaway, store = str(self.state / "evaluation"), str(self.store)
        self.succeed("nix", "copy", "--derivation", "--from", throwaway, "--to", store, *derivations)
        return self.succeed("nix-store", "--store", store, "--realise", *derivations)

    def on_disk(self, path: str) -> Path:
        return self.store / path.lstrip("/")

    def jail(self, *command: str, stdin: str = "", **variables: str) -> str:
        """Run a command that sees only the store, /proc, /dev and an empty /tmp. Return its output."""
        flags = [
            "--unshare-all",
            "--die-with-parent",
            "--uid",
            "65534",
            "--gid",
            "65534",
            "--clearenv",
            "--chdir",
            "/tmp",
        ]
        mounts = ["--ro-bind", str(self.store / "nix/store"), "/nix/store", "--proc", "/proc", "--dev", "/dev"]
        settings = [word for item in variables.items() for word in ("--setenv", *item)]
        done = subprocess.run(
            ["bwrap", *flags, *mounts, "--tmpfs", "/tmp", *settings, *command],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    def in_shell(self, shell: str, script: str) -> str:
        """Run a script in the shell that nix-shell would enter for the expression."""
        [bash, captured] = self.realise(f"[ bash ({shell}) ]")
        # The build of mkShell wrote the variables down. spoold captures more of them in the same way.
        enter = f'source {captured}; source $stdenv/setup; eval "$shellHook"; {script}'
        return self.jail(f"{bash}/bin/bash", "-c", enter)


@pytest.fixture(scope="session")
def made(request: pytest.FixtureRequest) -> Path:
    given = os.environ.get("SPOOLD_TEST_NIXPKGS")
    if given:
        return Path(given)
    out = request.config.cache.mkdir("nixpkgs-debian") / "out"
    subprocess.run([str(MAKE), str(out)], check=True, timeout=300)
    return out


@pytest.fixture(scope="session")
def nix(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Nix:
    state = tmp_path_factory.mktemp("nixpkgs-debian")
    nixpkgs = state / "nixpkgs"
    shutil.copytree(made, nixpkgs, ignore=shutil.ignore_patterns("sources"))
    nix = Nix(state, nixpkgs)
    nix.add_sources(made / "sources")
    return nix


@pytest.fixture(scope="session")
def packages(nix: Nix) -> dict[str, str]:
    """Return all packages, built in one go so that Nix can build two at a time."""
    return dict(zip(PACKAGES, nix.realise(f"[ {' '.join(PACKAGES)} ]"), strict=True))


def path_of(packages: dict[str, str], names: Sequence[str]) -> str:
    return ":".join(f"{packages[name]}/bin" for name in names)


def test_an_out_that_is_up_to_date_stays_as_it_is(made: Path) -> None:
    if "SPOOLD_TEST_NIXPKGS" in os.environ:
        pytest.skip("the nixpkgs was given and may come from another recipe")
    before = (made.stat().st_ino, (made / "lock.json").read_bytes())
    done = subprocess.run([str(MAKE), str(made)], check=True, timeout=60, capture_output=True, text=True)
    assert "up to date" in done.stderr
    assert (made.stat().st_ino, (made / "lock.json").read_bytes()) == before


def test_make_leaves_a_directory_of_somebody_else_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run([str(MAKE), str(tmp_path)], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this program did not make it" in done.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_fails_for_each_package_is_told_in_a_few_lines(tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nseq -f 'E: no way to package-%g' 100 >&2\nexit 100\n")
    apt.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = [MAKE, tmp_path / "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": path, "XDG_CACHE_HOME": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "E: no way to package-1\n" in done.stderr
    assert "... and 96 lines more\n" in done.stderr
    assert "apt-get update" in done.stderr
    assert len(done.stderr.splitlines()) < 12


def test_the_basic_tools(nix: Nix, packages: dict[str, str]) -> None:
    script = """
        printf 'b 2\\na 1\\n' | sort | awk '{ print $2 $1 }' | sed s/1/one/ | grep onea
        mkdir d; echo text > d/f; tar -cf d.tar d; gzip -k d.tar; bzip2 -k d.tar; xz -k d.tar
        for z in gz bz2 xz; do tar -xf d.tar.$z -O; done
        find d -type f -exec cat {} +; diff d/f d/f && which ls > /dev/null && file --brief d/f
    """
    names = PACKAGES[: PACKAGES.index("gcc")]
    out = nix.jail(f"{packages['bash']}/bin/bash", "-ec", script, PATH=path_of(packages, names))
    assert out == "onea\n" + "text\n" * 4 + "ASCII text\n"


def test_python(nix: Nix, packages: dict[str, str]) -> None:
    program = """
import bz2, ctypes, curses, hashlib, lzma, multiprocessing, readline, sqlite3, ssl, sys, uuid, zlib
ssl.create_default_context()
assert ctypes.CDLL(None).getpid() > 0
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
assert hashlib.__spec__.cached and hashlib.__cached__.startswith("/nix/store/")
print("é", sys.executable)
"""
    python = f"{packages['python3']}/bin/python3"
    assert nix.jail(python, "-c", program, LC_ALL="C.UTF-8") == f"é {python}\n"
    cached = list(nix.on_disk(packages["python3"]).glob("lib/python3.*/__pycache__/json*.pyc"))
    assert cached or list(nix.on_disk(packages["python3"]).glob("lib/python3.*/json/__pycache__/decoder*.pyc"))


@pytest.mark.parametrize(
    ("compiler", "file", "program", "printed"),
    [
        ("gcc -O2 -Wall -Werror", "main.c", C_PROGRAM, "from C\n"),
        ("gcc -static", "main.c", C_PROGRAM, "from C\n"),
        ("g++ -O2 -Wall -Werror", "main.cc", CXX_PROGRAM, "from C++\n"),
        ("tcc", "main.c", C_PROGRAM, "from C\n"),
    ],
)
def test_compilers(  # noqa: PLR0917 - pytest passes them by name
    nix: Nix, packages: dict[str, str], compiler: str, file: str, program: str, printed: str
) -> None:
    script = f"cat > {file}; {compiler} -o program {file} && ./program"
    path = path_of(packages, ("coreutils", "gcc", "tinycc"))
    assert nix.jail(f"{packages['bash']}/bin/bash", "-c", script, stdin=program, PATH=path) == printed


@pytest.mark.parametrize(
    ("package", "command", "printed"),
    [
        ("perl", ["perl", "-MList::Util=sum", "-MPOSIX", "-e", "print floor(sum(1.5, 2))"], "3"),
        ("lua", ["lua", "-e", "print(6 * 7)"], "42\n"),
        ("jq", ["jq", "-n", "-c", "[1, 2] | add"], "3\n"),
        ("hello", ["hello"], "Hello, world!\n"),
        ("gnumake", ["make", "--eval", "all: ; $(info made)", "--silent"], "made\n"),
    ],
)
def test_programs(nix: Nix, packages: dict[str, str], package: str, command: list[str], printed: str) -> None:
    program = f"{packages[package]}/bin/{command[0]}"
    path = path_of(packages, ("bash", "coreutils"))
    assert nix.jail(program, *command[1:], PATH=path, SHELL=f"{packages['bash']}/bin/bash").startswith(printed)


def test_the_shell_has_its_packages_variables_and_hook(nix: Nix) -> None:
    shell = """mkShell {
        packages = [ jq ]; buildInputs = [ python3 ]; FOO = "a  b"; COUNT = 3;
        shellHook = "export HOOKED=yes";
    }"""
    script = 'printf "%s|%s|%s|" "$FOO" "$COUNT" "$HOOKED"; jq -n 1; python3 -c "print(2)"; type -P gcc || echo none'
    assert nix.in_shell(shell, script) == "a  b|3|yes|1\n2\nnone\n"


def test_a_shell_takes_over_what_another_one_has(nix: Nix) -> None:
    shell = """mkShell {
        inputsFrom = [ (mkShell { packages = [ hello ]; shellHook = "echo inner"; }) ];
        shellHook = "echo outer";
    }"""
    assert nix.in_shell(shell, "hello") == "inner\nouter\nHello, world!\n"


def test_a_shell_with_the_compiler_in_its_stdenv(nix: Nix) -> None:
    shell = 'mkShell.override { inherit stdenv; } { name = "mine"; }'
    assert nix.in_shell(shell, "gcc -dumpversion > /dev/null && type -P make > /dev/null && echo $name") == "mine\n"


def test_a_package_of_ones_own(nix: Nix, packages: dict[str, str]) -> None:
    package = """(callPackage ({ stdenv, lib }: stdenv.mkDerivation {
        pname = "tiny"; version = "1.0";
        src = runCommand "source" { } "mkdir $out; cp ${writeText "Makefile" (lib.concatStrings [
            "all:\\n\\techo 'int main(void) { return 7; }' > t.c\\n\\tcc -o tiny t.c\\n"
            "install:\\n\\tinstall -D tiny $(prefix)/bin/tiny\\n" ])} $out/Makefile";
        meta.description = "returns ${lib.concatStringsSep "" [ "seven" ]}";
    }) { })"""
    [tiny, greeting, joined] = nix.realise(f"""let tiny = {package}; in [ tiny
        (writeShellScriptBin "greeting" "echo hello from $0; ${{tiny}}/bin/tiny")
        (symlinkJoin {{ name = "joined"; paths = [ tiny jq ]; }}) ]""")
    bash = f"{packages['bash']}/bin/bash"
    script = f"{greeting}/bin/greeting || echo $?; {joined}/bin/tiny || echo $?; {joined}/bin/jq -n 1"
    assert nix.jail(bash, "-c", script) == f"hello from {greeting}/bin/greeting\n7\n7\n1\n"
    assert tiny.endswith("-tiny-1.0")


def test_what_the_packages_say_of_themselves(nix: Nix) -> None:
    file = nix.state / "attributes.nix"
    file.write_text(
        "let p = import <nixpkgs> { overlays = [ (self: super: { mine = super.jq.pname; }) ]; config = { }; };"
        "  l = import <nixpkgs/lib>;"
        "in [ p.mine p.python3.version p.hello.name p.hello.meta.description p.stdenv.isLinux"
        '  (l.makeBinPath [ "/a" ]) ]'
    )
    where = ("--store", str(nix.state / "evaluation"), "-I", f"nixpkgs={nix.nixpkgs}", "-I", f"w={file}")
    done = nix.run("nix-instantiate", "--eval", "--strict", "--option", "restrict-eval", "true", *where, str(file))
    assert done.returncode == 0, done.stderr
    values = done.stdout.strip().strip("[] ")
    assert values.startswith('"jq" "3.')
    assert '"hello-2.' in values
    assert values.endswith('true "/a/bin"')


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("pkgs.mkShell { packages = [ pkgs.nosuch ]; }", "attribute 'nosuch' missing"),
        ("mkShell { packages = [ nosuch ]; }", "undefined variable 'nosuch'"),
        ("python3.withPackages (ps: [ ps.nosuch ])", "attribute 'nosuch' missing"),
        ("python3.withPackages (ps: [ ps.flask ])", "spoold-nixpkgs-debian --with python3Packages.flask OUT"),
    ],
)
def test_what_is_not_there_is_named(nix: Nix, expression: str, message: str) -> None:
    done = nix.instantiate(expression)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_store_without_the_sources_says_so(nix: Nix, made: Path) -> None:
    done = nix.instantiate("hello")
    assert done.returncode == 0, done.stderr
    empty = str(nix.state / "empty")
    nix.succeed(
        "nix", "copy", "--derivation", "--from", str(nix.state / "evaluation"), "--to", empty, done.stdout.strip()
    )
    failed = nix.run("nix-store", "--store", empty, "--realise", done.stdout.strip())
    assert failed.returncode != 0
    assert "is not in this store: make the nixpkgs anew" in failed.stderr


def interpreter(file: Path) -> bytes | None:
    """Return PT_INTERP of a 64-bit little-endian ELF file. In every file from a linker the first page has it."""
    with file.open("rb") as stream:
        content = stream.read(64)
        if content[:6] != b"\x7fELF\x02\x01":
            return None
        number = functools.partial(int.from_bytes, byteorder="little")
        start, size, count = number(content[32:40]), number(content[54:56]), number(content[56:58])
        stream.seek(start)
        headers = stream.read(size * count)
        for at in (size * index for index in range(count)):
            if number(headers[at : at + 4]) == 3:
                stream.seek(number(headers[at + 8 : at + 16]))
                return stream.read(number(headers[at + 32 : at + 40])).rstrip(b"\0")
    return None


def test_no_program_starts_with_the_machines_own_linker(nix: Nix, packages: dict[str, str]) -> None:
    closure = nix.succeed("nix-store", "--store", str(nix.store), "--query", "--requisites", *packages.values())
    seen = 0
    for path in closure:
        for file in nix.on_disk(path).rglob("*"):
            if not file.is_symlink() and file.is_file():
                found = interpreter(file)
                seen += found is not None
                assert found is None or found.startswith(b"/nix/store/"), f"{file}: {found!r}"
    assert seen > 100


def test_closures_stay_small(nix: Nix, packages: dict[str, str]) -> None:
    def size(path: str) -> int:
        closure = nix.succeed("nix-store", "--store", str(nix.store), "--query", "--requisites", path)
        return sum(int(n) for n in nix.succeed("nix-store", "--store", str(nix.store), "--query", "--size", *closure))

    assert size(packages["bash"]) < 15e6
    assert size(packages["python3"]) < 65e6
    python = nix.succeed("nix-store", "--store", str(nix.store), "--query", "--requisites", packages["python3"])
    assert not any(packages[name] in python for name in ("gcc", "perl"))
