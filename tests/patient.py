"""spoolctl for tests whose machine may stand still: ``python -m tests.patient``, else as ``python -m spoold.cli.ctl``.

It waits as long as a test does until a file is taken in, before it says that nothing takes it in. The real one says so
after two seconds. Then what people read has one line more, and a refusal is not seen yet.
"""

from __future__ import annotations

import sys

from spoold.cli import ctl, waiting

PATIENT = [sys.executable, "-m", "tests.patient"]

if __name__ == "__main__":
    waiting.SOON = 100.0
    ctl.main()
