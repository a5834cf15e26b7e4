"""Docker's SDK, loaded without what nothing here uses of it.

The SDK uses requests. That loads a library that guesses the encoding of text, which is 1.6 MB in each executor. The
engine answers in UTF-8, so nothing is ever guessed. A version of requests before 2.32 does not load without such a
library, and then gets it.

An engine at a Unix socket needs no TLS either. requests and urllib3 can do without Python's ``ssl``, which is 0.8 MB
more. Without it requests would look for OpenSSL's bindings, which may be installed and are larger still.
"""

from __future__ import annotations

import sys
import warnings

GUESSING = ("chardet", "charset_normalizer")
ENCRYPTING = ("ssl", "OpenSSL")


def load(*, encrypts: bool) -> None:
    """Load the SDK's part that is large. Call this before any other module imports the SDK.

    ``encrypts`` tells whether the engine may have to be reached by TLS.
    """
    hidden = [name for name in (*GUESSING, *(() if encrypts else ENCRYPTING)) if name not in sys.modules]
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")  # requests misses it
    sys.modules.update(dict.fromkeys(hidden))  # None means that there is no such module
    try:
        import requests  # noqa: F401, PLC0415 - only now
    except ImportError:
        pass  # the module that needs it loads it whole
    finally:
        for name in hidden:
            del sys.modules[name]
