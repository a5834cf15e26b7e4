"""Nix's messages, in the form that a client should read.

Theory of operation: the client knows one file, ``cutor.nix``, and has never seen the host. So that file goes by its own
name, and a file beside it by the path that it would have in the job's sandbox. Warnings that only concern the user who
started Nix are taken out, and so are the steps of evaluation before those in the client's file. Nix refuses some things
that are not possible here, such as a fetcher that fetches during evaluation. In that case a further line says what is
possible.
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
# Of Nix 2.8, and of newer versions.
_SIBLING = re.compile(rb"'/job/[^'\n]*': No such file or directory|path '/job/[^'\n]*' does not exist")
_ALONE = b"cutor.nix is evaluated alone: it cannot import other files of the submission\n"
# Nix's messages about fetchers that fetch during evaluation, and about expressions that have to be built first.
_URI = re.compile(rb"access to URI '[^'\n]*' is forbidden in restricted mode")
_IMPORTED = re.compile(rb"during evaluation because the option 'allow-import-from-derivation' is disabled")
_PINNED = (
    b"spoold: expressions are evaluated without network. Use a fetcher that is built, with a hash: pkgs.fetchurl for "
    b"builtins.fetchurl, pkgs.fetchzip for builtins.fetchTarball, pkgs.fetchgit or pkgs.fetchFromGitHub for "
    b"builtins.fetchGit and fetchTree\n"
)
_IMPORTING = (
    b"spoold: what is built cannot be imported or read by an expression (import from derivation). Put its Nix code "
    b"into cutor.nix, and use its files in the shell, by their paths\n"
)
_NO_SHELL = re.compile(rb"error: (?:attribute|undefined variable) '(mkShell\w*)'")
_DERIVATION = (
    b'this nixpkgs has no %s; write stdenv.mkDerivation { name = "shell"; buildInputs = [ ... ]; } in its place, or ask'
    b" for another pin\n"
)
_CHROOT = re.compile(rb"/nix/store/[^/\s]*\.drv\.chroot(?=/)")
# The directory of a build: nix-build-NAME.drv-0, or in newer versions nix-PID-0, with a further one for the builder.
_BUILD = re.compile(rb"/build/[^/\s]*/nix-(?:build-[^/\s']*|\d+-\d+)(?:/build\b)?")


def for_client(stream: Stream, store: Store) -> Stream:
    """Return Nix's stderr without noise, and without paths that exist only on this host or in the jail."""
    text = _NO_STEPS.sub(b"", _OWN_STEP.sub(b"", _NOISE.sub(b"", stream.data)))
    alone = _ALONE if _SIBLING.search(text) else b""
    alone += _PINNED if _URI.search(text) else b""
    alone += _IMPORTING if _IMPORTED.search(text) else b""
    no_shell = _NO_SHELL.search(text)
    alone += _DERIVATION % no_shell.group(1) if no_shell else b""
    text = text.replace(b"/job/cutor.nix", b"cutor.nix") + alone
    text = _CHROOT.sub(b"", text.replace(os.fsencode(store.physical), b"/nix/store"))
    text = _BUILD.sub(b"/build", text.replace(os.fsencode(store.temporary), b"/build"))
    return Stream(text, len(text) + max(0, stream.total - len(stream.data)))


def joined(*streams: Stream) -> Stream:
    """Return all ``streams`` as one, one after the other."""
    return Stream(b"".join(stream.data for stream in streams), sum(stream.total for stream in streams))


def noted(stream: Stream, note: str) -> Stream:
    """Return ``stream`` with a note by spoold at its end."""
    line = f"spoold: {note}\n".encode()
    return joined(stream, Stream(line, len(line)))
