"""``spoold`` whose jobs run as plain processes and whose builder builds nothing. Slurm starts it in tests."""

from __future__ import annotations

from spoold import daemon
from spoold.actors.builder import Builder
from spoold.actors.executor import Executor
from spoold.cli.daemon import main
from spoold.model.states import Role
from tests.standins import PlainBackend, PlainSandbox

if __name__ == "__main__":
    daemon.ROLES[Role.EXECUTOR] = lambda settings: Executor(settings, lambda _: PlainSandbox())
    daemon.ROLES[Role.BUILDER] = lambda settings: Builder(settings, PlainBackend())
    main()
