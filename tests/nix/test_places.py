"""The directories of the Nix state are made or taken over from an earlier version. No link is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from spoold.model.errors import OperatorError
from spoold.nix import nixpkgs, places
from spoold.nix.build import NixBuilder
from tests import frozen
from tests.nix import room
from tests.nix.room import Copy

BUILDER, GROUP, BUILDS = 64_201, 64_202, 64_203
UIDS = {"root": 0, places.BUILDER: BUILDER}
GIDS = {"root": 0, places.GROUP: GROUP, "spoold-build": BUILDS}
OWNERS = {place.path: (UIDS[place.owner], GIDS[place.group]) for place in places.PLACES}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Return the state of an earlier version, which belongs to the builder as a whole."""
    state = frozen.nix_state(tmp_path / "state", group=BUILDS)
    for directory, names, files in os.walk(state):
        for name in (".", *names, *files):
            os.chown(os.path.join(directory, name), BUILDER, GROUP, follow_symlinks=False)
    state.chmod(0o700)
    return state


def seen(state: Path) -> dict[str, tuple[int, int, int]]:
    """Return owner, group and mode of each place."""
    found = {place.path: os.lstat(state / place.path) for place in places.PLACES}
    return {path: (each.st_uid, each.st_gid, stat.S_IMODE(each.st_mode)) for path, each in found.items()}


WANTED = {place.path: (*OWNERS[place.path], place.mode) for place in places.PLACES}


@as_root
def test_a_new_state_is_made_as_the_table_says(tmp_path: Path) -> None:
    assert not places.was_taken_over(str(tmp_path / "state"), places.create(str(tmp_path / "state"), OWNERS))
    assert seen(tmp_path / "state") == WANTED
    assert places.create(str(tmp_path / "state"), OWNERS) == []


@pytest.mark.parametrize("owners", [None, pytest.param(OWNERS, marks=as_root)])
def test_daemons_that_start_together_make_one_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owners: dict[str, tuple[int, int]] | None
) -> None:
    make, first = os.makedirs, []

    def after_another(path: str, mode: int = 0o777) -> None:
        first.append(path)
        make(path, mode)  # by another daemon, which has looked at the same moment
        make(path, mode)

    monkeypatch.setattr(os, "makedirs", after_another)
    assert places.create(str(tmp_path / "state"), OWNERS if owners else None) == (sorted(first) if owners else [])
    assert all((tmp_path / "state" / place.path).is_dir() for place in places.PLACES)


@as_root
def test_a_state_of_an_earlier_version_is_taken_over(earlier: Path) -> None:
    before = {name: sorted(os.listdir(earlier / name)) for name in ("pins", "template")}
    assert before["pins"]
    assert places.was_taken_over(str(earlier), places.create(str(earlier), OWNERS))
    assert not places.was_taken_over(str(earlier), places.create(str(earlier), OWNERS))
    assert seen(earlier) == WANTED
    assert sorted(os.listdir(earlier)) == ["builder", "imports", "nix"]
    assert {name: sorted(os.listdir(earlier / "builder" / name)) for name in before} == before
    assert (earlier / "builder/pins").stat().st_uid == BUILDER


@as_root
@pytest.mark.parametrize("path", ["nix", "nix/nix", "nix/nix/store", "nix/nix/var", "builder"])
@pytest.mark.parametrize("instead", ["a link", "a file"])
def test_what_the_builder_put_in_a_place_s_stead_is_refused(
    earlier: Path, tmp_path: Path, path: str, instead: str
) -> None:
    """An attacker who took over the builder's account could have done this before the upgrade."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    place = earlier / path
    if place.exists():
        place.rename(tmp_path / "moved")
    if instead == "a link":
        place.symlink_to(elsewhere)
        os.chown(place, BUILDER, GROUP, follow_symlinks=False)
    else:
        place.touch()
    with pytest.raises(OperatorError, match=r"is (a symbolic link|no directory): remove it"):
        places.create(str(earlier), OWNERS)
    assert (elsewhere.stat().st_uid, stat.S_IMODE(elsewhere.stat().st_mode)) == (0, 0o755)
    assert os.listdir(elsewhere) == []


@as_root
def test_nothing_that_is_moved_is_followed(earlier: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir(mode=0o700)
    for name in ("etc", "tmp"):
        (earlier / name).rename(earlier / "nix" / name)
        (earlier / name).symlink_to(canary)
    (earlier / "builder").mkdir()
    (earlier / "builder/etc").symlink_to(canary)
    places.create(str(earlier), OWNERS)
    assert os.listdir(canary) == []
    assert canary.stat().st_uid == 0
    assert (earlier / "builder/etc").is_symlink()


@as_root
def test_the_doctor_names_what_is_not_as_it_should_be(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "owners_for", lambda _: OWNERS)
    assert any("is not root:root's" in each for each in places.examine(str(earlier)))
    places.create(str(earlier), OWNERS)
    assert places.examine(str(earlier)) == []
    (earlier / "nix").chmod(0o777)
    assert places.examine(str(earlier)) == [f"{earlier}/nix has mode 0777, not 0711"]


@pytest.mark.nix
def test_a_store_of_an_earlier_version_goes_on(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a desk, the builder's room was at the top of the state. Nothing is built or added again."""
    builder = copy()
    state = Path(builder.settings.nix.state)
    shell = room.shell(builder, "packages = [ pkgs.hello ];")
    before = builder.prepare()
    for entry in list((state / places.ROOM).iterdir()):
        entry.rename(state / entry.name)
    (state / places.ROOM).rmdir()
    monkeypatch.setattr(nixpkgs, "_added", lambda *_: pytest.fail("a pin was added again"))
    again = NixBuilder(builder.settings)
    assert again.prepare() == before
    assert room.shell(again, "packages = [ pkgs.hello ];") == shell
    assert sorted(os.listdir(state)) == ["builder", "imports", "nix"]


def test_one_user_s_state_is_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    places.create(str(state))
    for place in places.PLACES[1:]:
        assert stat.S_IMODE((state / place.path).stat().st_mode) == place.mode
