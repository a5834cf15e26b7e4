"""What host, supervisor and porter say to each other: a class for each message; their side of it is ``inside/wire.c``.

A message goes over the wire as a dictionary of its fields and ``event``, its name. Whoever reads one says which it
expects, and gets nothing else: the supervisor is ours, but what runs beside it is not, so each field is checked to have
its type, and none may be missing or too much. Times are nanoseconds, sizes bytes.

A field that is added on one side only is an error when the message is made, not one of the job's.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

# The limit that a phase met, or the wish that ended it; "" is none.
Hit = Literal["", "memory", "time", "cpu", "output", "file", "cancel"]
Some = TypeVar("Some", bound="Message")
VERSION = 8  # of all of them together: the supervisor tells its own first, and the host compares
LARGEST = 1 << 64  # no number is as large, or negated


@dataclass_transform(kw_only_default=True)
class Message:
    """A message. Its fields are its annotations: int, bytes (text is encoded), lists of these, or messages."""

    FIELDS: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Take the fields from the annotations, and make it known by its name."""
        cls.FIELDS = dict(cls.__annotations__)
        KNOWN[cls.__name__] = cls

    def __init__(self, **values: Any) -> None:
        if values.keys() != self.FIELDS.keys():
            raise ValueError(
                f"{type(self).__name__} has not the fields {', '.join(values.keys() ^ self.FIELDS.keys())}"
            )
        for name, kind in self.FIELDS.items():
            setattr(self, name, _checked(kind, values[name]))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # as of anything that can change

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def fields(self) -> dict[str, object]:
        """Return the fields as the wire has them."""
        return {name: _bare(value) for name, value in self.__dict__.items()}

    def value(self) -> dict[str, object]:
        """Return the message as the wire has it."""
        return self.fields() | {"event": type(self).__name__}


KNOWN: dict[str, type[Message]] = {}


def _checked(kind: str, value: Any) -> Any:
    if kind.startswith("list["):
        if not isinstance(value, list):
            raise ValueError(f"{type(value).__name__} is no list")
        inner = kind[5:-1]
        return [_checked(inner, each) for each in value]
    if kind == "int":
        if not isinstance(value, int) or not -LARGEST < value < LARGEST:
            raise ValueError("no number")
        return int(value)
    if kind == "bytes":
        if isinstance(value, str):
            return value.encode()
        if not isinstance(value, bytes):
            raise ValueError(f"{type(value).__name__} is no string")
        return value
    made = KNOWN[kind]
    return value if isinstance(value, made) else made(**value)


def _bare(value: object) -> object:
    if isinstance(value, Message):
        return value.fields()
    return [_bare(each) for each in value] if isinstance(value, list) else value


def parse(value: object, expected: type[Some]) -> Some:
    """Return the message that ``value`` is; raise ValueError unless it is whole and of the type that is expected."""
    if not isinstance(value, dict) or value.pop("event", None) != expected.__name__.encode():
        raise ValueError(f"this is no message {expected.__name__}")
    return expected(**value)


def parse_any(value: object, *expected: type[Message]) -> Message:
    """Return the message that ``value`` is; raise ValueError unless it is whole and one of those expected."""
    name = value.get("event") if isinstance(value, dict) else None
    for each in expected:
        if name == each.__name__.encode():
            return parse(value, each)
    raise ValueError(f"this is none of the messages {', '.join(each.__name__ for each in expected)}")


# -- from the host to a supervisor


class File(Message):
    """A file of the job; its ``size`` bytes follow the parcel, in the parcel's order."""

    name: bytes
    mode: int
    size: int


class Show(Message):
    """What of the store the next job may see, before its parcel, where a container serves many.

    These are the entries ``store`` where ``limited`` is 1, else all.
    """

    limited: int
    store: list[bytes]


class Parcel(Message):
    """A job. A work directory follows that was kept, of ``archive`` bytes, then its files' bytes, then its input's."""

    files: list[File]
    archive: int
    stdin: int


class Bounds(Message):
    """The limits of a phase that the supervisor enforces; see ``model.limits``, whose names these are."""

    time: int
    cpu_time: int
    memory: int
    stdout: int
    stderr: int
    file_size: int
    open_files: int
    stack: int
    on_output_limit: bytes


class Wanted(Message):
    """What comes back of the files that a phase leaves: those that ``patterns`` stand for, none where there are none.

    So many ``files`` at most, each of ``file_size`` bytes at most, and all of ``total``.
    """

    patterns: list[bytes]
    files: int
    file_size: int
    total: int


class Order(Message):
    """A phase to run: the program and its arguments, what it reads from the descriptor WORDS, and its environment.

    ``script`` is the file that this comes to; ``input`` is 1 where it gets the job's input. After a phase that is the
    ``last``, 1, there is room made for another job without a word. Where ``live`` is 1, what it prints is told on the
    way (``Live``).
    """

    argv: list[bytes]
    words: list[bytes]
    env: list[bytes]
    script: bytes
    input: int
    last: int
    live: int
    limits: Bounds
    outputs: Wanted


class Cancel(Message):
    """End the phase that runs now, and tell of it as ever. Nothing is ordered afterwards: the container goes."""


class Keep(Message):
    """Hand over the work directory as the last phase left it, ``most`` bytes at most; there is no use of it here."""

    most: int


class End(Message):
    """The job is over before its last phase: make room for another."""


# -- from a supervisor


class Ready(Message):
    """What a program sees around itself: bits of /proc/self/status, its memory limit, and which kernel.

    -1 or b"" is what it cannot see.
    """

    version: int
    no_new_privileges: int
    seccomp: int
    capabilities: int
    memory: int
    kernel: bytes


class Again(Message):
    """There is room for another job."""


class Refused(Message):
    """The job's files cannot be written, or what they became cannot be kept, through a fault of the job."""

    reason: bytes


class Failed(Message):
    """What was ordered cannot be done here. ``refused`` is 1 where the kernel lacks it or does not allow it."""

    reason: bytes
    refused: int


class Broken(Message):
    """A bug of ours: what was raised, and where."""

    story: bytes


class Full(Message):
    """A file system in memory that had no room for another of ``what``: b"bytes", or b"files". It has ``most``."""

    place: bytes
    what: bytes
    most: int


class Obstacle(Message):
    """What keeps ``file`` of the job from being started: ``sandbox.obstacles`` has words for the ``kind``."""

    kind: bytes
    file: bytes
    name: bytes


class Live(Message):
    """What a phase that runs has come to so far, once a second at most: its times, and the most memory that it held.

    ``stdout`` and ``stderr`` are the last ``facts.TAIL`` bytes of what was written, at most.
    """

    time: int
    cpu: int
    memory: int
    stdout: bytes
    stdout_total: int
    stderr: bytes
    stderr_total: int


class Done(Message):
    """The account of a phase. ``status`` is as wait(2) gives it, -1 where it could not be killed.

    ``files`` is how much of ``memory`` were files and shared memory, ``entries`` how many files and directories there
    were at most, ``full`` which file systems had no room. ``left`` is what it leaves in memory as files, ``unseen``
    what a later one may hold for a moment without being seen, 0 where all is. ``oom`` is 1 where the kernel killed
    something for want of memory, ``hit`` the limit that it met (``Hit``), ``clean`` 1 where nothing of it lives. The
    bytes of ``stdout`` and ``stderr`` follow.
    """

    status: int
    time: int
    cpu: int
    memory: int
    files: int
    entries: int
    full: list[Full]
    left: int
    unseen: int
    oom: int
    hit: bytes
    clean: int
    stdout: int
    stdout_total: int
    stderr: int
    stderr_total: int
    obstacles: list[Obstacle]


class Kept(Message):
    """The work directory, in ``bytes`` that follow and have so many ``entries``: names, its own too.

    Laying it takes ``room`` bytes of memory beside these, about. It had so many ``pipes``, ``sockets`` and ``devices``
    besides, which are not kept.
    """

    bytes: int
    entries: int
    pipes: int
    sockets: int
    devices: int
    room: int


class Output(Message):
    """A file that comes back after ``Done``; ``matched`` has a bit for each pattern, and ``size`` bytes follow."""

    name: bytes
    mode: int
    matched: int
    size: int


class Outputs(Message):
    """All files that come back were told. The counts are of names that matched and do not come back.

    They are ``large``, ``many`` or too much in ``total``, ``odd`` (no regular file), have ``names`` that no request can
    have, or are ``closed``. Directories that were too ``deep``, or met when the time was over (``slow``), were not
    looked into. Where it ``failed``, the counts are 0: for want of b"memory" or b"time", or b"ended" otherwise. Then
    the last file is not as it was unless it is ``whole``, 1.
    """

    large: int
    many: int
    total: int
    odd: int
    names: int
    closed: int
    deep: int
    slow: int
    failed: bytes
    whole: int


# -- to and from a porter


class GiveView(Message):
    """Let the container whose first process is ``pid`` see these entries of the store only; none: leave the store."""

    pid: int
    container: bytes
    paths: list[bytes]


class ViewGiven(Message):
    """It is done."""


class Gone(Message):
    """There is no such container any more."""

    reason: bytes
