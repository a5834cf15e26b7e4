"""The commands of the page about upgrading, on the spool and state of version 0.1."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests import frozen
from tests.docs import units
from tests.docs.shell import Reader
from tests.docs.test_elsewhere import program
from tests.docs.test_guides import DOCS, programs, variables
from tests.engines import REPOSITORY
from tests.test_upgrade import OUTCOMES
from tests.waiting import until

# Settings of 0.1, where `mode` has another place than today.
SETTINGS = """
[spool]
path = "{place}/spool"
settle = 60.0
scan = 0.5

[lease]
renewal = 0.5
limit = 60.0
check = 0.5
pause = 0.5

[docker]
mode = "recycled"

[nix]
state = "{place}/state"

[nixpkgs]
default = "/srv/nixpkgs"
"""
ROLES = {"spoold-intake": "intake", "spoold-executor@1": "executor", "spoold-builder": "builder"}


def test_the_page_about_upgrading(tmp_path: Path) -> None:
    """Nothing that 0.1 had on its way is lost. The old settings stay for people who go back."""
    spool = frozen.spool(tmp_path / "spool")
    frozen.nix_state(tmp_path / "state", group=None)
    config = tmp_path / "spoold.toml"
    config.write_text(SETTINGS.format(place=tmp_path))
    roles = {**ROLES, "spoold-health": "health"}
    commands = {name: [sys.executable, "-m", "tests.docs.plain", str(config), role] for name, role in roles.items()}
    state = tmp_path / "units"
    made = units.write(state, {"spoold.target": commands, **commands})
    bin_ = programs(tmp_path / "bin")
    program(bin_ / "systemctl", f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.docs.units {state} "$@"')
    shell = variables(bin_, SPOOLD_CONFIG=str(config), PYTHONPATH=str(REPOSITORY))
    places = {
        "/etc/spoold": str(tmp_path),
        "/var/lib/spoold": str(tmp_path / "state"),
        "/var/spool/spoold": str(spool),
    }
    try:
        with Reader(tmp_path / "hosts", {"here": shell}, places) as reader:
            reader.follow(DOCS / "upgrading.md")
        assert "\n[sandbox]\n" in (tmp_path / "spoold-0.2.toml").read_text()
        assert config.read_text() == SETTINGS.format(place=tmp_path)
        assert (tmp_path / "state-0.2/nix/nix/store").is_dir()
        made.start("spoold.target")  # for files that were not taken in yet
        responses = {id_: spool / "done" / f"{id_}.response.json" for id_ in OUTCOMES}
        until(lambda: all(path.exists() for path in responses.values()), lambda: str(sorted(spool.rglob("*"))))
        found = {id_: json.loads(path.read_bytes())["status"] for id_, path in responses.items()}
        assert found == OUTCOMES
    finally:
        made.stop("spoold.target")
