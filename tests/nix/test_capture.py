"""A captured shell equals nix-shell --pure, variable by variable."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from spoold.nix.build import NixBuilder
from tests.engines import SLOWNESS
from tests.nix import room

pytestmark = pytest.mark.nix

# Variables that nix-shell sets from its caller, and those of its own temporary directory and of bash.
NOT_COMPARED = {
    "HOME", "TERM", "SHLVL", "TMP", "TMPDIR", "TEMP", "TEMPDIR", "NIX_BUILD_TOP", "PWD", "OLDPWD", "_", "USER",
    "LOGNAME", "NIX_BUILD_SHELL", "rawPath", "__ETC_PROFILE_SOURCED",
}  # fmt: skip
# The last two belong to nix-shell's temporary directory.
OWNED_BY_BASH = {
    "BASH", "BASHOPTS", "BASHPID", "BASH_ALIASES", "BASH_ARGC", "BASH_ARGV", "BASH_ARGV0", "BASH_CMDS",
    "BASH_COMMAND", "BASH_ENV", "BASH_EXECUTION_STRING", "BASH_LINENO", "BASH_LOADABLES_PATH", "BASH_REMATCH",
    "BASH_SOURCE", "BASH_SUBSHELL", "BASH_VERSINFO", "BASH_VERSION", "COLUMNS", "COMP_WORDBREAKS", "DIRSTACK",
    "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "HOSTNAME", "HOSTTYPE", "IFS",
    "LINENO", "LINES", "MACHTYPE", "OPTARG", "OPTERR", "OPTIND", "OSTYPE", "PIPESTATUS", "PPID", "PS4",
    "RANDOM", "SECONDS", "SHELLOPTS", "SRANDOM", "UID", "__letter", "__name", "exitHooks", "failureHooks",
}  # fmt: skip

EXPRESSION = r"""{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell {
  packages = [ pkgs.python3 pkgs.jq ];
  plain = "a b  c";
  number = 7;
  yes = true;
  no = false;
  nothing = null;
  list = [ "x" 1 pkgs.jq ];
  newline = "first\nsecond\n";
  control = "tab\tCONTROL dollar $HOME `id` quote ' \" back \\ end";
  unicode = "zwölf ☃";
  assignment = "x=y\nz=w";
  raw = "kept in a file\nwith 'quotes'\n";
  passAsFile = [ "raw" ];
  shellHook = ''
    export FROM_HOOK="$plain"
    greet() { echo "hello $1"; }
    export -f greet
    declare -gA table=([one]=1 ["two words"]=$'2\n2')
    words=(a "b c" $'d\ne')
    unexported="only here"
    export PATH="/from/hook:$PATH"
  '';
}
""".replace("CONTROL", "\x07\x01\x1b[31m\x7f")

ENVIRONMENT = "env -0"
DECLARATIONS = """
for __letter in {a..z} {A..Z} _; do eval 'set -- "${!'"$__letter"'@}"'; for __name; do
    declare -p "$__name" > /dev/null 2>&1 || continue
    printf '%s\\0%s\\0' "$__name" "$(declare -p "$__name")"
done; done
"""
FUNCTIONS = "declare -f | { read -r -d '' all; printf %s \"$all\"; }"


# Every form that a cutor.nix may have, one by one.
EXPRESSIONS = {
    "buildInputs": "with import <nixpkgs> { }; mkShell { buildInputs = [ python3 jq ]; }",
    "nativeBuildInputs": "with import <nixpkgs> { }; mkShell { nativeBuildInputs = [ gcc ]; buildInputs = [ lua ]; }",
    "packages": "with import <nixpkgs> { }; mkShell { packages = [ gcc python3 ]; }",
    "propagated": """with import <nixpkgs> { }; mkShell {
        propagatedBuildInputs = [ jq ]; propagatedNativeBuildInputs = [ lua ]; }""",
    "inputsFrom and hooks": """with import <nixpkgs> { }; mkShell {
        inputsFrom = [ (mkShell { packages = [ jq ]; A = 1; shellHook = "export FIRST=1; f() { echo f; }"; }) hello ];
        shellHook = "export SECOND=$FIRST"; }""",
    "hook with functions": """with import <nixpkgs> { }; mkShell { shellHook = ''
        say() { local x=$1; printf '%s\\n' "$x"; }
        export -f say
        quiet() { :; }
        export HOOK="$(say "a b")"
        declare -ga list=(1 "2 3"); declare -gA map=([k]="v w"); declare -gi number=7; declare -gr constant=x
        declare -gx exported=$'tab\\there'
        set -- changed; IFS=,; shopt -s extglob; umask 027; alias ll=ls
        ''; }""",
    "empty": 'with import <nixpkgs> { }; mkShell { A = 1; shellHook = ""; }',
    "characters": r"""with import <nixpkgs> { }; mkShell {
        newline = "a\n\nb\n"; trailing = "a "; quotes = "'\"`$(id)\\"; hash = "#x"; tilde = "~"; star = "*";
        bell = "BELL"; latin = "é☃"; empty = ""; carriage = "a\r\n"; }""".replace("BELL", "\x07\x01\x1b[1m\x7f"),
    "values": """with import <nixpkgs> { }; mkShell {
        i = 1; f = 1.5; t = true; n = null; l = [ 1 "a b" true ]; nested = [ [ 1 ] [ 2 3 ] ];
        p = jq; o = jq.outPath; }""",
    "name": 'with import <nixpkgs> { }; mkShell { name = "my-shell"; packages = [ jq ]; }',
    "stdenv and a hook": """with import <nixpkgs> { }; mkShell.override { stdenv = stdenvNoCC; } {
        packages = [ jq ]; shellHook = "export CC_IS=\\${CC-none}"; }""",
    "stdenv of one's own": """with import <nixpkgs> { }; derivation {
        name = "own"; system = builtins.currentSystem; builder = "/bin/sh"; A = "1";
        stdenv = runCommand "stdenv" { }
            "mkdir $out; echo 'export B=$A-2; f() { echo f; }; unexported=1' > $out/setup"; }""",
    "function": "{ pkgs ? import <nixpkgs> { }, x ? 1, inNixShell ? false }: pkgs.mkShell { X = x; IN = inNixShell; }",
    "derivation": """derivation {
        name = "plain"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "x" ];
        A = "a b"; PATH = "/p"; }""",
    "outputs": """with import <nixpkgs> { }; stdenv.mkDerivation {
        name = "several"; outputs = [ "out" "dev" ]; buildInputs = [ jq ]; buildPhase = "echo b"; }""",
    "package": "(import <nixpkgs> { }).hello",
    "list": "[ ((import <nixpkgs> { }).mkShell { A = 1; }) ]",
    "names": """with import <nixpkgs> { }; mkShell {
        "a-b" = "dash"; "c.d" = "dot\n"; "1e" = "digit"; "with space" = "s"; "-x" = "option"; "é" = "accent";
        "x%%" = "() { :; }"; "BASH_FUNC_g%%" = "() { echo g; }"; normal = "n"; "a[$(id)]" = "s"; "q'\\"" = "q"; }""",
    "names of the system": """with import <nixpkgs> { }; mkShell {
        HOME = "/own/home"; LANG = "C.UTF-8"; TZ = "UTC"; PS1 = "$ "; TERM = "own"; USER = "own";
        MAKEFLAGS = "-j2"; }""",
}


@pytest.fixture(scope="module")
def captured(nix_builder: NixBuilder) -> str:
    """Return the shell of the expression, built and captured."""
    result = room.build(nix_builder, EXPRESSION)
    assert result.shell, result.phase.stderr
    return result.shell


@pytest.fixture(scope="module")
def expression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same expression as a file for nix-shell."""
    path = tmp_path_factory.mktemp("expression") / "cutor.nix"
    path.write_text(EXPRESSION)
    return path


def test_the_environment_is_that_of_nix_shell(nix_builder: NixBuilder, captured: str, expression: Path) -> None:
    ours = _environment(room.enter(nix_builder, captured, ENVIRONMENT))
    theirs = _environment(room.nix_shell(nix_builder, expression, ENVIRONMENT))
    assert ours == theirs
    assert ours["FROM_HOOK"] == "a b  c"
    assert "BASH_FUNC_greet%%" in ours


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_each_kind_of_expression_enters_as_in_nix_shell(nix_builder: NixBuilder, tmp_path: Path, name: str) -> None:
    file = tmp_path / "cutor.nix"
    file.write_text(EXPRESSIONS[name])
    result = room.build(nix_builder, EXPRESSIONS[name])
    assert result.shell, result.phase.stderr
    environment = [f"{room.runtime_of(nix_builder).coreutils}/bin/env", "-0"]
    all_of_it = f"{' '.join(environment)}; printf '\\0==\\0'; {DECLARATIONS} printf '\\0==\\0'; {FUNCTIONS}"
    theirs = room.nix_shell(nix_builder, file, all_of_it).split(b"\0==\0")
    ours = room.execute(nix_builder, result.shell, *environment)
    assert _environment(ours) == _environment(theirs[0])
    if "hook" in name:  # without a hook nothing could show what is not exported
        ours = room.enter(nix_builder, result.shell, f"{DECLARATIONS} printf '\\0==\\0'; {FUNCTIONS}")
        assert _declarations(ours.split(b"\0==\0")[0]) == _declarations(theirs[1])
        assert ours.split(b"\0==\0")[1].decode() == _without_cleaner(theirs[2].decode())


def test_the_files_of_attributes(nix_builder: NixBuilder) -> None:
    words = 'passAsFile = [ "long" "other" ]; long = "first\\nsecond"; other = "";'
    captured = room.shell(nix_builder, words)
    printed = room.execute(nix_builder, captured, "/bin/sh", "-c", 'cat "$longPath"; wc -c < "$otherPath"; env')
    assert printed.startswith(b"first\nsecond0\n")
    assert b"\nlong=" not in printed


def _environment(printed: bytes) -> dict[str, str]:
    pairs = (entry.partition("=")[::2] for entry in printed.decode().split("\0") if entry)
    return {name: value for name, value in pairs if name not in NOT_COMPARED}


def test_the_variables_of_bash_are_those_of_nix_shell(nix_builder: NixBuilder, captured: str, expression: Path) -> None:
    ours = _declarations(room.enter(nix_builder, captured, DECLARATIONS))
    theirs = _declarations(room.nix_shell(nix_builder, expression, DECLARATIONS))
    assert ours == theirs
    assert {"table", "words", "unexported"} <= set(ours)


def _declarations(printed: bytes) -> dict[str, str]:
    words = printed.decode().split("\0")
    pairs = zip(words[0::2], words[1::2], strict=False)
    return {name: value for name, value in pairs if name not in NOT_COMPARED | OWNED_BY_BASH}


def test_the_functions_are_those_of_nix_shell(nix_builder: NixBuilder, captured: str, expression: Path) -> None:
    ours = room.enter(nix_builder, captured, FUNCTIONS).decode()
    theirs = room.nix_shell(nix_builder, expression, FUNCTIONS).decode()
    assert ours == _without_cleaner(theirs)


def _without_cleaner(functions: str) -> str:
    """Leave out the function that nix-shell uses for its own temporary directory."""
    cleaner = functions.index("_nix_shell_clean_tmpdir")
    return functions[:cleaner] + functions[functions.index("\n}\n", cleaner) + 3 :]


def test_values_survive(nix_builder: NixBuilder, captured: str) -> None:
    script = """python3 -c '
import os
e = os.environ
print([e["newline"], e["control"], e["unicode"], e["assignment"], e["no"], open(e["rawPath"]).read(), e.get("raw")])'"""
    values = eval(room.enter(nix_builder, captured, script))  # noqa: S307 - the script's output is a list of our own
    assert values == [
        "first\nsecond\n",
        "tab\t\x07\x01\x1b[31m\x7f dollar $HOME `id` quote ' \" back \\ end",
        "zwölf ☃",
        "x=y\nz=w",
        "",
        "kept in a file\nwith 'quotes'\n",
        None,
    ]


def test_positional_parameters_are_left_alone(nix_builder: NixBuilder) -> None:
    for attributes in ("", "shellHook = ''set -- changed; shift'';"):
        captured = room.shell(nix_builder, attributes)
        assert room.enter(nix_builder, captured, 'printf "%s|" "$@"', "a b", "", "c") == b"a b||c|"


def test_without_a_hook_only_what_is_exported_is_read(nix_builder: NixBuilder) -> None:
    captured = room.shell(nix_builder, "packages = [ pkgs.python3 ]; A = 1;")
    text = nix_builder.store.on_disk(captured).joinpath("enter.sh").read_text()
    assert "runHook" not in text
    assert room.enter(nix_builder, captured, "python3 -c 'import os; print(os.environ[\"A\"])'") == b"1\n"


def test_no_secret_of_the_build_is_left(nix_builder: NixBuilder) -> None:
    captured = room.shell(nix_builder, "")
    names = set(room.enter(nix_builder, captured, "compgen -e").decode().split())
    assert not names & {"HOME", "TMPDIR", "NIX_BUILD_TOP", "NIX_LOG_FD", "TEMP", "NIX_ENFORCE_PURITY", "TZ"}


def test_a_home_that_the_shell_names(nix_builder: NixBuilder) -> None:
    captured = room.shell(nix_builder, 'HOME = "/own/home";')
    assert b"\0HOME=/own/home\0" in b"\0" + room.execute(nix_builder, captured, "env", "-0")


def test_a_name_that_bash_cannot_set_gives_way_to_the_requests(nix_builder: NixBuilder) -> None:
    captured = room.shell(nix_builder, '"a-b" = "from the shell"; "c-d" = "kept"; shellHook = "set -- x";')
    printed = room.execute(nix_builder, captured, "a-b=from the request", "env")
    assert b"\na-b=from the request\n" in printed
    assert b"\nc-d=kept\n" in printed
    assert b"from the shell" not in printed


def test_structured_attributes(nix_builder: NixBuilder) -> None:
    result = room.build(nix_builder, room.STRUCTURED)
    assert result.shell, result.phase.stderr
    assert room.enter(nix_builder, result.shell, "echo $SEEN") == b"b c/v w\n"


def test_the_output_refers_to_every_input(nix_builder: NixBuilder) -> None:
    captured = room.shell(nix_builder, 'packages = [ pkgs.jq ]; hidden = "${pkgs.which}"; shellHook = "unset hidden";')
    closure = nix_builder.store.ask(["nix-store", "-qR", captured])
    assert "-jq-" in closure
    assert "-which-" in closure


@pytest.mark.parametrize(
    ("attributes", "most"), [("A = 1;", 0.004), ("A = 1; shellHook = ''export B=2'';", 0.008)], ids=["plain", "hook"]
)
def test_entering_is_quick(nix_builder: NixBuilder, attributes: str, most: float) -> None:
    """The limit is CPU time, because other processes don't count in it."""
    captured = room.shell(nix_builder, attributes)
    script = f"for i in {{1..50}}; do (. {captured}/enter.sh); done; times"
    *_, user, system = room.enter(nix_builder, captured, script).decode().split()
    seconds = [float(word.partition("m")[2].removesuffix("s")) for word in (user, system)]
    assert sum(seconds) / 50 < most * 3 * SLOWNESS


def test_the_hook_does_not_run_on_the_host(nix_builder: NixBuilder, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    result = room.build(nix_builder, room.SHELL % f"shellHook = ''echo touched > {canary}; echo ran'';")
    captured = result.shell
    assert "\nran\n" not in result.phase.stderr, "the hook doesn't run in the build either"
    time.sleep(0.1)
    assert canary.read_text() == "untouched"
    assert room.enter(nix_builder, captured, ":", binds=("--dir", str(tmp_path))) == b"ran\n"
    assert canary.read_text() == "untouched"


def test_a_path_that_setup_does_not_export_is_for_programs_all_the_same(nix_builder: NixBuilder) -> None:
    """nixpkgs did not export it until 2014."""
    expression = """with import <nixpkgs> { }; derivation {
        name = "early"; system = builtins.currentSystem; builder = "/bin/sh"; inherit jq;
        stdenv = runCommand "stdenv" { } "mkdir $out; echo 'PATH=$jq/bin' > $out/setup"; }"""
    result = room.build(nix_builder, expression)
    assert result.shell, result.phase.stderr
    bash = f"{room.runtime_of(nix_builder).bash}/bin/bash"
    assert room.execute(nix_builder, result.shell, bash, "-c", "jq -n 6*7") == b"42\n"
