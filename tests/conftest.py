"""The engines and the settings for every test. Costly things are made once per session, and only where a test asks."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import msgspec
import pytest

from spoold.config import (
    BuilderSettings,
    DockerSettings,
    LeaseSettings,
    NixSettings,
    SandboxSettings,
    Settings,
    SpoolSettings,
)
from spoold.model.ids import build_id
from spoold.model.job import BuildLimits, Runtime
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.spool import layout
from tests import compiled, engines, plain, store

QUICK_LEASE = LeaseSettings(renewal=0.2, limit=1.5, check=0.2, pause=0.2)
FIRST = 900 * engines.SLOWNESS  # seconds for a test that needs Nix
SYSTEM = f"{os.uname().machine}-linux"
# A slow machine makes a test slow, but does not fail it. All else stays as hypothesis has it, which has its own profile
# for CI.
hypothesis.settings.register_profile(
    "patient", parent=hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that ask for an engine or for Nix, so that ``-m`` can select them: contrib/test runs them apart.

    Some tests run only in contrib/test --all, see tests/plain.py.
    """
    left_out = set(plain.choose(config, items))
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)
    for item in items:
        for fixture, marker in (("docker_host", "docker"), ("engine_at", "docker"), ("nix_settings", "nix")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        # The first fixture of a session makes what all tests use: a store and the packages that it needs.
        if item.get_closest_marker("nix") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(FIRST))


@pytest.fixture(scope="session", autouse=True)
def nothing_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give tests a record of submissions of their own, and hide the user's tables of languages."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.getbasetemp() / name))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have executors that start from this checkout share the program that they compile."""
    with pytest.MonkeyPatch.context() as patch:
        if programs := compiled.remember(tmp_path_factory.mktemp("compiled")):
            patch.setenv("PATH", str(programs), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session", params=["docker", engines.OCI])
def engine_at(request: pytest.FixtureRequest) -> str:
    """Return an engine for ``settings_for``: the URL of a Docker Engine that answers, or OCI."""
    if request.param == engines.OCI:
        engines.need_oci()
        return engines.OCI
    return engines.docker_url()


@pytest.fixture(scope="session")
def docker_host() -> str:
    """Return the URL of a Docker Engine that answers."""
    return engines.docker_url()


@pytest.fixture(scope="session")
def nixpkgs_debian(request: pytest.FixtureRequest) -> Path:
    """Return a nixpkgs made from Debian packages."""
    if given := os.environ.get("SPOOLD_TEST_NIXPKGS"):
        return Path(given)
    made = request.config.cache.mkdir("nixpkgs") / "debian"
    engines.make_nixpkgs(made)
    return made


@pytest.fixture(scope="session")
def nix_settings(nixpkgs_debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield settings with a Nix store that belongs to this session."""
    engines.need_nix()
    given = os.environ.get("SPOOLD_TEST_STATE")
    state = Path(given) if given else tmp_path_factory.mktemp("state")
    engines.nix_state = str(state)
    made = Settings(
        nix=NixSettings(state=str(state), system=SYSTEM),
        nixpkgs={"default": str(nixpkgs_debian)},
        builder=BuilderSettings(limits=BuildLimits(evaluation_time=600 * engines.SLOWNESS)),
    )
    if not given:
        store.seed(made)
    yield made
    if not given:
        engines.remove_store(state)


@pytest.fixture(scope="session")
def prepared(nix_settings: Settings) -> tuple[NixBuilder, Runtime]:
    """Return a builder that is ready, and the runtime that it provides."""
    builder = NixBuilder(nix_settings)
    return builder, builder.prepare()


@pytest.fixture(scope="session")
def nix_builder(prepared: tuple[NixBuilder, Runtime]) -> NixBuilder:
    """Return a builder that is ready."""
    return prepared[0]


@pytest.fixture(scope="session")
def runtime(prepared: tuple[NixBuilder, Runtime]) -> Runtime:
    """Return the runtime that the builder provides to executors."""
    return prepared[1]


@pytest.fixture(scope="session")
def prepared_for_nix_shell(nix_settings: Settings) -> tuple[NixBuilder, Runtime]:
    """Return a builder and its runtime, on the same store, for jobs that start nix-shell themselves."""
    nix = msgspec.structs.replace(nix_settings.nix, enter="nix-shell")
    builder = NixBuilder(msgspec.structs.replace(nix_settings, nix=nix))
    return builder, builder.prepare()


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="spoold-place."))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def build_shell(prepared: tuple[NixBuilder, Runtime], attributes: str) -> str:
    """Return the store path of a shell with these attributes."""
    builder, runtime = prepared
    expression = f"{{ pkgs ? import <nixpkgs> {{}} }}: pkgs.mkShell {{ {attributes} }}\n"
    id_ = build_id(expression, runtime.nixpkgs["default"], runtime.system, runtime.nix)
    result = builder.build(id_, expression, "default", threading.Event())
    assert result.phase.outcome is Outcome.OK, result.phase.stderr
    return result.shell


@pytest.fixture(scope="session")
def plain_shell(prepared: tuple[NixBuilder, Runtime]) -> str:
    """Return the store path of the captured default shell."""
    return build_shell(prepared, "")


@pytest.fixture(scope="session")
def python_shell(prepared: tuple[NixBuilder, Runtime]) -> str:
    """Return the store path of a captured shell that has Python."""
    return build_shell(prepared, "buildInputs = [ pkgs.python3 ];")


@pytest.fixture(scope="session")
def c_shell(prepared: tuple[NixBuilder, Runtime]) -> str:
    """Return the store path of a captured shell that has a C compiler."""
    return build_shell(prepared, "buildInputs = [ pkgs.gcc ];")


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Return settings with a fresh spool and short leases.

    They name an engine only where the test asks for one by a fixture above. A test of the spool needs none.
    """
    spool = tmp_path / "spool"
    layout.create(str(spool))
    asked = set(request.fixturenames)
    nix = Settings(nix=NixSettings(state=str(tmp_path / "state"), system=SYSTEM))
    if asked & {"nix_settings", "nix_builder", "runtime"}:
        nix = request.getfixturevalue("nix_settings")
    return Settings(
        spool=SpoolSettings(path=str(spool), scan=0.5, settle=0.5),
        lease=QUICK_LEASE,
        docker=DockerSettings(host=request.getfixturevalue("docker_host") if "docker_host" in asked else ""),
        sandbox=SandboxSettings(waiting=2),
        nix=nix.nix,
        nixpkgs=nix.nixpkgs,
    )


@pytest.fixture
def daemon(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Daemon]:
    """Yield a dockerd that the test may stop or kill."""
    if shutil.which("dockerd") is None or shutil.which("containerd") is None:
        pytest.skip("this host has no dockerd that a test may stop")
    made = engines.Daemon(tmp_path_factory.mktemp("d"))
    yield made
    made.close()
