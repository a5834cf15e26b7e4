"""spoolctl for a machine that may stand still: ``python -m tests.patient``, else as ``python -m spoold.cli.ctl``.

The real spoolctl says after two seconds that nothing takes the file in. That adds a line to its output, and it doesn't
see a later refusal. This one waits as long as a test does.
"""

from __future__ import annotations

import sys

from spoold.cli import ctl, waiting

PATIENT = [sys.executable, "-m", "tests.patient"]

if __name__ == "__main__":
    waiting.SOON = 100.0
    ctl.main()
