"""The command of contrib/development/storm, which describes it."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from spoold.config import NixSettings, Settings
from tests.storms import rates, run
from tests.storms.field import PLAIN, Field


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="contrib/development/storm", add_help=False, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--submissions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--engine", choices=("oci", "plain"), default="oci")
    parser.add_argument("--rates", action="store_true")
    # contrib/development/storm adds the following.
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--state")
    parser.add_argument("--nixpkgs")
    given = parser.parse_args(words)
    if given.minutes <= 0 or given.submissions < 1 or given.lease <= 0:
        parser.error("--minutes, --submissions and --lease are more than 0")
    if given.engine == "oci" and not given.rates and os.geteuid() != 0:
        parser.error("programs in sandboxes need root here: use --engine plain")
    return given


def main() -> int:
    """Run one storm, and say what it did and found."""
    given = parsed()
    if given.check:
        return 0
    if given.rates:
        print(json.dumps(rates.measure(say), indent=2))
        return 0
    settings = PLAIN
    if given.engine == "oci":
        settings = replace(Settings(nixpkgs={"default": given.nixpkgs}), nix=NixSettings(state=given.state))
    say(f"a storm of {given.minutes:g} minutes over {given.submissions} submissions; --seed {given.seed} repeats it")
    place = Path(tempfile.mkdtemp(prefix="spoold-storm."))
    place.chmod(0o711)
    field = Field(place, given.engine, settings, given.lease)
    try:
        report = run.blow(field, run.Plan(given.submissions, given.minutes, given.seed), say)
    except BaseException:
        say(f"it failed; logs are kept in {place}")
        run.after(field)
        raise
    faults = report.faults + run.after(field)
    for name, count in sorted(report.blows.items()):
        say(f"{count:5} x {name}")
    say(
        f"{report.answers} answers after {report.seconds:.0f} s; {report.lost} attempts were lost with killed pilots, "
        f"{report.unseen} of them within a tenth of a second after they had begun"
    )
    for fault in faults:
        say(f"WRONG: {fault}")
    if faults:
        say(f"{len(faults)} faults; logs are kept in {place}")
        return 1
    say("each submission has one right answer, and nothing is left")
    shutil.rmtree(place)
    return 0


def say(what: str) -> None:
    """Tell a person."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
