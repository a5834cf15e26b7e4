"""Shells as people write them for a real nixpkgs, and what a job in each prints with stand-ins for its packages.

``needs`` is an expression over ``pkgs`` that tells whether the nixpkgs can build the shell. An old or a bare nixpkgs
may lack something.
"""

from __future__ import annotations

from typing import NamedTuple


class Shell(NamedTuple):
    """One shell, a command that a job runs in it, and the command's output."""

    name: str
    text: str
    command: str
    prints: str
    needs: str = "pkgs ? mkShell"


MAKE = "{ pkgs ? import <nixpkgs> { } }:\npkgs.mkShell { %s }\n"
DERIVATION = '{ pkgs ? import <nixpkgs> { } }:\npkgs.stdenv.mkDerivation { name = "shell"; %s }\n'
ANY = "true"
PYTHON = "python3 -c 'print(6 * 7)'"
COMPILED = "printf 'int main(){return 42;}' > /tmp/a.c && gcc -o /tmp/a /tmp/a.c && { /tmp/a; echo $?; }"

SHELLS = (
    # -- shells for every nixpkgs
    Shell("derivation", DERIVATION % "buildInputs = [ pkgs.python3 ];", PYTHON, "42", "pkgs ? python3"),
    Shell("derivation: C", DERIVATION % "buildInputs = [ pkgs.gcc ];", COMPILED, "42", ANY),
    Shell("derivation: hook", DERIVATION % 'shellHook = "export A=hooked";', "echo $A", "hooked", ANY),
    Shell("derivation: native", DERIVATION % "nativeBuildInputs = [ pkgs.jq ];", "jq -n 6*7", "42", "pkgs ? jq"),
    Shell(
        "with, let, and a list",
        "with import <nixpkgs> { }; let tools = [ perl ]; in\n"
        'stdenv.mkDerivation rec { name = "env"; buildInputs = tools ++ lib.optional true gcc; WHO = name; }\n',
        "perl -e 'print $ENV{WHO}'",
        "env",
        "pkgs ? lib",
    ),
    Shell(
        "a wrapper script",
        DERIVATION % 'buildInputs = [ (pkgs.writeScriptBin "hi" "#!/bin/sh\\necho 42") ];',
        "hi",
        "42",
        # needs a nixpkgs that does not ask a cache for it
        '!((pkgs.writeScriptBin "x" "").allowSubstitutes or true)',
    ),
    Shell(
        "an override of an attribute",
        DERIVATION % 'buildInputs = [ pkgs.perl ]; FLAGS = toString [ "-a" "-b" ]; N = 42; Y = true; NO = null;',
        "echo $N$FLAGS$Y$NO",
        "42-a -b1",
        ANY,
    ),
    Shell("a file", DERIVATION % 'TEXT = pkgs.writeText "t" "42";', "cat $TEXT", "42", ANY),
    Shell(
        "passAsFile",
        DERIVATION % 'passAsFile = [ "long" ]; long = "42"; buildInputs = [ ];',
        "cat $longPath",
        "42",
        ANY,
    ),
    Shell(
        "an import of the pin once more",
        "{ nixpkgs ? <nixpkgs> }: let pkgs = import nixpkgs { config = { allowUnfree = true; }; }; in\n"
        'pkgs.stdenv.mkDerivation { name = "n"; buildInputs = [ (import <nixpkgs> { }).perl ]; }\n',
        "perl -e 'print 42'",
        "42",
        ANY,
    ),
    # -- shells in the style of today
    Shell("packages", MAKE % "packages = with pkgs; [ python3 jq ];", PYTHON, "42"),
    Shell("buildInputs", MAKE % "buildInputs = [ pkgs.gcc pkgs.perl ];", COMPILED, "42"),
    Shell("no compiler", MAKE.replace("mkShell", "mkShellNoCC") % "packages = [ pkgs.jq ];", "jq -n 6*7", "42"),
    Shell(
        "inputsFrom",
        MAKE % "inputsFrom = [ (pkgs.mkShell { packages = [ pkgs.jq ]; }) ]; packages = [ pkgs.perl ];",
        "jq -n 6*7",
        "42",
    ),
    Shell("withPackages", MAKE % "packages = [ (pkgs.python3.withPackages (ps: [ ps.requests ])) ];", PYTHON, "42"),
    Shell("an environment", MAKE % "packages = [ (pkgs.python3.buildEnv.override { }) ];", PYTHON, "42"),
    Shell(
        "an override",
        MAKE % "packages = [ (pkgs.jq.overrideAttrs (old: { doCheck = false; })) ];",
        "jq -n 6*7",
        "42",
    ),
    Shell(
        "an overlay",
        "let pkgs = import <nixpkgs> { overlays = [ (final: prev: { mine = prev.jq; }) ]; }; in\n"
        "pkgs.mkShell { packages = [ pkgs.mine ]; }\n",
        "jq -n 6*7",
        "42",
    ),
    Shell(
        "structured attributes",
        MAKE
        % '__structuredAttrs = true; words = [ "a" "b c" ]; shellHook = "export SEEN=${words[1]}";'.replace(
            "${", "\\${"
        ),
        "echo $SEEN",
        "b c",
    ),
    Shell(
        "a library path",
        MAKE
        % """packages = [ pkgs.python3 ];
        LD_LIBRARY_PATH = pkgs.lib.makeLibraryPath [ pkgs.stdenv.cc.cc pkgs.zlib ];
        shellHook = ''export LD_LIBRARY_PATH="''${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/opt/lib"'';""",
        f"{PYTHON} && echo ${{LD_LIBRARY_PATH##*:}}",
        "42\n/opt/lib",
    ),
    Shell(
        "an application of the shell",
        MAKE % 'packages = [ (pkgs.writeShellScriptBin "hi" "echo 42") (pkgs.writeShellApplication\n'
        '  { name = "ho"; text = "echo 43"; runtimeInputs = [ pkgs.jq ]; checkPhase = ""; }) ];',
        "hi && ho",
        "42\n43",
    ),
    Shell(
        "symlinkJoin",
        MAKE % 'packages = [ (pkgs.symlinkJoin { name = "all"; paths = [ pkgs.jq ]; }) ];',
        "jq -n 6*7",
        "42",
    ),
    Shell(
        "buildEnv", MAKE % 'packages = [ (pkgs.buildEnv { name = "all"; paths = [ pkgs.jq ]; }) ];', "jq -n 6*7", "42"
    ),
    Shell("runCommand", MAKE % 'MADE = pkgs.runCommand "made" { } "echo 42 > $out";', "cat $MADE", "42"),
    Shell("a shell of a package", MAKE % "inputsFrom = [ pkgs.jq ]; packages = [ pkgs.jq ];", "jq -n 6*7", "42"),
    Shell(
        "an input that is a function",
        "{ pkgs ? import <nixpkgs> { }, lib ? pkgs.lib, withJq ? true }:\n"
        "pkgs.mkShell { packages = lib.optionals withJq [ pkgs.jq ]; }\n",
        "jq -n 6*7",
        "42",
    ),
    Shell("a locale", MAKE % 'LC_ALL = "C.UTF-8"; packages = [ pkgs.glibcLocales ];', "echo $LC_ALL", "C.UTF-8"),
    Shell(
        "an FHS environment",
        DERIVATION % 'buildInputs = [ (pkgs.buildFHSEnv { name = "other"; targetPkgs = p: [ p.jq ]; }) ];',
        "type -t other",
        "file",
        "pkgs ? buildFHSEnv && pkgs ? bubblewrap",
    ),
    # -- further ways to write one
    Shell(
        "a system",
        "{ system ? builtins.currentSystem, pkgs ? import <nixpkgs> { inherit system; config = { }; } }:\n"
        'pkgs.stdenv.mkDerivation { name = "s"; buildInputs = [ pkgs.jq ]; }\n',
        "jq -n 6*7",
        "42",
        "pkgs ? jq",
    ),
    Shell(
        "mkShell of another stdenv",
        "with import <nixpkgs> { }; mkShell.override { stdenv = stdenvNoCC; } { A = 42; }",
        "echo $A",
        "42",
    ),
    Shell(
        "stdenvNoCC",
        'with import <nixpkgs> { }; stdenvNoCC.mkDerivation { name = "s"; nativeBuildInputs = [ jq ]; }',
        "jq -n 6*7",
        "42",
        "pkgs ? stdenvNoCC",
    ),
    Shell(
        "callPackage",
        "with import <nixpkgs> { }; callPackage ({ stdenv, jq, who ? 42 }:\n"
        '  stdenv.mkDerivation { name = "s"; buildInputs = [ jq ]; inherit who; }) { who = 43; }',
        "echo $(jq -n 6*7)$who",
        "4243",
        "pkgs ? jq",
    ),
    Shell(
        "a derivation that names itself",
        'with import <nixpkgs> { }; stdenv.mkDerivation (self: { pname = "a"; version = "1"; said = self.version; })',
        "echo $name/$said",
        "a-1/1",
        "pkgs.lib ? fileset",
    ),
    Shell(
        "env",
        DERIVATION % 'env = { A = "42"; }; buildInputs = [ pkgs.jq ];',
        "echo $A",
        "42",
        "pkgs.lib ? fileset",
    ),
    Shell(
        "a hook of several lines",
        DERIVATION % "shellHook = ''\n  export A=$(${pkgs.jq}/bin/jq -n '6*7')\n  greet() { echo $A; }\n'';",
        "echo $A",
        "42",
        "pkgs ? jq",
    ),
    Shell(
        "a filter of sources",
        DERIVATION % 'SRC = builtins.path { path = ./.; name = "src"; filter = path: type: type == "regular"; };',
        "ls $SRC",
        "cutor.nix",
        ANY,
    ),
    Shell(
        "clean sources",
        DERIVATION % "src = pkgs.lib.cleanSource ./.;",
        "ls $src",
        "cutor.nix",
        "pkgs.lib ? cleanSource",
    ),
    Shell(
        "callPackage of a text",
        "with import <nixpkgs> { }; callPackage (builtins.toFile \"p.nix\" ''\n"
        "  { stdenv, perl }: stdenv.mkDerivation { name = \"s\"; buildInputs = [ perl ]; }'') { }",
        "perl -e 'print 42'",
        "42",
        ANY,
    ),
    Shell(
        "symlinkJoin with a step",
        DERIVATION
        % """buildInputs = [ (pkgs.symlinkJoin
        { name = "a"; paths = [ pkgs.jq ];
          postBuild = "mkdir -p $out/bin; ln -s ${pkgs.jq}/bin/jq $out/bin/mine"; }) ];""",
        "mine -n 6*7",
        "42",
        # the function of early ones takes no set
        "pkgs ? symlinkJoin && pkgs ? jq && pkgs.lib ? fileset",
    ),
    Shell(
        "Python with an override",
        DERIVATION % "buildInputs = [ ((pkgs.python3.override { packageOverrides = self: super: {\n"
        "  requests = super.requests.overridePythonAttrs (old: { doCheck = false; }); }; })\n"
        "  .withPackages (ps: [ ps.requests ])) ];",
        PYTHON,
        "42",
        "pkgs.python3 ? pkgs && pkgs.python3.pkgs ? requests",
    ),
    Shell(
        "the shell of an environment of Python",
        "with import <nixpkgs> { }; (python3.withPackages (ps: [ ps.requests ])).env",
        PYTHON,
        "42",
        "pkgs.python3 ? withPackages && pkgs.python3.pkgs ? requests",
    ),
    Shell(
        "a package set that is extended",
        "with (import <nixpkgs> { }).extend (final: prev: { mine = prev.jq; });\n"
        'stdenv.mkDerivation { name = "s"; buildInputs = [ mine ]; }\n',
        "jq -n 6*7",
        "42",
        "pkgs ? extend && pkgs ? jq",
    ),
    Shell(
        "Rust",
        DERIVATION % 'buildInputs = [ pkgs.rustc pkgs.cargo ]; RUST_SRC_PATH = "${pkgs.rustPlatform.rustLibSrc}";',
        "[ -e $RUST_SRC_PATH ] && rustc",
        "stands in for rustc-wrapper",
        "pkgs ? rustc && pkgs ? rustPlatform",
    ),
    Shell("Go", DERIVATION % "buildInputs = [ pkgs.go ];", "go", "stands in for go", "pkgs ? go"),
    Shell(
        "Node",
        DERIVATION % "buildInputs = [ pkgs.nodejs ];",
        "nodejs",
        "stands in for nodejs",
        "pkgs ? nodejs",
    ),
    Shell(
        "Haskell",
        DERIVATION % "buildInputs = [ (pkgs.haskellPackages.ghcWithPackages (h: [ h.random ])) ];",
        "echo 42",
        "42",
        # an early one runs ghc-pkg, which the stand-in lacks
        "pkgs ? haskellPackages && pkgs.haskellPackages ? ghcWithPackages && pkgs ? stdenvNoCC",
    ),
    Shell(
        "TeX",
        DERIVATION % "buildInputs = [ (pkgs.texlive.combine { inherit (pkgs.texlive) scheme-small; }) ];",
        "echo 42",
        "42",
        "pkgs ? texlive && pkgs ? asymptote && pkgs.texlive ? combine",
    ),
    Shell(
        "Emacs",
        DERIVATION % "buildInputs = [ (pkgs.emacs.pkgs.withPackages (e: [ e.magit ])) ];",
        "echo 42",
        "42",
        "pkgs ? emacs && pkgs.emacs ? pkgs",
    ),
)


class Refused(NamedTuple):
    """A shell that people write elsewhere, and a part of what they read here."""

    name: str
    text: str
    says: str
    needs: str = "true"


REFUSED = (
    Refused(
        "flake-compat",
        "(import (let lock = builtins.fromJSON (builtins.readFile ./flake.lock); in fetchTarball\n"
        "  { url = lock.nodes.flake-compat.locked.url; sha256 = lock.narHash; }) { src = ./.; }).shellNix",
        "cutor.nix is evaluated alone",
    ),
    Refused(
        "a pin by URL",
        '{ pkgs ? import (fetchTarball "https://github.com/NixOS/nixpkgs/archive/0.tar.gz") { } }: pkgs.mkShell { }',
        "For a nixpkgs write <nixpkgs>",
    ),
    Refused("niv", "let s = import ./nix/sources.nix; in (import s.nixpkgs { }).mkShell { }", "is evaluated alone"),
    Refused("npins", "(import (import ./npins).nixpkgs { }).mkShell { }", "cutor.nix is evaluated alone"),
    Refused("a file", "with import <nixpkgs> { }; callPackage ./package.nix { }", "cutor.nix is evaluated alone"),
    Refused(
        "lib.fileset",
        DERIVATION % "src = pkgs.lib.fileset.toSource { root = ./.; fileset = ./src; };",
        "cutor.nix is evaluated alone",
        "pkgs.lib ? fileset",
    ),
    Refused(
        "the text of a flake",
        '{ inputs.nixpkgs.url = "github:NixOS/nixpkgs"; outputs = { self, nixpkgs }: { devShells = { }; }; }',
        "it is a flake, and expressions cannot use flakes here; write its shell alone",
    ),
    Refused("several shells", "with import <nixpkgs> { }; { a = perl; b = gcc; }", "a set of 2 attributes (a, b)"),
    Refused(
        "a nixpkgs by a fetcher of nixpkgs",
        'import ((import <nixpkgs> { }).fetchFromGitHub { owner = "NixOS"; repo = "nixpkgs"; rev = "x";\n'
        f'  sha256 = "{"0" * 52}"; }}) {{ }}',
        "For a nixpkgs write <nixpkgs>",
        "pkgs ? fetchFromGitHub",
    ),
    Refused("a flake", '(builtins.getFlake "github:NixOS/nixpkgs").legacyPackages.x.hello', "cannot use flakes"),
    Refused("another channel", "with import <nixpkgs-unstable> { }; mkShell { }", "Write it for <nixpkgs-unstable>"),
    Refused("a file at home", "import /home/ada/shell.nix", "can read cutor.nix and <nixpkgs>"),
    Refused("a list", "with import <nixpkgs> { }; [ perl gcc ]", "put packages into one shell, such as"),
    Refused(
        "a file for callPackage",
        '{ stdenv, perl }: stdenv.mkDerivation { name = "s"; buildInputs = [ perl ]; }',
        "or have pkgs.callPackage call the function",
    ),
    Refused("a repository beside it", "import (builtins.fetchGit ./.)", "pkgs.fetchgit or pkgs.fetchFromGitHub"),
    Refused(
        "an import of what is built",
        DERIVATION % 'A = import (pkgs.writeText "x" "42");',
        "cannot be imported or read by an expression",
    ),
    Refused(
        "a licence",
        DERIVATION % 'A = pkgs.stdenv.mkDerivation { name = "a-1"; meta.license = pkgs.lib.licenses.unfree; };',
        "Write import <nixpkgs> { config = { ... }; }",
        "pkgs ? stdenvNoCC",
    ),
)
