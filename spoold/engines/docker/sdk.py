"""Docker's SDK, loaded without what nothing here uses of it.

The SDK uses requests. That loads a library that guesses the encoding of text, which is 1.6 MB in each executor. The
engine answers in UTF-8, so nothing is ever guessed. A version of requests before 2.32 does not load without such a
library, and then gets it.
"""

from __future__ import annotations

import sys
import warnings

GUESSING = ("chardet", "charset_normalizer")


def load() -> None:
    """Load the SDK's part that is large. Call this before any other module imports the SDK."""
    hidden = [name for name in GUESSING if name not in sys.modules]
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")  # requests misses it
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None means that there is no such module
    try:
        import requests  # noqa: F401, PLC0415 - only now
    except ImportError:
        pass  # the module that needs it loads it whole
    finally:
        for name in hidden:
            del sys.modules[name]
