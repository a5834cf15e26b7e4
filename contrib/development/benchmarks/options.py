"""The options of contrib/development/bench, which describes them. Only the standard library is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path

PROMISED = 120.0  # seconds that --quick takes at most
QUICK = 105.0  # seconds of these for all but the engine's stop
PEERS_WITH_URL = ("go-judge", "piston")


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="contrib/development/bench", add_help=False, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true")
    what.add_argument("--growth", action="store_true")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--json", type=Path, default=Path("spoold-bench.json"))
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--isolate")
    parser.add_argument("--nsjail")
    parser.add_argument("--go-judge")
    parser.add_argument("--piston")
    parser.add_argument("--pid", type=_pid, action="append", default=[])
    # contrib/development/bench adds the following.
    parser.add_argument("--work", type=Path)
    parser.add_argument("--docker")
    parser.add_argument("--nixpkgs")
    parser.add_argument("--state")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds that the script took before this program")
    options = parser.parse_args(words)
    options.chart = options.chart or options.json.with_suffix(".svg")
    options.pids = dict(options.pid)
    if options.rate <= 0:
        parser.error("--rate must be more than 0")
    for name in options.pids:
        if not getattr(options, name.replace("-", "_")):
            parser.error(f"--pid {name}={options.pids[name]} needs --{name}")
    for path in (options.json, options.chart):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path.absolute().parent} is not a directory")
    return options


def _pid(word: str) -> tuple[str, int]:
    name, _, pid = word.partition("=")
    if name not in PEERS_WITH_URL or not pid.isdecimal():
        raise argparse.ArgumentTypeError(f"{word}: give NAME=PID, where NAME is one of {', '.join(PEERS_WITH_URL)}")
    return name, int(pid)


if __name__ == "__main__":
    parsed()
