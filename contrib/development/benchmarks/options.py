"""The options of contrib/development/bench, which describes them; only what any Python has is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path

QUICK = 105.0  # seconds for all, of the 120 that are promised: the rest is for the engine to stop


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options; exits with 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="contrib/development/bench", add_help=False, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--json", type=Path, default=Path("spoold-bench.json"))
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--isolate")
    parser.add_argument("--go-judge")
    parser.add_argument("--piston")
    # What contrib/development/bench adds.
    parser.add_argument("--work", type=Path)
    parser.add_argument("--docker")
    parser.add_argument("--nixpkgs")
    parser.add_argument("--state")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds that went by before")
    options = parser.parse_args(words)
    options.chart = options.chart or options.json.with_suffix(".svg")
    for path in (options.json, options.chart):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path.absolute().parent} is no directory")
    return options


if __name__ == "__main__":
    parsed()
