"""What host, supervisor and porter say to each other: a class for each message. Their side is ``inside/wire.c``.

On the wire a message is a dictionary of its fields, with its name under ``event``. The reader says which messages it
expects, and gets no others. The supervisor is ours, but the processes beside it are not. So each field is checked for
its type, and no field may be missing or superfluous. Times are nanoseconds, sizes bytes.

A field that was added on one side only fails when the message is made. It does not count as a fault of the job.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

# The limit that a phase met, or the cancel that ended it; "" is none.
Hit = Literal["", "memory", "time", "cpu", "output", "file", "cancel"]
Some = TypeVar("Some", bound="Message")
VERSION = 10  # of all messages together; the supervisor sends its own first, and the host compares
LARGEST = 1 << 64  # all numbers lie between this and its negative


@dataclass_transform(kw_only_default=True)
class Message:
    """A message. Its fields are its annotations: int, bytes (text is encoded), lists of these, or messages."""

    FIELDS: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Take the fields from the annotations, and register the class by its name."""
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

    __hash__ = None  # type: ignore[assignment]  # messages can change

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def fields(self) -> dict[str, object]:
        """Return the fields in the form of the wire."""
        return {name: _bare(value) for name, value in self.__dict__.items()}

    def value(self) -> dict[str, object]:
        """Return the message in the form of the wire."""
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
    """Return ``value`` as a message; raise ValueError unless it is complete and of the type that is expected."""
    if not isinstance(value, dict) or value.pop("event", None) != expected.__name__.encode():
        raise ValueError(f"this is no message {expected.__name__}")
    return expected(**value)


def parse_any(value: object, *expected: type[Message]) -> Message:
    """Return ``value`` as a message; raise ValueError unless it is complete and one of those expected."""
    name = value.get("event") if isinstance(value, dict) else None
    for each in expected:
        if name == each.__name__.encode():
            return parse(value, each)
    raise ValueError(f"this is none of the messages {', '.join(each.__name__ for each in expected)}")


# -- from the host to a supervisor


class File(Message):
    """A file of the job. Its ``size`` bytes follow the parcel, in the parcel's order."""

    name: bytes
    mode: int
    size: int


class Show(Message):
    """What the next job may see of the store. A container that serves many jobs gets this before the parcel.

    Where ``limited`` is 1, the job sees the entries ``store``, else all of the store.
    """

    limited: int
    store: list[bytes]


class Parcel(Message):
    """A job. A kept work directory of ``archive`` bytes follows, then the bytes of the files, then the input's."""

    files: list[File]
    archive: int
    stdin: int


class Bounds(Message):
    """The limits of a phase that the supervisor enforces. The names are those of ``model.limits``."""

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
    """The files of a phase that come back: those that match ``patterns``. Without patterns, none does.

    At most ``files`` files come back, each of at most ``file_size`` bytes, and at most ``total`` bytes in all.
    """

    patterns: list[bytes]
    files: int
    file_size: int
    total: int


class Order(Message):
    """A phase to run: the program, its arguments and environment, and what it reads from the descriptor WORDS.

    ``script`` is the file of the job that is started in the end. ``input`` is 1 where it gets the job's input. ``last``
    is 1 for the last phase. After that one the supervisor makes room for another job unasked. Where ``live`` is 1,
    output is reported while the phase runs (``Live``). Where ``talks`` is 1, the phase is one side of a talk.
    """

    argv: list[bytes]
    words: list[bytes]
    env: list[bytes]
    script: bytes
    input: int
    last: int
    live: int
    talks: int
    limits: Bounds
    outputs: Wanted


class Cancel(Message):
    """End the phase that runs now, and report it as usual. Nothing is ordered afterwards: the container is removed."""


class Hear(Message):
    """In a talk: what the other program said, to be read by this one. Without ``data`` nothing more comes."""

    data: bytes


class Passed(Message):
    """In a talk: the other program has taken ``size`` bytes more of what this one said."""

    size: int


class Over(Message):
    """The last word on a talk, after the account of the phase. The supervisor drops what comes before it."""


class Keep(Message):
    """Hand over the work directory as the last phase left it, ``most`` bytes at most. It is of no use here any more."""

    most: int


class End(Message):
    """The job is over before its last phase. Make room for another job."""


# -- from a supervisor


class Ready(Message):
    """What a program sees around itself: entries of /proc/self/status, its memory limit, and which kernel.

    ``weight`` is its share of the CPU as cgroup v2 has it. A value that it cannot see is -1 or b"".
    """

    version: int
    no_new_privileges: int
    seccomp: int
    capabilities: int
    memory: int
    weight: int
    kernel: bytes


class Again(Message):
    """There is room for another job."""


class Refused(Message):
    """The job's files cannot be written, or its work directory cannot be kept, through a fault of the job."""

    reason: bytes


class Failed(Message):
    """The order cannot be carried out here. ``refused`` is 1 where the kernel lacks what it needs or forbids it."""

    reason: bytes
    refused: int


class Broken(Message):
    """A bug of ours: the error, and where it was raised."""

    story: bytes


class Full(Message):
    """A file system in memory that had no room for one more of ``what``: b"bytes", or b"files". It holds ``most``."""

    place: bytes
    what: bytes
    most: int


class Obstacle(Message):
    """What keeps ``file`` of the job from being started. ``sandbox.obstacles`` has the words for the ``kind``."""

    kind: bytes
    file: bytes
    name: bytes


class Live(Message):
    """A running phase so far, once a second at most: its times, and the most memory that it held.

    ``stdout`` and ``stderr`` are the end of what was written, at most ``facts.TAIL`` bytes each.
    """

    time: int
    cpu: int
    memory: int
    stdout: bytes
    stdout_total: int
    stderr: bytes
    stderr_total: int


class Begun(Message):
    """The program of a talk runs. From now on it can be told what the other says."""


class Said(Message):
    """In a talk: what the program printed. Without ``data`` it has closed its output."""

    data: bytes


class Took(Message):
    """In a talk: the program has taken ``size`` bytes more of what the other said, or nobody will ever read them."""

    size: int


class Done(Message):
    """The account of a phase. ``status`` is as wait(2) gives it, -1 where the program could not be killed.

    ``files`` is the part of ``memory`` that was files and shared memory. ``entries`` is the greatest number of files
    and directories. ``full`` lists the file systems that had no room. ``left`` is what the phase leaves in memory as
    files. ``unseen`` is what a later phase may hold for a moment without being seen, 0 where all is seen. ``oom`` is 1
    where the kernel killed something for want of memory. ``hit`` is the limit that the phase met (``Hit``). ``clean``
    is 1 where no process of the phase lives. The bytes of ``stdout`` and ``stderr`` follow.
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
    """The work directory. ``bytes`` bytes follow. ``entries`` counts the names in them, the directory's own included.

    Unpacking takes about ``room`` bytes of memory besides. ``pipes``, ``sockets`` and ``devices`` count what was there
    too and is not kept.
    """

    bytes: int
    entries: int
    pipes: int
    sockets: int
    devices: int
    room: int


class Output(Message):
    """A file that comes back after ``Done``. ``matched`` has a bit for each pattern. ``size`` bytes follow."""

    name: bytes
    mode: int
    matched: int
    size: int


class Outputs(Message):
    """All files that come back have been sent. The counts are of names that matched and do not come back.

    ``large``, ``many`` and ``total`` count files that are too large, too many or too much in all. ``odd`` counts names
    that are no regular file, ``names`` those that no request can have, ``closed`` those that cannot be opened. ``deep``
    and ``slow`` count directories that were not looked into, since they lie too deep or the time was over. Where
    collecting ``failed``, the counts are 0. ``failed`` is then b"memory", b"time", or b"ended" for any other cause, and
    the last file is as it was only where ``whole`` is 1.
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
    """Let the container whose first process is ``pid`` see only these entries of the store; none: leave the store."""

    pid: int
    container: bytes
    paths: list[bytes]


class ViewGiven(Message):
    """The order has been carried out."""


class Gone(Message):
    """The container does not exist any more."""

    reason: bytes
