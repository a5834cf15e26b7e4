"""Remote code execution whose only interface is a directory (see spool-layout.md).

The wheel ``spoold-client`` holds ``client/`` alone, without a file like this one beside it. So each of the two wheels
can be installed and removed without the other: this wheel brings its own copy of ``client/``, in another directory.
Where both wheels are installed, this wheel's copy is imported, since the daemons and ``spoolctl`` need the client of
their own version.
"""

import os

__path__.insert(0, os.path.join(os.path.dirname(__file__), "bundled"))
