"""The error tree.

Every error answers two questions: whose fault is it, and is it worth another try?

* :class:`ClientError`: the submission is at fault. The error is final, and its text is shown to the client.
* :class:`TemporaryError`: ours, and it may pass (Docker restarts, the disk is full). The work is retried.
* :class:`CacheError`: a binary cache is at fault, and it may pass. The work is retried after a longer pause.
* :class:`OperatorError`: ours, and only the operator can mend it (a setting, a missing program). Its text says how.
* :class:`LeaseLostError`: nobody's fault. Another worker has the entry. The worker that gets it stops and says nothing.
* :class:`NewerFormatError`: nobody's fault. A newer version wrote the object. Its reader leaves it alone and says so
  once.
"""


class SpooldError(Exception):
    """Root of everything that spoold raises on purpose."""


class ClientError(SpooldError):
    """The client asked for something that cannot be done. The text names the offending key."""


class TemporaryError(SpooldError):
    """Something that spoold needs is away for now. Trying again later is right."""


class CacheError(TemporaryError):
    """A binary cache is away, or does not give what it should."""


class OperatorError(SpooldError):
    """The host or a setting is wrong. The text says what to do."""


class LeaseLostError(SpooldError):
    """The entry is no longer under the name that this worker claimed."""


class NewerFormatError(SpooldError):
    """The stored object at ``path`` is of a ``format`` that only a newer version of spoold knows."""

    def __init__(self, path: str, number: int, newest: int) -> None:
        super().__init__(
            f"{path} is of a newer version of spoold: it has format {number}, and this version reads up to {newest}. "
            "It is left alone; upgrade this version"
        )
        self.path = path
        self.format = number


class IncompleteError(SpooldError):
    """The bytes do not parse as one JSON object (yet): the upload may still be going on."""
