"""The settings: each one explains itself, and unknown settings are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from spoold import engines
from spoold.cli import defaults
from spoold.cli.migration import migrate
from spoold.config import NixSettings, Settings
from spoold.config.file import MOVED, decode, former_names, load
from spoold.config.live import LIVE, take_over
from spoold.model.errors import OperatorError
from spoold.model.renaming import rewritten
from spoold.model.scaling import PoolSettings, ScaleSettings
from spoold.model.setting import CHOSEN, Described, describe
from tests.engines import REPOSITORY

ALL = [each for section in describe(Settings()) for each in section.settings]


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: f"{setting.section}.{setting.name}")
def test_a_setting_says_what_it_means(setting: Described) -> None:
    assert len(setting.description) > 8
    assert not setting.description.endswith("."), "descriptions become parts of sentences and tables"
    assert setting.unit in ("", "seconds", "bytes")
    if isinstance(setting.default, float):
        assert setting.unit == "seconds"


def test_all_settings_are_described() -> None:
    """The described settings are exactly those in the encoded defaults."""

    def leaves(table: object, path: str = "") -> set[str]:
        if not isinstance(table, dict) or not table:
            return {path}
        return {leaf for key, value in table.items() for leaf in leaves(value, f"{path}.{key}")}

    chosen = re.compile(rf"(.*)\.{CHOSEN}\..*")  # the defaults have no table whose names the operator chooses
    described = {chosen.sub(r"\1", f".{each.section}.{each.name}".replace("..", ".")) for each in ALL}
    assert described == leaves(msgspec.to_builtins(Settings()))


def test_bounds_hold() -> None:
    with pytest.raises(msgspec.ValidationError, match="attempts"):
        decode(b"[lease]\nattempts = 0\n")
    with pytest.raises(msgspec.ValidationError, match="memory"):
        decode(b"[limits.run.default]\nmemory = 0\n")


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("executor", "slots = -1"),  # no worker at all
        ("builder", "parallel = 0"),  # no build would ever begin
        ("builder", "slow = -1"),
        ("spool", "scan = 0.0"),  # scans would run without a pause
        ("spool", "remote_scan = -1.0"),
        ("spool", "max_file = 0"),
        ("spool", "min_free = -1"),
        ("lease", "renewal = 0.0"),
        ("lease", "check = 0.0"),
        ("lease", "attempts = 101"),  # each look for an id asks for this many names
        ("gc", "max_age = -1.0"),
        ("retention", "min_age = -1.0"),
        ("builder.limits", "time = 0.0"),
        ("limits", "work_size = -1"),
        ("builder.limits", "fetch_bytes = 0"),
        ("builder.limits", "fetch_time = 0.0"),
        ("turns", "weights = { alice = 0 }"),
        ("turns", "weights = { alice = 1001 }"),
    ],
)
def test_what_would_stop_all_work_is_no_setting(table: str, line: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=line.split(maxsplit=1)[0]):
        decode(f"[{table}]\n{line}\n".encode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lease]\nlimit = 9.0\n", r"lease.limit, 9 s, has to be at least twice lease.renewal, 5 s"),
        (
            "[limits.run.maximum]\nmemory = 1000000\n",
            r"limits.run.default.memory, 536870912, is above limits.run.maximum.memory, 1000000",
        ),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "spoold.toml"
    path.write_text(text)
    with pytest.raises(OperatorError, match=said):
        load(str(path))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("default.memory = 1000000", (20, 10)),
        ("default.cpu_time = 4.0", (8, 4)),
        ("default.time = 5.0", (5, 5)),
        ("default.time = 60", (60, 10)),
        ("default.time = 5\ndefault.cpu_time = 30", (5, 30)),
        ("default.cpu_time = 400.0", (600, 400)),
        ("maximum.time = 15.0", (15, 10)),
        ("maximum.time = 5.0", (5, 5)),
        ("maximum.cpu_time = 4.0", (20, 4)),
        ("default.cpu_time = 30\nmaximum.time = 40", (40, 30)),
    ],
)
def test_an_operators_times_of_a_run_go_together(text: str, got: tuple[float, float]) -> None:
    default = decode(f"[limits.run]\n{text}\n".encode()).limits.run.default
    assert (default.time, default.cpu_time) == got


def test_other_limits_and_wrong_times_are_read_as_before() -> None:
    limits = decode(
        b"[limits.compile]\ndefault.memory = 1000000\n[limits.run.default]\non_output_limit = 'end'\n"
    ).limits
    assert (limits.compile.default.time, limits.compile.default.cpu_time) == (30, 30)
    assert (limits.run.default.time, limits.run.default.on_output_limit) == (20, "end")
    for wrong in ("default.time = 'x'", "default = 3", "default.time = true", "maximum = 1", "maximum.time = 'x'"):
        with pytest.raises(msgspec.ValidationError, match=r"limits\.run"):
            decode(f"[limits.run]\n{wrong}\n".encode())


def test_a_spool_has_one_name_wherever_a_daemon_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By this name an executor tells the containers of its former life from those of other spools."""
    monkeypatch.chdir(tmp_path)
    assert decode(b"[spool]\npath = 'spool'\n").spool.path == str(tmp_path / "spool")
    assert decode(f"[spool]\npath = '{tmp_path}/x/../spool/'\n".encode()).spool.path == str(tmp_path / "spool")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[spool]\nsettel = 1.0\n", r"spoold.toml: .*`settel`.*`\$.spool`; `spoolctl config --defaults` shows every"),
        ("[spool]\nsettle = 'x'\n", r"spoold.toml: .*`\$.spool.settle`; `spoolctl config --defaults` shows every"),
        (f"{defaults.text()}\n[metrics]\n", r"spoold.toml: .*metrics.* twice .*; .* put the settings under the first"),
        ("[spool\n", "spoold.toml: .*line 1"),
    ],
)
def test_a_mistake_is_told_with_what_mends_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "spoold.toml"
    path.write_text(text)
    with pytest.raises(OperatorError, match=said):
        load(str(path))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fetch = ['https://github.com']", "fetch: 'https://github.com' is a URL: name the host alone, 'github.com'"),
        ("fetch = ['a.example', '*.b.example']", r"fetch: '\*\.b\.example' is a pattern, and only exact names count"),
        (
            "fetch_inside = ['10.1.2.3/24']",
            "fetch_inside: '10.1.2.3/24' is not a network: .*; write it as '10.1.2.0/24'",
        ),
        ("fetch = ['a.example']\nbuild_users = ''", 'fetch needs users that run builds, and build_users is ""'),
    ],
)
def test_what_is_no_host_to_download_from(line: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"{said}.* - at `\$\.nix`"):
        decode(f"[nix]\n{line}\n".encode())


def test_a_choice_is_one_of_those_described() -> None:
    mode = next(each for each in ALL if each.name == "mode")
    assert mode.choices == ("single-use", "recycled")


def test_what_can_be_taken_over_is_said_to_operators() -> None:
    operators = (REPOSITORY / "contrib/docs/operator.md").read_text()
    listed = operators.split("all others need a restart:", 1)[1].split(".\n", 1)[0]
    assert tuple(word.strip().strip("`") for word in listed.split(",")) == LIVE


def test_only_what_can_be_is_taken_over() -> None:
    now = Settings(nixpkgs={"default": "/a"})
    wanted = decode(b"""
        [spool]
        settle = 1.0
        path = "/elsewhere"
        [limits.run.default]
        time = 3.0
        [nixpkgs]
        default = "/a"
        other = "/b"
        """)
    change = take_over(now, wanted)
    assert change.taken_over == ["spool.settle", "limits.run", "nixpkgs.other"]
    assert change.left == ["spool.path"]
    assert change.settings.spool == msgspec.structs.replace(now.spool, settle=1.0)
    assert (change.settings.limits, change.settings.nixpkgs) == (wanted.limits, wanted.nixpkgs)
    assert take_over(now, now) == (now, [], [])


def test_the_default_file_sets_nothing_and_names_everything() -> None:
    text = defaults.text()
    assert decode(text.encode()) == Settings()
    set_ = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)
    example = {"default": "/srv/nixpkgs-24.11.tar.gz"}
    assert decode(set_.encode()) == msgspec.structs.replace(
        Settings(), nixpkgs=example, scale=ScaleSettings(pools={CHOSEN: PoolSettings()})
    )
    named = msgspec.toml.decode(set_)
    for each in ALL:
        table = named
        for part in filter(None, each.section.split(".")):
            table = table[part]
        assert each.name in table
    assert max(map(len, text.splitlines())) <= 120


FORMER = """# Where the engine is.
[docker]
host = "unix:///run/other.sock"
# What a container serves.
#mode = "single-use"
mode = "recycled"
waiting = 3 # more

[executor]
slots = 2
"""


def test_settings_that_had_other_names_are_understood() -> None:
    settings = decode(FORMER.encode())
    assert (settings.sandbox.mode, settings.sandbox.waiting) == ("recycled", 3)
    assert former_names(FORMER.encode()) == ["docker.mode", "docker.waiting"]
    assert former_names(msgspec.toml.encode(settings)) == []
    with pytest.raises(OperatorError, match=r"docker\.mode is called sandbox\.mode today, and both are set"):
        decode(b'[docker]\nmode = "recycled"\n[sandbox]\nmode = "recycled"\n')


def test_a_file_is_rewritten_with_the_names_of_today() -> None:
    text = rewritten(FORMER, MOVED)
    assert (
        text
        == """# Where the engine is.
[docker]
host = "unix:///run/other.sock"

[executor]
slots = 2

[sandbox]
# What a container serves.
#mode = "single-use"
mode = "recycled"
waiting = 3 # more
"""
    )
    assert decode(text.encode()) == decode(FORMER.encode())
    assert rewritten(text, MOVED) == text
    assert rewritten('docker.mode = "recycled"\n', MOVED) == 'sandbox.mode = "recycled"\n'
    assert (
        rewritten("[sandbox]\nwaiting = 1\n[docker]\nview = 'off'\n", MOVED)
        == "[sandbox]\nview = 'off'\nwaiting = 1\n[docker]\n"
    )


def test_text_and_commented_settings_stay_what_they_are() -> None:
    text = """[docker]
# view = required took too long here
host = "unix:///run/other.sock"
#view = "off"
#from the pilot,
  # last year
mode = "recycled"
"""
    assert (
        rewritten(text, MOVED)
        == """[docker]
# view = required took too long here
host = "unix:///run/other.sock"

[sandbox]
#view = "off"
#from the pilot,
  # last year
mode = "recycled"
"""
    )
    assert rewritten(text.replace("\n", "\r\n"), MOVED) == rewritten(text, MOVED).replace("\n", "\r\n")


@pytest.mark.parametrize("before", ["", "# all as it is", "[spool]\r\nscan = 1.0", '[docker]\n#mode = "recycled"\n'])
def test_a_file_with_the_names_of_today_is_left_alone(tmp_path: Path, before: str) -> None:
    file = tmp_path / "spoold.toml"
    file.write_bytes(before.encode())
    assert migrate(str(file)) == []
    assert file.read_bytes() == before.encode()


@pytest.mark.parametrize(
    "before",
    [
        'docker = { mode = "recycled" }',
        'docker.mode = "recycled"\n[sandbox]\nwaiting = 3',
        'sandbox.waiting = 3\n[docker]\nmode = "recycled"',
        'sandbox = { waiting = 3 }\n[docker]\nmode = "recycled"',
        '[docker]\n"mode" = "recycled"',
        '[docker]\nmode = """\\\nrecycled"""',
        '[nix]\nsystem = """\n[docker]\nmode = "single-use"\n"""\n[docker]\nmode = "recycled"',
    ],
)
def test_what_cannot_be_rewritten_line_by_line_is_left_to_its_owner(tmp_path: Path, before: str) -> None:
    file = tmp_path / "spoold.toml"
    file.write_text(before)
    assert load(str(file)).sandbox.mode == "recycled"
    with pytest.raises(OperatorError, match=r"move docker\.mode to sandbox\.mode by hand"):
        migrate(str(file))
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"# caf\xe9\n", "byte 5 is no UTF-8"),
        (b"sandbox = 3\n[docker]\nmode = 'recycled'\n", "Expected `object`, got `int`|unknown field `mode`"),
        (b"[limits.run]\ndefault = 3\n", "Expected `object`, got `int`"),
    ],
)
def test_a_file_that_is_no_file_of_settings_is_refused_in_words(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "spoold.toml"
    file.write_bytes(text)
    with pytest.raises(OperatorError, match=f"^{file}: .*({words})"):
        load(str(file))


def test_each_moved_setting_has_a_place_of_today() -> None:
    assert set(MOVED.values()) <= {f"{each.section}.{each.name}" for each in ALL}
    assert not set(MOVED) & {f"{each.section}.{each.name}" for each in ALL}


def test_an_engine_is_found_by_its_name() -> None:
    assert "docker" in engines.names()
    assert all(hasattr(engines.find("docker"), function) for function in engines.FUNCTIONS)
    with pytest.raises(OperatorError, match=r"there is no 'dokcer'\. Choose one of docker"):
        engines.find("dokcer")
    with pytest.raises(OperatorError, match="no function make"):
        engines.find("os.path")


def test_the_kind_of_machine_is_that_of_the_host_where_it_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", "aarch64")))
    assert NixSettings().kind == "aarch64-linux"
    assert NixSettings(system="x86_64-linux").kind == "x86_64-linux"
