"""Answers that need no sandbox: failed builds, builds alone, lists of packages, and requests that cannot be served."""

from __future__ import annotations

import os

import msgspec

from spoold.model.errors import NewerFormatError
from spoold.model.limits import unused_wishes
from spoold.model.response import Outcome, Phase, Response, Status
from spoold.model.submission import Submission
from spoold.spool.builds import BuildStore


def failed(submission: Submission, phase: Phase) -> Response:
    """Return the answer to a submission whose build failed."""
    ours = phase.outcome is Outcome.INTERNAL_ERROR
    status = Status.INTERNAL_ERROR if ours else Status.DEPENDENCIES_FAILED
    notes = unused_wishes(submission.Request.limits.dependencies) if submission.Request else []
    return answered(submission, status, dependencies=phase, notes=notes or msgspec.UNSET)


def built(submission: Submission, build_id: str, phase: Phase) -> Response:
    """Return the answer to a submission that asked for a build only, which succeeded."""
    notes = unused_wishes(submission.Request.limits.dependencies) if submission.Request else []
    return answered(submission, Status.COMPLETED, build_id=build_id, dependencies=phase, notes=notes or msgspec.UNSET)


def listed(submission: Submission, builds: BuildStore) -> Response:
    """Return the answer to a submission that needs no build: a list of packages, or why there is none."""
    request = submission.Request
    if request is None:
        return answered(submission, Status.INTERNAL_ERROR, reason="a fault of spoold: the entry has no request")
    if request.kind != "list-dependencies":
        reason = f"nixpkgs: the pin {request.nixpkgs!a} was removed from this host: choose another"
        return answered(submission, Status.REJECTED, reason=reason)
    everyone = submission.Spool.uid in (0, os.geteuid())
    newer: list[NewerFormatError] = []
    packages = builds.packages(None if everyone else submission.Spool.uid, newer.append)
    notes = [f"packages: builds of a newer version of spoold than this executor's are not listed: {len(newer)}"]
    return answered(submission, Status.COMPLETED, packages=packages, notes=notes if newer else msgspec.UNSET)


def answered(submission: Submission, status: Status, **parts: object) -> Response:
    """Return a submission's response with this status and the other ``parts``."""
    return msgspec.structs.replace(submission.Response, status=status, **parts)
