"""Finding out by trying: the quickest way of making containers that works on this engine, and what they really get."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from spoold.engines.docker import checks as of_docker
from spoold.engines.docker import shares
from spoold.engines.docker.connection import DockerConnection, ImageGoneError
from spoold.engines.docker.container import Container, start
from spoold.engines.docker.shares import Shares
from spoold.engines.docker.walls import DockerPlan
from spoold.host.log import Log
from spoold.model.errors import OperatorError, SpooldError, TemporaryError
from spoold.model.findings import refuse
from spoold.sandbox import checks, etc
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size

log = Log("sandbox")


def find_plan(engine: DockerConnection, plan: DockerPlan, known: list[str]) -> tuple[DockerPlan, Runner[Container]]:
    """Return a plan by which a container starts, as like ``plan`` as can be, and that container.

    No job has been in the container, and the caller closes it. ``known`` are the engine's runtimes. Raises what the
    last and plainest plan raised.
    """
    *others, plainest = _variants(plan, known, is_here=not of_docker.is_elsewhere(engine.where))
    for variant in others:
        try:
            return _probe(engine, variant)
        except (TemporaryError, OperatorError) as error:
            if isinstance(error, ImageGoneError):
                raise
            log.info(
                "no container starts in this way. Trying a plainer way", runtime=variant.oci or "default", error=error
            )
    return _probe(engine, plainest)


def with_names(engine: DockerConnection, plan: DockerPlan) -> DockerPlan:
    """Return a plan whose containers have our /etc/hosts without a porter, where the engine can mount it from here."""
    try:
        if of_docker.is_elsewhere(engine.where):
            raise TemporaryError("the engine may be on another host")
        named = replace(plan, hosts=etc.settled("hosts"))
        _start(engine, named).close()
    except (TemporaryError, OperatorError) as error:
        if isinstance(error, ImageGoneError):
            raise
        log.warning("no name resolves in containers, not even localhost", reason=error)
        return plan
    return named


def _variants(plan: DockerPlan, known: list[str], *, is_here: bool) -> Iterator[DockerPlan]:
    """Yield ways of making containers, the quickest first.

    NetworkDisabled saves the engine half the work of a start. The network mode "none" stands in any case.
    """
    chosen = plan.settings.docker.runtime
    runtimes = [chosen] if chosen or of_docker.AUTOMATIC not in known else [of_docker.AUTOMATIC, chosen]
    for oci in runtimes:
        if plan.recycled and is_here:
            yield replace(plan, oci=oci, network_disabled=True, line=True)
        yield replace(plan, oci=oci, network_disabled=True)
    yield replace(plan, oci=chosen, network_disabled=False)


def _probe(engine: DockerConnection, plan: DockerPlan) -> tuple[DockerPlan, Runner[Container]]:
    """Start a container and look at it from inside; return it and the plan, with what was learnt about its runtime."""
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(contextlib.closing(_start(engine, plan, halved=True)))
        asked = plan.size(plan.settings.limits.run.default).memory
        refuse(
            of_docker.of_container(container.transport.ready, asked, plan.settings.docker), f"Docker at {engine.where}"
        )
        if plan.line and not container.transport.has_line:
            log.info("supervisors cannot use a socket of their own. All data goes through the engine", runtime=plan.oci)
            plan = replace(plan, line=False)
        plan = replace(plan, shares=_shares(engine, plan, container.transport.ready.weight))
        if plan.settings.docker.runtime and not _resizes(container, plan):
            plan = replace(plan, resizable=False)
            _start(engine, plan).close()  # a container has to start with the other size too
        stack.pop_all()
        return plan, container


def _shares(engine: DockerConnection, plan: DockerPlan, weight: int) -> Shares | None:
    """Return the numbers that halve a share, None where there are none; a container made by ``plan`` got ``weight``."""
    if not plan.unified or weight in (shares.HALF, -1):
        return plan.shares
    older = replace(plan, shares=shares.OLDER_VERSION_2)
    container = _start(engine, older, halved=True)
    container.close()
    if container.transport.ready.weight == shares.HALF:
        return older.shares
    log.warning(
        "the runtime weighs containers in a way that is not known: a program and its interactor have the share of two "
        "jobs together",
        runtime=plan.oci or "default",
        weight=weight,
    )
    return None


def _start(engine: DockerConnection, plan: DockerPlan, *, halved: bool = False) -> Runner[Container]:
    size = replace(plan.size(plan.settings.limits.run.default), halved=halved)
    try:
        return start(engine, plan, threading.Event(), size=size)
    except TemporaryError as error:
        if not checks.of_cells(error):
            raise
        own = plan.settings.docker.runtime
        raise OperatorError(
            'sandbox.mode = "recycled" is not possible here. It needs user namespaces within containers (see sysctl '
            f"{checks.SWITCHES}{f', and docker.runtime = {own!r}' if own else ''}): {error}"
        ) from error


def _resizes(container: Runner[Container], plan: DockerPlan) -> bool:
    """Tell whether the runtime can change a limit of a running container; gVisor's cannot."""
    size = plan.size(plan.settings.limits.run.default)
    try:
        container.transport.resize(Size(size.memory, size.processes + 1))
    except SpooldError as error:
        log.info("limits of a running container cannot be changed", runtime=plan.oci, error=error)
        return False
    return True
