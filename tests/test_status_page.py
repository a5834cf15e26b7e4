"""The status page: what real daemons write, what it never contains, that it delays no work, and how it looks."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.actors.health.status import StatusPage
from spoold.config import LeaseSettings, MetricsSettings, NixSettings, Settings, SpoolSettings
from spoold.config.file import decode, load
from spoold.host import textfile
from spoold.host.clock import Clock
from spoold.model.errors import OperatorError
from spoold.spool import layout
from spoold.upkeep.depth import Measure
from tests import browser
from tests.test_overload import Flooded
from tests.waiting import until

ROLES = ("intake", "executor", "builder", "health")
HIDDEN = "an-id-that-nobody-may-see"


class Served:
    """Daemons that write a status page at ``page``."""

    def __init__(self, directory: Path, name: str) -> None:
        self.flooded = Flooded(directory)
        self.files = directory / "collected"
        self.files.mkdir()
        self.page = self.files / name
        settings = msgspec.structs.replace(
            load(str(self.flooded.config)),
            metrics=MetricsSettings(directory=str(self.files), interval=1.0, status_page=name),
            nix=NixSettings(state=str(directory)),
        )
        self.flooded.config.write_bytes(msgspec.toml.encode(settings))

    def text(self) -> str:
        return self.page.read_text() if self.page.exists() else ""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, "status.html")
    umask = os.umask(0o077)  # like the units
    try:
        made.flooded.start(*ROLES)
        yield made
    finally:
        os.umask(umask)
        made.flooded.stop()


def cell(text: str, row: str, column: int) -> str:
    """Return one cell of the row whose first cell is ``row``."""
    found = re.search(rf'<th scope="row">{row}((?:<td class="n">[^<\n]*)*)', text)
    return found[1].split('<td class="n">')[column] if found else ""


def test_the_page_has_counts_and_times_and_nothing_else(served: Served) -> None:
    flooded = served.flooded
    flooded.until(lambda: cell(served.text(), "intake", 1) == "1 of 1")
    for number in range(3):
        flooded.drop(f"{HIDDEN}-{number}")
    flooded.drop(f"{HIDDEN}-naps", inputs="nap 1000")
    flooded.until(lambda: cell(served.text(), "completed", 1) == "3")
    flooded.until(lambda: cell(served.text(), "runs", 1) == "1")
    flooded.until(lambda: cell(served.text(), "executor", 2) == "1")
    flooded.until(lambda: "1 of 2 slots are in use" in served.text())
    flooded.until(lambda: cell(served.text(), "runs", 2).endswith(" s"))
    flooded.until(lambda: cell(served.text(), "completed", 2) == "0.0")  # the rate has fallen to zero
    flooded.until(lambda: cell(served.text(), "dropped", 1) == "0")
    flooded.until(lambda: cell(served.text(), "taken in", 1) == "4")
    for role in ROLES:
        flooded.until(lambda role=role: cell(served.text(), role, 1) == "1 of 1")  # type: ignore[misc] # mypy cannot infer it
    text = served.text()
    assert "Answers a minute" in text
    assert HIDDEN not in text
    assert str(flooded.spool) not in text
    assert "default" not in text.replace("default-src", ""), "an executor's name may be that of a host"
    assert served.page.stat().st_mode & 0o777 == 0o644
    assert '<meta http-equiv="refresh" content="5">' in text
    assert re.search(r"script-src 'sha256-[^']+';", text), "its own script alone"
    assert not [name for name in os.listdir(served.files) if name.endswith(".tmp") and "status" in name[:3]]
    (flooded.spool / "incoming" / f"{HIDDEN}-naps.cancel").write_text(f"{HIDDEN}-naps")
    flooded.until(lambda: cell(served.text(), "cancelled", 1) == "1")


def test_a_page_says_when_nobody_writes_it_any_more(served: Served) -> None:
    served.flooded.until(served.text)
    served.flooded.stop()
    assert "was stopped at" in served.text()
    assert 'http-equiv="refresh"' in served.text(), "the browser keeps loading the page, so it shows the new one"
    served.flooded.start(*ROLES)
    served.flooded.until(lambda: "was stopped at" not in served.text())


def test_a_worker_that_was_killed_is_no_longer_alive(served: Served) -> None:
    served.flooded.until(lambda: cell(served.text(), "builder", 1) == "1 of 1")
    served.flooded.processes["builder"].kill()
    served.flooded.processes["builder"].wait()
    # so that the test need not wait for the end of a lease
    os.utime(served.flooded.spool / "tmp" / "builder.host", (1, 1))
    served.flooded.until(lambda: cell(served.text(), "builder", 1) == "0 of 1")


def test_a_role_that_nobody_has_and_files_that_nobody_counts_are_said(tmp_path: Path) -> None:
    page, measure, files = make(tmp_path)
    measure()
    page()
    text = (files / "status.html").read_text()
    for role in ROLES:
        assert cell(text, role, 1) == "none", role
    assert cell(text, "scale", 1) == "", "a spool needs no pools"
    assert cell(text, "dropped", 1) == "not known", "intake counts them"


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path, "missing/status.html")
    flooded = served.flooded
    try:
        flooded.start(*ROLES)
        metrics = Path(textfile.path_of(str(served.files), str(flooded.spool), "health"))
        flooded.until(metrics.exists)
        written = {metrics.stat().st_mtime_ns}

        def written_again() -> bool:
            written.add(metrics.stat().st_mtime_ns)
            return len(written) > 3

        flooded.until(written_again)
        said = re.findall(
            r"^.*the status page cannot be written; trying again.*$", flooded.log.read_text(), re.MULTILINE
        )
        assert len(said) == 1, "once"
        assert str(served.page) in said[0]
        assert flooded.processes["health"].poll() is None
        flooded.drop("a")
        flooded.until(lambda: flooded.has("a"))
        served.page.parent.mkdir()
        flooded.until(served.text)
    finally:
        flooded.stop()


def test_a_page_needs_a_place() -> None:
    with pytest.raises(OperatorError, match=r"metrics.directory names no place"):
        decode(b'[metrics]\nstatus_page = "status.html"\n')
    assert decode(b'[metrics]\ndirectory = "/d"\nstatus_page = "status.html"\n').metrics.status_page == "status.html"


def make(directory: Path, interval: float = 1.0) -> tuple[StatusPage, Measure, Path]:
    """Return a page of a spool with entries, its measure, and its directory. It is due every ``interval`` seconds."""
    root, files = directory / "spool", directory / "files"
    layout.create(str(root))
    files.mkdir()
    for number in range(3):
        (root / "new" / f"{HIDDEN}{number}.json").touch()
    os.utime(root / "new" / f"{HIDDEN}0.json", (time.time() - 3970,) * 2)
    settings = Settings(
        spool=SpoolSettings(path=str(root)),
        lease=LeaseSettings(limit=30),
        metrics=MetricsSettings(directory=str(files), status_page="status.html", interval=interval),
    )
    measure = Measure(str(root), Clock(str(root / "tmp" / "test.probe")), ("new",))
    return StatusPage(settings, measure), measure, files


def test_files_of_others_are_not_trusted(tmp_path: Path) -> None:
    """Users who may write beside the page can use a link or a pipe. They add nothing to it and delay nobody."""
    page, measure, files = make(tmp_path)
    root = str(tmp_path / "spool")
    hostile = [
        'spoold_responses_total{status="COMPLETED"} 1e999',
        'spoold_responses_total{status="<script>"} 7',
        'spoold_responses_total{status="EVIL"} 7',
        'spoold_entries{state="incoming"} <b>',
        "spoold_slots{} nan",
        "spoold_slots_busy{} 2",
        "\x00\xff" * 100,
        'spoold_entries{state="incoming"} 1e308',
        'spoold_oldest_seconds{state="incoming"} 1e300',
        'spoold_responses_total{status="COMPLETED"} 9e14',
        'spoold_responses_total{status="REJECTED"} -5',
        "spoold_slots{} 1e15",
        # A reader that tries each end of a line for each label would take hours
        "spoold_entries{" + 'state="incoming"} ' * 100_000,
        "spoold_responses_total{" + 'status="} ' * 100_000,
    ]
    Path(textfile.path_of(str(files), root, "intake")).write_bytes("\n".join(hostile).encode("latin-1"))
    os.mkfifo(textfile.path_of(str(files), root, "builder"))
    Path(textfile.path_of(str(files), root, "health")).symlink_to("/etc/passwd")
    os.mkdir(textfile.path_of(str(files), root, "executor-x"))
    measure()
    page()
    text = (files / "status.html").read_text()
    assert cell(text, "waits for a worker", 1) == "3"
    assert cell(text, "waits for a worker", 2) == "1 h 6 min"
    assert cell(text, "dropped", 1) == "0"
    assert cell(text, "completed", 1) == "over 1e+12"
    assert "2 of over 1e+12 slots" in text
    for foreign in ("evil", "EVIL", "root:", "<b>", "inf", "nan", HIDDEN):
        assert foreign not in text, foreign
    assert text.count("<script>") == 1
    with browser.started() as chromium:
        tab = chromium.page()
        tab.open(files / "status.html", width=360)
        assert tab.errors == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_numbers_that_grow_beyond_all_bounds_are_written(tmp_path: Path) -> None:
    page, measure, files = make(tmp_path)
    metrics = Path(textfile.path_of(str(files), str(tmp_path / "spool"), "intake"))
    measure()
    for number, at in ((0, 100.0), (1e15, 100.001)):
        metrics.write_text(f'spoold_responses_total{{status="COMPLETED"}} {number}\n')
        os.utime(metrics, (at, at))
        page()
    text = (files / "status.html").read_text()
    assert cell(text, "completed", 2) == "over 1e+12"
    assert "over 1e+12 at most" in text


def test_a_browser_says_how_old_a_page_is(tmp_path: Path) -> None:
    """A killed health leaves its page. Nothing in a page that stays as it is can tell, but its script."""
    page, measure, files = make(tmp_path, interval=3600)
    measure()
    page()
    path = files / "status.html"
    text = path.read_text()
    said = "document.getElementById('late').textContent"
    with browser.started() as chromium:
        tab = chromium.page()
        tab.open(path)
        assert tab.evaluate(said) == ""
        for age, ago in ((5 * 3600, "5 h"), (-5 * 3600, "")):
            then = f'data-made="{time.time() - age:.0f}" data-most="60"'
            path.write_text(re.sub(r'data-made="\d+" data-most="\d+"', then, text))
            tab.open(path, width=360)
            assert tab.errors == [], "the policy lets the script run"
            assert (f"last written {ago} ago" in tab.evaluate(said)) == bool(ago)
            assert bool(tab.evaluate(said)) == bool(ago), "a clock that is behind is no reason to alarm"
            assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_page_is_never_written_after_its_last(tmp_path: Path) -> None:
    page, measure, files = make(tmp_path)
    measure()
    page()
    page.end()
    page()
    assert "was stopped at" in (files / "status.html").read_text()
    assert os.listdir(files) == ["status.html"]


def test_a_browser_shows_it_and_reads_it_again(tmp_path: Path) -> None:
    page, measure, files = make(tmp_path, interval=3600)  # so that no browser reloads it in the middle of a look
    measure()
    page._history.extend([1, 5, 0, 3])
    page()
    with browser.started() as chromium:
        tab = chromium.page()
        backs = []
        for dark in (False, True):
            tab.open(files / "status.html", width=360, dark=dark)
            assert tab.errors == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= 360
            assert tab.evaluate("document.querySelectorAll('svg[aria-label]').length") == 1
            backs.append(tab.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
            tab.screenshot(tmp_path / f"{dark}.png")
        assert backs[0] != backs[1]
        (tmp_path / "often").mkdir()
        page, measure, files = make(tmp_path / "often")
        measure()
        page()
        tab.open(files / "status.html")
        page.end()

        def says_so() -> bool:
            with contextlib.suppress(AssertionError):  # while it reloads there is no page to ask
                return bool(tab.evaluate("document.body.textContent.includes('was stopped at')"))
            return False

        until(says_so)
