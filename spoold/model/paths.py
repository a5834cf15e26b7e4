"""Store paths, as a stranger may write them: below ``/nix/store``, one name deep, and nothing else.

They become mounts, targets of links and words of command lines. So a path with ``..`` or a line feed in it is refused.
Nix's own rules are these: 32 characters of its base 32, a dash, and a name of at most 211 characters.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_ONE = r"/nix/store/[0-9abcdfghijklmnpqrsvwxyz]{32}-[0-9A-Za-z+._?=-]{1,211}"
StorePath = Annotated[str, Meta(pattern=rf"\A{_ONE}\Z")]
StorePathOrNone = Annotated[str, Meta(pattern=rf"\A(?:{_ONE})?\Z")]  # "" is none
System = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z_]{1,32}-[0-9A-Za-z_]{1,32}\Z")]  # such as x86_64-linux
Pin = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,256}\Z")]  # the name of a pin, which clients see
