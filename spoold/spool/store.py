"""The spool of submissions, typed: accept, refuse, read, show progress, finish.

Spec: spool-layout.md, "The Submission object" and "The Response". Each process has one object for a spool. Several
threads may call all methods, since all state is on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from spoold.config import Settings
from spoold.host import attributes, fsops
from spoold.host.clock import Clock
from spoold.host.metrics import GIVEN_UP, QUARANTINED, RESPONSES
from spoold.host.syncs import sync_files
from spoold.model import formats, ids, misnamed
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry, Kept, Private
from spoold.model.response import FINAL, OutputsTar, Response, Status, moment, skip_pending
from spoold.model.short import in_short
from spoold.model.states import State
from spoold.model.submission import Origin, Request, Submission
from spoold.spool import sidefiles
from spoold.spool.answers import Answers, forget, is_ours, is_published, publish, take_along
from spoold.spool.owned import OwnedQueue
from spoold.spool.queue import gone_on_error
from spoold.spool.tar import Tar

ENCODER = msgspec.json.Encoder()
HOST = os.uname().nodename
LONGEST_REFUSAL = 1 << 16  # bytes of the refusal of a name, which says the name and little else


class Spool:
    """The submissions below ``settings.spool.path``. ``role`` names the process's probe file.

    An executor (``executes``) leaves answers to health, if the settings say so.
    """

    def __init__(self, settings: Settings, role: str, *, executes: bool = False) -> None:
        """Raise :class:`OperatorError` for a reader in the settings that this host does not know."""
        self.root = settings.spool.path
        self.answers = Answers(settings.spool)
        lease = settings.lease
        self.queue = OwnedQueue(self.root, lease.attempts, lease.pause, self.answers)
        self.clock = Clock(os.path.join(self.root, "tmp", f"{role}{Kept.PROBE}"))
        if settings.spool.published_by == "health":
            self.queue.results.commits_only = executes
            self.queue.results.owner_of = self._owner_of_committed

    def accept(self, id_: str, request: Request, origin: Origin) -> bool:
        """Store the Submission object in ``new/``. Return False where the id was taken meanwhile.

        Its name is durable after :meth:`sync_accepted`, which may be called once for many.
        """
        return self.accept_all([(id_, request, origin)])[0]

    def accept_all(self, accepted: Sequence[tuple[str, Request, Origin]]) -> list[bool]:
        """Store many as :meth:`accept` stores one. If the host fails at one of them, some may be stored."""
        prepared: list[tuple[Entry, str]] = []
        try:
            for id_, request, origin in accepted:
                submission = Submission(Submission_id=id_, Request=request, Response=Response(), Spool=origin)
                self.write_progress(id_, submission.Response, origin, attempt=0)  # before another process can show more
                entry = Entry(id_, 1, origin.uid)
                prepared.append((entry, self.queue.prepare(entry, formats.encode(submission), sync=False)))
            sync_files(private for _, private in prepared)
            return [self.queue.add_prepared(*each) for each in prepared]
        finally:
            for _, private in prepared:
                with contextlib.suppress(OSError):  # intake removes the file when it starts
                    fsops.remove(private)

    def sync_accepted(self) -> None:
        """Make the names of accepted submissions durable. Only then may the clients' files be removed."""
        fsops.sync_directory(self.queue.path(State.NEW))

    def refuse(self, id_: str, reason: str, origin: Origin) -> None:
        """Answer a file that is no submission. From now on its id is used, and the response says why it was refused."""
        response = self._ended(Response(status=Status.REJECTED, reason=reason), origin)
        entry = Entry(id_, 0, origin.uid)
        self._write_answer(ids.result_name(entry), published(id_, response, origin), origin)
        fsops.sync_directory(self.queue.path("tmp"))
        stub = Submission(Submission_id=id_, Request=None, Response=response, Spool=origin)
        self.queue.add(entry, formats.encode(stub), state=State.DONE)
        self.queue.results.publish(entry)
        RESPONSES.add(Status.REJECTED)

    def answer_committed(self, id_: str, response: Response, origin: Origin) -> None:
        """Answer an entry in ``done/`` whose result is lost. If there is an answer by now, it stays."""
        entry = Entry(id_, 0, origin.uid)
        result = published(id_, self._ended(response, origin), origin)
        self._write_answer(ids.result_name(entry), result, origin)
        fsops.sync_directory(self.queue.path("tmp"))
        self.queue.results.publish(entry)

    def _write_answer(self, name: str, data: bytes, origin: Origin) -> None:
        """Write an answer without a lease. Another process may write the same one at once, and each is whole."""
        private = self.queue.private(Private.ANSWER, f"{name}.{secrets.token_hex(4)}")
        self.answers.write(private, data, (origin.uid, origin.gid))
        with gone_on_error(private):
            take_along(private, self.queue.path("tmp", name), over=True)
            fsops.replace(private, self.queue.path("tmp", name))

    def refuse_reuse(self, id_: str, reason: str, origin: Origin) -> None:
        """Answer a file whose id could not be used, beside the response of the submission that has the id."""
        response = skip_pending(Response(status=Status.REJECTED, reason=reason))
        name = ids.refusal_name(id_, origin.uid, origin.sha256)
        private = self.queue.path("tmp", name)
        self._write_answer(name, published(id_, response, origin), origin)
        publish(private, self.queue.path(State.DONE, name))
        fsops.sync_directory(self.queue.path(State.DONE))
        fsops.remove(private)

    def refuse_name(self, name: str, reason: str, origin: Origin) -> None:
        """Answer a file whose name is no submission's, under a name that no other answer has. May be repeated."""
        response = skip_pending(Response(status=Status.REJECTED, reason=reason, uid=origin.uid))
        data = published(misnamed.stem(name), response, origin)
        for answer in misnamed.refusal_names(name, origin.uid, origin.sha256):
            public = self.queue.path(State.DONE, answer)
            if is_published(public, data) is None:
                private = self.queue.private(Private.REFUSAL, f"{origin.uid}-{secrets.token_hex(8)}")
                self.answers.write(private, data, (origin.uid, origin.gid))
                with gone_on_error(private):
                    publish(private, public)
                fsops.remove(private)
            if is_published(public, data):
                break
        fsops.sync_directory(self.queue.path(State.DONE))  # until then the client's file stays, to be answered again
        RESPONSES.add(Status.REJECTED)

    def owner_of(self, answer: str) -> tuple[int, int] | None:
        """Return the owner of an answer in ``done/``: uid and gid (-1: not known). None where nobody can tell."""
        if ids.is_refusal(answer):
            uid = ids.kept_for(answer)
            uid = self._owner_inside(answer) if uid is None else uid
            return None if uid is None else (uid, -1)
        try:
            id_ = answer.removesuffix(ids.response_name("")).removesuffix(Private.OUTPUTS)
            origin = self.read(State.DONE, Entry(id_, 1)).Spool
        except (LeaseLostError, NewerFormatError, msgspec.DecodeError):
            return None
        return origin.uid, origin.gid

    def _owner_of_committed(self, entry: Entry) -> tuple[int, int] | None:
        """Return the owner of a committed entry. Its name tells the uid, which is enough for a list."""
        named = None if entry.owner is None else (entry.owner, -1)
        return named if named and self.answers.by_list else self.owner_of(ids.response_name(entry.id)) or named

    def _owner_inside(self, answer: str) -> int | None:
        """Return the owner of a refusal whose name tells none: its text does, if no stranger can have changed it."""
        path = self.queue.path(State.DONE, answer)
        if not is_ours(path):
            found = attributes.owner(path)
            return found.uid if found else None
        with contextlib.suppress(msgspec.DecodeError, fsops.OddFileError):
            return msgspec.json.decode(fsops.read(path, LONGEST_REFUSAL) or b"", type=_Refused).uid
        return None

    def write_anew(self, answer: str) -> None:
        """Let the owner of an answer in ``done/`` read it again. A new file with the same bytes takes its place."""
        owner, data = self.owner_of(answer), fsops.read(self.queue.path(State.DONE, answer))
        if owner is None or data is None:
            return
        private = self.queue.private(Private.ANSWER, f"{answer}.{secrets.token_hex(4)}")
        self.answers.write(private, data, owner)
        forget(private)  # the digest that was published is the one that counts
        fsops.replace(private, self.queue.path(State.DONE, answer))
        fsops.sync_directory(self.queue.path(State.DONE))

    def read(self, state: State, entry: Entry) -> Submission:
        """Return the Submission object of an entry.

        Raises :class:`LeaseLostError` where it has moved on, :class:`NewerFormatError` where it is not for this version
        to read, and :class:`msgspec.DecodeError` where nobody can read it.
        """
        return self.decoded(self.queue.read(state, entry), state, entry)

    def decoded(self, data: bytes, state: State, entry: Entry) -> Submission:
        """Return the Submission object in an entry's bytes. Raises what :meth:`read` raises, but for a lost lease."""
        return formats.decode(data, Submission, self.queue.entry_path(state, entry))

    def newer(self, state: State, entry: Entry) -> NewerFormatError | None:
        """Return the error of reading an entry that a newer version wrote. None for any other entry."""
        return formats.newer(lambda: self.read(state, entry))

    def newer_past_last(self, state: State, entry: Entry) -> NewerFormatError | None:
        """Return the error of reading an entry past its last attempt that a newer version wrote. None for any other.

        The entry stays where it is, for that version to end. To put one back takes no look into it. Intake ends one
        that is cancelled (``recovery.recover``).
        """
        is_last = self.queue.attempts <= entry.attempt < ids.CANCEL
        return self.newer(state, entry) if is_last else None

    def write_progress(self, id_: str, response: Response, origin: Origin, attempt: int) -> None:
        """Write the side file that its owner may look at meanwhile. No decision reads it, so it isn't synced.

        It is small, whatever a build or a compilation printed: there is one for each submission on its way. A process
        that only commits leaves it to health, since the owner could not read it.
        """
        data = published(id_, in_short(response), origin)
        if self.queue.results.commits_only:
            sidefiles.leave(self.queue, Entry(id_, attempt, origin.uid), data)
            return
        private = self.queue.private(Private.PROGRESS, f"{id_}@{attempt}")
        self.answers.write(private, data, (origin.uid, origin.gid), sync=False)
        try:
            fsops.replace(private, self.queue.path("progress", ids.done_name(id_)))
        except OSError:
            with contextlib.suppress(OSError):  # the job may end before it is written once more
                fsops.remove(private)
            raise

    def finish(
        self, entry: Entry, response: Response, origin: Origin, *, tidy: bool = True, tar: Tar | None = None
    ) -> int:
        """End a running submission with ``response``, and return how many bytes the answer has.

        ``tar`` has the returned files, if the response has no room for them. Raises :class:`LeaseLostError` when
        another attempt has the entry. For ``tidy`` see :meth:`Results.commit`.
        """
        if response.status not in FINAL:
            raise ValueError(f"{response.status} is not final")
        ended = self._ended(response, origin)
        if entry.attempt < ids.CANCEL:
            ended = msgspec.structs.replace(ended, attempt=entry.attempt)
        if tar:
            beside = OutputsTar(name=ids.tar_name(entry.id), size=tar.size, sha256=tar.sha256)
            ended = msgspec.structs.replace(ended, outputs_tar=beside)
        result = published(entry.id, ended, origin)
        self.queue.results.commit(entry, State.RUNNING, result, (origin.uid, origin.gid), tidy=tidy, tar=tar)
        RESPONSES.add(response.status)
        if not self.queue.results.commits_only:
            self.end_progress(entry.id)
        return len(result) + (tar.size if tar else 0)

    def end_progress(self, id_: str) -> None:
        """Remove the side file of a submission that is answered."""
        with contextlib.suppress(OSError):  # its owner may have mounted something over it; health tries again
            fsops.remove(self.queue.path("progress", ids.done_name(id_)))

    def _ended(self, response: Response, origin: Origin) -> Response:
        """Return a final response, with the known times and the host that made it."""
        return msgspec.structs.replace(
            skip_pending(response),
            submitted=moment(origin.arrival) if origin.arrival else UNSET,
            finished=moment(self.clock.nearly()),
            host=HOST,
        )

    def give_up(self, entry: Entry, state: State, reason: str) -> None:
        """End an entry that cannot be worked on: a copy to ``quarantine/``, ``INTERNAL_ERROR`` to its owner.

        Raises :class:`LeaseLostError` when another attempt has it. Raises :class:`NewerFormatError` where a newer
        version has to end it. Then it stays where it is.
        """
        if newer := self.newer(state, entry):
            raise newer
        if state is not State.RUNNING:
            self.queue.claim(entry, state, State.RUNNING)
        data = self.queue.read(State.RUNNING, entry)
        try:
            submission = self.decoded(data, State.RUNNING, entry)
            origin, response = submission.Spool, submission.Response
        except msgspec.DecodeError:
            owner = os.geteuid() if entry.owner is None else entry.owner  # names by earlier versions tell no owner
            origin, response = Origin(uid=owner, gid=os.getegid(), sha256="", arrival=0), Response()
        self.set_aside(entry.id, data, reason, suffix=f"@{origin.uid}-{entry.attempt}")
        final = msgspec.structs.replace(response, status=Status.INTERNAL_ERROR, reason=reason)
        self.finish(entry, final, origin)
        GIVEN_UP.add()

    def set_aside(self, id_: str, data: bytes, reason: str, suffix: str = "") -> None:
        """Keep bytes that could not be used in ``quarantine/``, durably, with the reason."""
        name = f"{id_}{suffix}"
        fsops.write_private(self.queue.path("quarantine", f"{name}.reason"), (reason + "\n").encode())
        fsops.write_private(self.queue.path("quarantine", f"{name}.bytes"), data)
        fsops.sync_directory(self.queue.path("quarantine"))
        QUARANTINED.add()


class _Refused(msgspec.Struct):
    """The part of a name's refusal that is read."""

    uid: int


def published(id_: str, response: Response, origin: Origin) -> bytes:
    """Return the bytes that a client reads: one JSON object, its id and the request's digest first, then a newline."""
    sha256 = origin.sha256 if origin.sha256 and origin.whole else UNSET
    return ENCODER.encode(msgspec.structs.replace(response, Submission_id=id_, request_sha256=sha256)) + b"\n"
