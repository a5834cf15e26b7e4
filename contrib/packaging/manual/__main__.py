"""The command line of contrib/packaging/man, and the places of the files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from manual import completions, pages

USAGE = """\
usage: contrib/packaging/man DIR [PREFIX]

Writes the manual pages and the completions of bash, zsh and fish below DIR, where an installation is put together
(what make calls DESTDIR; give / to install them), with PREFIX (default: /usr) in between:

  DIR/PREFIX/share/man/man1/spoolctl.1            man8/spoold.8   man5/spoold.toml.5   man5/spool-layout.5
  DIR/PREFIX/share/bash-completion/completions/   spoolctl   spoold
  DIR/PREFIX/share/zsh/vendor-completions/        _spoolctl  _spoold   (site-functions/ where PREFIX is not /usr)
  DIR/PREFIX/share/fish/vendor_completions.d/     spoolctl.fish  spoold.fish

Pages are not compressed. Their date is $SOURCE_DATE_EPOCH, or today: so the same sources make the same bytes.
It needs a Python that has what spoold depends on:
  PYTHONPATH=/usr/lib/spoold python3 contrib/packaging/man debian/spoold
Exit codes: 0 written, 1 cannot be written, 2 wrong usage.
"""


def main() -> None:
    """Write all files."""
    words = sys.argv[1:]
    if words in (["-h"], ["--help"]):
        print(USAGE, end="")
        return
    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        sys.stderr.write(USAGE)
        sys.exit(2)
    prefix = words[1] if len(words) == 2 else "/usr"
    share = Path(words[0]) / prefix.lstrip("/") / "share"
    try:
        for path, text in files(prefix):
            (share / path).parent.mkdir(parents=True, exist_ok=True)
            (share / path).write_text(text)
            print(share / path)
    except OSError as error:
        sys.exit(f"contrib/packaging/man: {error}")


def files(prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the path below share/ and the text of each file."""
    for name, section, text in pages.all_pages():
        yield f"man/man{section}/{name}.{section}", text
    zsh = "vendor-completions" if prefix.rstrip("/") == "/usr" else "site-functions"
    places = {
        "bash": "bash-completion/completions/{}",
        "zsh": f"zsh/{zsh}/_{{}}",
        "fish": "fish/vendor_completions.d/{}.fish",
    }
    for shell, place in places.items():
        for name, text in completions.of_shell(shell):
            yield place.format(name), text


if __name__ == "__main__":
    main()
