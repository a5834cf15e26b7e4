"""What systemd knows about a unit."""

from __future__ import annotations

import os

from spoold.host import proc

SYSTEMD = "/run/systemd/system"  # exists where systemd is process 1, see sd_booted(3)
QUICK = proc.Bounds(wall=10, stdout=4096, stderr=4096)


def properties(unit: str, *names: str) -> dict[str, str]:
    """Return these properties of a unit by name, none where there is no such unit, or no systemd."""
    if not os.path.isdir(SYSTEMD):
        return {}
    asked = ",".join(["LoadState", *names])
    said = proc.run(["systemctl", "show", f"--property={asked}", unit], QUICK).stdout.data.decode(errors="replace")
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return found if found.pop("LoadState", "") == "loaded" else {}
