"""Nix's messages, in the form that a client should read.

Theory of operation: the client knows one file, ``cutor.nix``, and has never seen the host. So that file goes by its own
name, and a file beside it by the path that it would have in the job's sandbox. Warnings that only concern the user who
started Nix are taken out, and so are the steps of evaluation before those in the client's file. Nix refuses some things
that are not possible here, such as a fetcher that fetches during evaluation. In that case a further line says what is
possible (``_HINTS``).
"""

from __future__ import annotations

import os
import re

from spoold.model.response import Stream
from spoold.nix.store import Store

_NOISE = re.compile(
    rb"^(?:warning: unable to load nss_dns backend"
    rb"|warning: you did not specify '--add-root'; .*"
    rb"|\(use '--show-trace' to show detailed location information\)"
    rb"| +\(stack trace truncated; use '--show-trace'.*\)\n"
    rb"|GC Warning: .*"
    rb")\n",
    re.MULTILINE,
)
# A step of evaluation in an expression of spoold's or of Nix's, with the source that newer versions quote.
_OWN_STEP = re.compile(
    r"^ +… .*\n +at (?:«string»|<nix/.*>|«nix-internal».*):\d+:\d+:\n(?: +\d* *\|.*\n)*(?: *\n)?".encode(), re.MULTILINE
)
_NO_STEPS = re.compile(rb"^error:\n\s*(?=error: )", re.MULTILINE)
# Nix's messages about what is not possible here, and the line that says what is. %s is the pattern's group.
_HINTS = (
    (
        rb"['(]/job/[^'\n]*[')]:? (?:No such file or directory|is a path that does not exist|does not exist)",
        (
            "cutor.nix is evaluated alone: it cannot import other files of the submission. Put their Nix code into "
            "it, and read their data in run.sh"
        ),
    ),
    (
        # or, for a repository of this machine, its place for copies of repositories
        rb"access to URI '[^'\n]*' is forbidden in restricted mode|creating directory '/nowhere[^'\n]*'",
        (
            "spoold: expressions are evaluated without network. Use a fetcher that is built, with a hash: "
            "pkgs.fetchurl for builtins.fetchurl, pkgs.fetchzip for builtins.fetchTarball, pkgs.fetchgit or "
            "pkgs.fetchFromGitHub for builtins.fetchGit and fetchTree. For a nixpkgs write <nixpkgs>: the request's "
            "nixpkgs chooses the pin"
        ),
    ),
    (
        rb"access to (?:absolute )?path '[^'\n]*' is forbidden in restricted mode",
        "spoold: an expression can read cutor.nix and <nixpkgs>, and no other file",
    ),
    (
        rb"during evaluation because the option 'allow-import-from-derivation' is disabled",
        (
            "spoold: what is built cannot be imported or read by an expression (import from derivation). Put its Nix "
            "code into cutor.nix, and use its files in the shell, by their paths. For a nixpkgs write <nixpkgs>: the "
            "request's nixpkgs chooses the pin"
        ),
    ),
    (
        rb"file 'nixpkgs/([^'\n]*)' was not found in the Nix search path",
        "spoold: this nixpkgs has no %s; write it without that file, or ask for another pin",
    ),
    (
        rb"file '(?!nixpkgs/)([^'\n]*)' was not found in the Nix search path",
        "spoold: <nixpkgs> is the only name of this kind. Write it for <%s>; the request's nixpkgs chooses the pin",
    ),
    (
        (
            rb"experimental Nix feature '[^'\n]*' is disabled"
            rb"|attribute '(?:getFlake|fetchTree|fetchClosure|parseFlakeRef|flakeRefToString|outputOf)' missing"
        ),
        "spoold: expressions cannot use flakes or other experimental features. Write a shell for <nixpkgs>",
    ),
    (
        rb"a '[^'\n]*' with features \{[^}\n]*\} is required to build|Required system: '",
        (
            "spoold: this host builds for its own kind of machine alone. Leave out system and crossSystem, and "
            "requiredSystemFeatures"
        ),
    ),
    (
        # In the words of a nixpkgs of today, of 2016, and of 2014.
        rb"NIXPKGS_ALLOW_(?:UNFREE|BROKEN|INSECURE)|, refusing to evaluate|has been marked as broken",
        (
            "spoold: no variable and no file of yours is read here. Write import <nixpkgs> { config = { ... }; }, with "
            "allowUnfree, allowBroken, allowUnsupportedSystem or permittedInsecurePackages in it"
        ),
    ),
    (
        rb"error: (?:attribute|undefined variable) '(mkShell\w*)'",
        (
            'this nixpkgs has no %s; write stdenv.mkDerivation { name = "shell"; buildInputs = [ ... ]; } in its place'
            ", or ask for another pin"
        ),
    ),
)
# The root of a build's sandbox. Newer versions of Nix have it in a directory of its own.
_CHROOT = re.compile(rb"/nix/store/[^/\s]*\.drv\.chroot(?:/root)?(?=/)")
_JAILED = re.compile(rb"(?<![^\s'\"(])/s(?=/nix/store/)")  # the jail's store
# The directory of a build: nix-build-NAME.drv-0, or in newer versions nix-PID-0, with a further one for the builder.
_BUILD = re.compile(rb"/build/[^/\s]*/nix-(?:build-[^/\s']*|\d+-\d+)(?:/build\b)?")


def for_client(stream: Stream, store: Store) -> Stream:
    """Return Nix's stderr without noise, and without paths that exist only on this host or in the jail."""
    text = _NO_STEPS.sub(b"", _OWN_STEP.sub(b"", _NOISE.sub(b"", stream.data)))
    hints = b"".join(hint for pattern, words in _HINTS if (hint := _hint(pattern, words, text)))
    text = text.replace(b"/job/cutor.nix", b"cutor.nix") + hints
    text = _JAILED.sub(b"", text.replace(os.fsencode(store.physical), b"/nix/store"))
    text = _CHROOT.sub(b"", text)
    text = _BUILD.sub(b"/build", text.replace(os.fsencode(store.temporary), b"/build"))
    return Stream(text, len(text) + max(0, stream.total - len(stream.data)))


def _hint(pattern: bytes, words: str, text: bytes) -> bytes:
    found = re.search(pattern, text)
    return b"" if found is None else words.encode().replace(b"%s", found.group(found.lastindex or 0)) + b"\n"


def joined(*streams: Stream) -> Stream:
    """Return all ``streams`` as one, one after the other."""
    return Stream(b"".join(stream.data for stream in streams), sum(stream.total for stream in streams))


def noted(stream: Stream, note: str) -> Stream:
    """Return ``stream`` with a note by spoold at its end."""
    line = f"spoold: {note}\n".encode()
    return joined(stream, Stream(line, len(line)))
