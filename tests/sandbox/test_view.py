"""What a job sees of the Nix store: exactly its own closure and the runtime's (security case 15a)."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import docker
import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.docker import trial, walls
from spoold.engines.docker.attached import AttachedContainer
from spoold.engines.docker.container import Container
from spoold.engines.docker.porter import Porter, PorterOnDuty
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.response import Outcome
from spoold.sandbox import program
from spoold.sandbox.lifecycle import EngineMonitor
from spoold.sandbox.runner import Runner
from spoold.sandbox.transport import UnusableError
from tests.sandbox import inside
from tests.sandbox.conftest import AnySandbox, Mode, made_sandbox, make_job, settings_for
from tests.waiting import until

pytestmark = pytest.mark.docker

Closure = Callable[..., list[str]]
Go = Callable[[Job], JobResult]


def nix_store(settings: Settings, *arguments: str) -> list[str]:
    """Run nix-store on the tests' store. Return its output."""
    environment = {key: value for key, value in os.environ.items() if key != "NIX_REMOTE"}
    command = ["nix-store", "--store", f"{settings.nix.state}/nix", *arguments]
    directory = Path(settings.nix.state, "nix/nix/store")
    mode = directory.stat().st_mode  # Nix makes it listable
    try:
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    finally:
        directory.chmod(mode & 0o7777)


@pytest.fixture(scope="module")
def closure(nix_settings: Settings) -> Closure:
    """Return a function from store paths to their closure."""
    return lambda *paths: sorted(nix_store(nix_settings, "-qR", *paths))


@pytest.fixture(scope="module")
def whole(runtime: Runtime, closure: Closure) -> Runtime:
    """Return the runtime with its closure."""
    return replace(runtime, closure=closure(runtime.bash, runtime.coreutils, runtime.tzdata))


View = Literal["auto", "required", "off"]


def view_settings(host: str, spool: Path, view: View, waiting: int = 1, mode: Mode = "single-use") -> Settings:
    settings = settings_for(host, str(spool))
    return replace(settings, sandbox=replace(settings.sandbox, waiting=waiting, view=view, mode=mode))


@pytest.fixture(scope="module")
def narrow(
    engine_at: str, whole: Runtime, tmp_path_factory: pytest.TempPathFactory, mode: Mode
) -> Iterator[AnySandbox]:
    """Yield a sandbox that gives each job its view."""
    spool = tmp_path_factory.mktemp("spool")
    made = made_sandbox(view_settings(engine_at, spool, "required", mode=mode), whole)
    made.prepare()
    yield made
    made.close()


def run(sandbox: AnySandbox, job: Job) -> JobResult:
    return sandbox.run(job, lambda *_: None, threading.Event())


def names(paths: list[str]) -> list[str]:
    return sorted({os.path.basename(path) for path in paths})


def job(script: str, shell: str, paths: list[str]) -> Job:
    return replace(make_job(script, shell=shell), closure=paths)


@pytest.mark.engines
def test_a_job_sees_exactly_its_closure_and_the_runtimes(
    narrow: AnySandbox, whole: Runtime, closure: Closure, plain_shell: str, c_shell: str
) -> None:
    for shell in (c_shell, plain_shell):  # the second job sees nothing of the first one's shell
        mine = closure(shell)
        phase = run(narrow, job("ls /nix/store", shell, mine)).run
        assert sorted(phase.stdout.split()) == names([*mine, *whole.closure])
        assert not [name for name in phase.stdout.split() if name.endswith(".drv")]
    assert c_shell not in [*closure(plain_shell), *whole.closure]


@pytest.mark.engines
def test_what_belongs_to_another_build_does_not_exist(
    narrow: AnySandbox, nix_settings: Settings, closure: Closure, plain_shell: str, c_shell: str
) -> None:
    derivation = next(name for name in os.listdir(nix_settings.nix.physical_store) if name.endswith(".drv"))
    script = f"ls -d {c_shell} /nix/store/{derivation}; cat {c_shell}/enter.sh; ls -d {plain_shell}"
    phase = run(narrow, job(script, plain_shell, closure(plain_shell))).run
    assert phase.stdout == f"{plain_shell}\n"
    assert phase.stderr.count("No such file or directory") == 3


CALLS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
path = sys.argv[1].encode()
RO, REMOUNT, BIND = 1, 32, 4096
tries = {
    "write": lambda: os.open(path + b"/new", os.O_CREAT | os.O_WRONLY),
    "write to the store": lambda: os.open(b"/nix/store/new", os.O_CREAT | os.O_WRONLY),
    "mkdir": lambda: os.mkdir(b"/nix/store/dir"),
    "chmod": lambda: os.chmod(path, 0o777),
    "rename": lambda: os.rename(path, path + b"x"),
}
calls = {
    "remount": lambda: libc.mount(None, path, None, REMOUNT | BIND, None),
    "remount the store": lambda: libc.mount(None, b"/nix/store", None, REMOUNT, None),
    "umount": lambda: libc.umount2(b"/nix/store", 2),
    "umount one": lambda: libc.umount2(path, 2),
    "unshare": lambda: libc.unshare(0x10000000 | 0x20000),
    "open_tree": lambda: libc.syscall(428, -100, b"/nix/store", 1),
}
for name, call in tries.items():
    try: call(); print(name, "allowed")
    except OSError: pass
for name, call in calls.items():
    if call() >= 0: print(name, "allowed")
lines = [line.split() for line in open("/proc/self/mountinfo")]
whole = [line for line in lines if line[4] == "/nix/store"][:-1]  # covered by the view
lines = [line for line in lines if line not in whole]
for line in lines:
    if not line[4].startswith("/nix/store"): continue
    if not {"ro", "nosuid", "nodev"} <= set(line[5].split(",")): print("not read-only", line)
    if line[6] != "-": print("propagates", line)
print("done", len(whole))
"""


def test_all_of_it_is_read_only_whatever_the_job_tries(narrow: AnySandbox, closure: Closure, python_shell: str) -> None:
    assert narrow.plan is not None
    made = make_job("python3 main.py " + python_shell, shell=python_shell, files={"main.py": CALLS.encode()})
    phase = run(narrow, replace(made, closure=closure(python_shell))).run
    covered = 1 if narrow.plan.cells else 0  # without cells the whole store is covered
    assert (phase.stdout, phase.stderr) == (f"done {covered}\n", "")


def test_compile_and_run_have_the_same_view(
    narrow: AnySandbox, whole: Runtime, closure: Closure, plain_shell: str
) -> None:
    made = make_job("ls /nix/store", compile_sh="ls /nix/store", shell=plain_shell)
    result = run(narrow, replace(made, closure=closure(plain_shell)))
    assert result.compile.stdout == result.run.stdout != ""


def test_store_paths_may_be_files_and_links(
    narrow: AnySandbox, nix_settings: Settings, closure: Closure, plain_shell: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content\n")
    (file,) = nix_store(nix_settings, "--add", str(tmp_path / "file"))
    (tmp_path / "link").symlink_to(file)
    (link,) = nix_store(nix_settings, "--add", str(tmp_path / "link"))
    phase = run(
        narrow, job(f"cat {file} {link}; readlink {link}", plain_shell, [*closure(plain_shell), file, link])
    ).run
    assert phase.stdout == f"content\ncontent\n{file}\n"


def test_a_path_that_was_collected_is_named(narrow: AnySandbox, closure: Closure, plain_shell: str) -> None:
    gone = "/nix/store/00000000000000000000000000000000-gone"
    with pytest.raises(TemporaryError, match=r"00-gone: No such file"):
        run(narrow, job("true", plain_shell, [*closure(plain_shell), gone]))
    for bad in ("/etc", "/nix/store/../../etc", "/nix/store/a/b", "/nix/store/"):
        with pytest.raises(OperatorError, match="is not a store path"):
            run(narrow, job("true", plain_shell, [bad]))


@pytest.mark.parametrize("mode", ["single-use"], indirect=True)
def test_a_porter_that_died_is_replaced(narrow: Any, docker_host: str, closure: Closure, plain_shell: str) -> None:
    api = docker.APIClient(base_url=docker_host)
    assert narrow._view._porter._porter is not None
    before = narrow._view._porter._porter.id
    api.kill(before)
    api.close()
    assert run(narrow, job("echo hi", plain_shell, closure(plain_shell))).run.stdout == "hi\n"
    assert narrow._view._porter._porter.id != before


@pytest.mark.usefixtures("docker_host")
@pytest.mark.parametrize("mode", ["single-use"], indirect=True)
def test_only_a_process_of_the_container_itself_is_touched(narrow: Any) -> None:
    plan = narrow.plan
    mounts = mounts_of_the_host()
    container = narrow.on_trial()
    try:
        for pid in (os.getpid(), 1, 2**22 - 1):
            with pytest.raises(UnusableError):
                narrow._view._porter.give_view(plan, pid, container.transport.id, [])
    finally:
        container.close()
    assert mounts_of_the_host() == mounts


def mounts_of_the_host() -> list[str]:
    """Return the mounts here of the store and on it. Engines and other tests mount elsewhere at any time."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if any(word.startswith("/nix") for word in line.split()[3:5])]


@pytest.mark.usefixtures("docker_host")  # with Docker, the porter notices before any part of the job is sent
@pytest.mark.parametrize("mode", ["single-use"], indirect=True)
def test_a_container_that_died_at_the_last_moment_is_replaced(
    narrow: AnySandbox, closure: Closure, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(self: Runner[Container]) -> bool:
        return True

    assert narrow._pool is not None
    waiting = narrow._pool._waiting
    until(lambda: waiting)
    monkeypatch.setattr(Runner, "alive", blind)  # as if it died after the look
    doomed = waiting[0]
    doomed.stop()
    until(lambda: not os.path.exists(f"/proc/{doomed.transport.pid}"))
    assert run(narrow, job("echo hi", plain_shell, closure(plain_shell))).run.stdout == "hi\n"


def test_without_views_the_store_is_whole_and_cannot_be_listed(
    engine_at: str, whole: Runtime, plain_shell: str, c_shell: str, tmp_path: Path
) -> None:
    sandbox = made_sandbox(view_settings(engine_at, tmp_path, "off", 0), whole)
    sandbox.prepare()
    phase = run(sandbox, job(f"ls /nix/store; ls -d {c_shell}", plain_shell, [plain_shell])).run
    sandbox.close()
    assert phase.outcome is Outcome.OK
    assert phase.stdout == f"{c_shell}\n"


def test_where_a_view_is_required_and_not_possible(engine_at: str, whole: Runtime, tmp_path: Path) -> None:
    without = made_sandbox(view_settings(engine_at, tmp_path, "required", 0), replace(whole, closure=[]))
    with pytest.raises(OperatorError, match=r"sandbox\.view is required"):
        without.prepare()
    without.close()
    broken = made_sandbox(
        view_settings(engine_at, tmp_path, "required", 0), replace(whole, closure=["/nix/store/none"])
    )
    with pytest.raises(OperatorError, match=r"not possible here.*none"):
        broken.prepare()
    broken.close()


@pytest.fixture
def without_view(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """Make views impossible, as on kernels before 5.12, or with an engine that gives the porter no rights."""
    configuration = Porter._configuration

    def powerless(self: Porter) -> dict[str, Any]:
        made = configuration(self)
        made["host_config"]["CapAdd"].remove("SYS_ADMIN")
        return made

    profile = walls.seccomp(recycled=mode == "recycled").replace("mount_setattr", "swapoff")
    monkeypatch.setattr(Porter, "_configuration", powerless)
    monkeypatch.setattr(walls, "seccomp", lambda **_: profile)


@pytest.mark.usefixtures("without_view")
def test_where_the_kernel_refuses_views_jobs_see_the_whole_store_and_it_is_said_once(
    docker_host: str, whole: Runtime, tmp_path: Path, *, plain_shell: str, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    with pytest.raises(OperatorError, match=r"not possible here.*not permitted|not possible here.*not implemented"):
        DockerSandbox(view_settings(docker_host, tmp_path, "required", 0, mode), whole).prepare()
    sandbox = DockerSandbox(view_settings(docker_host, tmp_path, "auto", 0, mode), whole)
    with caplog.at_level(logging.WARNING):
        sandbox.prepare()
        sandbox.prepare()
    assert len([record for record in caplog.records if record.message.startswith("jobs see the whole")]) == 1
    assert run(sandbox, job("echo hi", plain_shell, [plain_shell])).run.stdout == "hi\n"
    sandbox.close()


def test_where_the_engine_makes_no_porter_jobs_see_the_whole_store(
    docker_host: str, whole: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = Porter._configuration

    def refused(self: Porter) -> dict[str, Any]:
        made = configuration(self)
        made["host_config"]["PidMode"] = "container:none"
        return made

    monkeypatch.setattr(Porter, "_configuration", refused)
    sandbox = DockerSandbox(view_settings(docker_host, tmp_path, "auto", 0), whole)
    sandbox.prepare()
    assert sandbox.viewed is False
    sandbox.close()


@pytest.mark.parametrize("wrong", ["a bug", "a program that ends", "what the builder says", "a path that is gone"])
def test_what_is_wrong_with_us_opens_no_store(
    engine_at: str,
    whole: Runtime,
    tmp_path: Path,
    *,
    mode: Mode,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No job runs, and the log has the reason."""
    runtime, words = whole, "left out"
    if wrong == "a bug":
        content = inside.without_views(tmp_path).read_bytes()
        monkeypatch.setattr(program, "content", lambda _: content)
    elif wrong == "a program that ends":
        content = inside.without_views(tmp_path, "-DENDS").read_bytes()
        monkeypatch.setattr(program, "content", lambda _: content)
        words = "lost"
    elif wrong == "what the builder says":
        runtime, words = replace(whole, closure=[whole.bash]), "/bin/bash: No such file"
    else:
        runtime, words = replace(whole, closure=[*whole.closure, "/nix/store/none"]), "none: No such file"
    sandbox = made_sandbox(view_settings(engine_at, tmp_path, "auto", 0, mode), runtime)
    monitor = EngineMonitor(lambda _: sandbox)
    monitor.use(runtime)
    assert not monitor.check()
    assert not sandbox.viewed
    with pytest.raises(TemporaryError, match="not prepared"):
        run(sandbox, job("true", whole.bash, []))
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert words in str(record.__dict__["fields"]["error"])
    assert bool(record.exc_info) == (wrong in ("a bug", "what the builder says"))
    monitor.close()


def test_once_it_worked_it_is_never_given_up(engine_at: str, whole: Runtime, tmp_path: Path) -> None:
    sandbox = made_sandbox(view_settings(engine_at, tmp_path, "auto", 0), whole)
    sandbox.prepare()
    sandbox._runtime = replace(whole, closure=[*whole.closure, "/nix/store/none"])
    with pytest.raises(TemporaryError, match="none"):
        sandbox.prepare()
    sandbox.close()


def test_an_engine_that_ends_and_comes_back_at_the_trial_opens_no_store(
    docker_host: str, whole: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DockerSandbox(view_settings(docker_host, tmp_path, "auto"), whole)
    probe = made._view._probe
    fails = iter([True, False])

    def lost(container: Runner[Container]) -> None:
        if next(fails):
            raise TemporaryError("the sandbox was lost")
        probe(container)

    monkeypatch.setattr(made._view, "_probe", lost)
    made.prepare()
    assert made.viewed
    made.close()


def test_the_only_container_on_trial_and_the_porter_start_at_the_same_time(
    docker_host: str, whole: Runtime, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recycled containers need no porter."""
    settings = view_settings(docker_host, tmp_path, "required", 0, mode)
    settings = replace(settings, docker=replace(settings.docker, runtime="runc"))  # another one might not start here
    wanted = [Container] if mode == "recycled" else [Container, Porter]
    start, begun, both = AttachedContainer._start, list[type](), threading.Barrier(len(wanted))

    def meet(self: AttachedContainer, cancelled: threading.Event) -> None:
        begun.append(type(self))
        both.wait(60)
        start(self, cancelled)

    monkeypatch.setattr(AttachedContainer, "_start", meet)
    sandbox = DockerSandbox(settings, whole)
    sandbox.prepare()
    sandbox.close()
    assert sorted(begun, key=lambda each: each.__name__) == wanted


def test_a_sandbox_that_was_refused_leaves_no_porter(
    docker_host: str, whole: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, kernel = threading.Event(), PorterOnDuty.kernel

    def starting(self: PorterOnDuty, plan: walls.DockerPlan) -> bytes:
        found = kernel(self, plan)
        started.set()
        return found

    def refused(*_: object) -> None:
        assert started.wait(60)
        raise OperatorError("refused")

    monkeypatch.setattr(PorterOnDuty, "kernel", starting)
    monkeypatch.setattr(trial, "find_plan", refused)
    made = DockerSandbox(view_settings(docker_host, tmp_path, "required", 0, "single-use"), whole)
    with pytest.raises(OperatorError, match="refused"):
        made.prepare()
    assert made._view._porter._porter is None
