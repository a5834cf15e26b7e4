"""Commands are imported when they are called. Completion in a shell calls none of them."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_shell_completes_commands_without_importing_them() -> None:
    code = "import sys\nfrom spoold.cli import ctl\ntry: ctl.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    words = {"_SPOOLCTL_COMPLETE": "bash_complete", "COMP_WORDS": "spoolctl st", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=True
    )
    assert done.stdout == "plain,status\n"
    assert not {"rich", "msgspec", "spoold.cli.status"} & set(done.stderr.split())
