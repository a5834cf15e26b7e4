"""Remote code execution whose only interface is a directory (see spool-layout.md).

The wheel ``spoold-client`` has ``client/`` alone, beside which there is no such file as this. So each of the two wheels
may come and go without the other: this one brings a copy of its own, elsewhere. Where both are installed, it is this
copy that is imported, since the daemons and ``spoolctl`` stand on the client of their own version.
"""

import os

__path__.insert(0, os.path.join(os.path.dirname(__file__), "bundled"))
