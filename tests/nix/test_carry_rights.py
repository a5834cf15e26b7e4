"""With the units, the store is the builder's. Root does everything there as that user, and leaves none of its files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from spoold.config import NixSettings
from spoold.host import accounts
from spoold.model.errors import OperatorError
from spoold.nix import carried, imports, places, seat
from spoold.nix.why import why
from tests.nix import setups
from tests.nix.test_substitute import make_keys

pytestmark = [pytest.mark.nix, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")]

# Like the builder when it takes an import.
TAKE = """
import sys; sys.path[:0] = sys.argv[4:]
from spoold.host import userns; userns.at_start()
from spoold.config import NixSettings
from spoold.nix.store import Store
store = Store(NixSettings(state=sys.argv[1], build_users="", trusted_public_keys=[sys.argv[2]]))
store.ask(["nix-store", "--realise", sys.argv[3]])
"""


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NixSettings, list[str], list[str]]]:
    """Yield the settings of a state that root and a builder share, the command to take a path, and the path of code."""
    with setups.service_user() as (uid, gid), tempfile.TemporaryDirectory(prefix="spoold-seat.") as name:
        room = Path(name)
        room.chmod(0o755)
        setups.copy_code(room / "code")
        state = room / "state"
        uids, gids = {"root": 0, places.BUILDER: uid}, {"root": 0, places.GROUP: gid}
        owners = {each.path: (uids[each.owner], gids.get(each.group, gid)) for each in places.PLACES}
        places.create(str(state), owners)
        asked = [setups.SYSTEMS_PYTHON, "-I", "-S", "-c", "import sys; print(*sys.path)"]
        paths = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        code = [str(room / "code"), *paths]
        monkeypatch.setattr(accounts, "uid_of", lambda _: uid)
        monkeypatch.setattr(accounts, "gid_of", lambda _: gid)
        monkeypatch.setattr(seat, "sys", SimpleNamespace(executable=setups.SYSTEMS_PYTHON, path=code))
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", setups.SYSTEMS_PYTHON, "-I", "-S"]
        yield NixSettings(state=str(state), build_users=""), [*become, "-c", TAKE, str(state)], code
        subprocess.run(["chmod", "-R", "u+w", room], check=False)


def cache(directory: Path, place: Path) -> str:
    """Make a binary cache of one path. Return the path."""
    text, store = directory / "x", ["--store", str(directory / "own"), "--option", "substituters", ""]
    text.write_text("content")
    made = subprocess.run(["nix-store", *store, "--add", text], check=True, capture_output=True, text=True).stdout
    place.mkdir()
    argv = ["nix", "--extra-experimental-features", "nix-command", "copy", *store, "--to", f"file://{place}"]
    subprocess.run([*argv, made.strip()], check=True)
    for name in ("log", "realisations"):
        (place / name).rmdir()
    return made.strip()


def test_root_checks_and_asks_as_the_builder(builder: tuple[NixSettings, list[str], list[str]], tmp_path: Path) -> None:
    settings, command, code = builder
    public = (make_keys(tmp_path) / "public").read_text().strip()
    place = Path(settings.state) / imports.DIRECTORY / "x"
    path = cache(tmp_path, place)
    carried.check(settings, place)
    subprocess.run([*command, public, path, *code], check=True)
    assert why(settings, path).size
    made = carried.make(settings, [path])
    carried.sign(_copy(made, tmp_path / "signed"), str(tmp_path / "secret"))
    carried.remove(settings, made)
    assert not made.exists()
    store = Path(settings.state) / "nix/nix"
    found = subprocess.run(["find", store / "var", store / "store", "-uid", "0"], capture_output=True, check=True)
    assert found.stdout == b"", "files of root would block the builder"
    (content,) = (place / "nar").iterdir()
    content.write_bytes(content.read_bytes()[:-1])
    with pytest.raises(OperatorError):
        carried.check(settings, place)


def _copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-r", source, target], check=True)
    return target
