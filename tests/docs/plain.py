"""Daemons whose jobs are plain processes, for our own pages: ``python -m tests.docs.plain CONFIG ROLE,...``."""

from __future__ import annotations

import sys

from spoold import daemon
from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.config.file import load
from spoold.host import log
from spoold.model.states import Role
from tests.standins import PlainBackend, PlainSandbox

if __name__ == "__main__":
    daemon.ROLES[Role.EXECUTOR] = lambda settings: Executor(settings, lambda _: PlainSandbox())
    daemon.ROLES[Role.BUILDER] = lambda settings: Builder(settings, PlainBackend())
    log.set_up(level="info", journal=False)
    daemon.serve(load(sys.argv[1]), [Role(name) for name in sys.argv[2].split(",")], lambda: load(sys.argv[1]))
