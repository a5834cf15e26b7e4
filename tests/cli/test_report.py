"""Reports: the content of a page, its size, and how it is written. test_report_seen is about its looks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spoold import model
from spoold.cli import report
from spoold.cli.report import Row, detail, table
from spoold.client.response import Case, Difference, Phase, Response, ReturnedFile, Summary, read
from spoold.host import fsops
from spoold.model.response import Status

LINE = [sys.executable, "-m", "spoold.cli.ctl", "report"]
ACCEPTED = Case(name="one", verdict="accepted", points=1, run=Phase(time=0.25, memory=3 << 20, outcome="ok"))


def judged(*cases: Case, **keys: object) -> Response:
    """Return the response of a program that was run on cases."""
    failed = next((case.verdict for case in cases if case.verdict != "accepted"), "accepted")
    well = sum(case.verdict == "accepted" for case in cases)
    summary = Summary(verdict=failed, accepted=well, of=len(cases), points=well, of_points=len(cases))
    return Response(id="x", status="COMPLETED", cases=list(cases), summary=summary, **keys)  # type: ignore[arg-type]


def wrong(name: str = "two", stdout: str = "", **keys: object) -> Case:
    """Return a case with a wrong answer."""
    difference = Difference(line=3, column=7, expected="the sum is 42\\n", printed="the sum is 41\\n")
    run = Phase(stdout=stdout, time=0.5, memory=5 << 20, outcome="ok")
    return Case(name=name, verdict="wrong_answer", run=run, difference=difference, **keys)  # type: ignore[arg-type]


class Seen(HTMLParser):
    """An independent reader of a page: its elements, attributes, and the text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._within = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - its caller names it
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in {"style", "script"}:
            self.text += data


def test_what_failed_comes_first_and_all_of_it_is_told() -> None:
    rows = [
        Row("good.py", "id-1", judged(ACCEPTED)),
        Row("late.py", "", None),
        Row(
            "bad.py",
            "id-2",
            judged(ACCEPTED, wrong(message="off by one", interaction=">7\n<lower\n"), notes=["a note"], attempt=2),
        ),
        Row(
            "crash.py",
            "id-3",
            Response(id="id-3", status="RUN_FAILED", run=Phase(time=1, signal="SIGSEGV", outcome="signalled")),
        ),
        Row("gone.py", "id-4", Response(id="id-4", status="CANCELLED")),
    ]
    seen = Seen(report.html("Exercise 3", rows, made="made by a test"))
    order = [seen.text.index(name) for name in ("bad.py", "crash.py", "late.py", "gone.py", "good.py")]
    assert order == sorted(order)
    for told in (
        "Exercise 3", "made by a test", "5 programs", "wrong answer", "signalled", "no response", "cancelled", "id-2",
        "1 of 2", "1 p", "0.500 s", "5.0 MiB", "two: wrong answer, off by one", "line 3, column 7", "the sum is 4",
        "a note", "attempt 2", "run: SIGSEGV", ">7\n<lower",
    ):  # fmt: skip
        assert told in seen.text, told
    assert "style" not in [name for name, _ in seen.attributes]


def test_cases_have_the_columns_that_are_asked_for_and_others_come_after_them() -> None:
    rows = [
        Row("a", "", judged(wrong("c"), Case(name="b", verdict="time_limit"), Case(name="new", verdict="brand_new")))
    ]
    html = report.html("t", rows, cases=["a", "b"])
    assert '<th scope="col" class="c" title="a">1' in html
    assert "<td><td class=x>TL<td class=x>WA<td class=w>?" in html
    assert "brand new" in html


def test_a_response_of_the_model_is_taken_as_well() -> None:
    html = report.html("t", [Row("a", "a", model.response.Response(status=Status.REJECTED, reason="files: needed"))])
    assert "files: needed" in html


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<b>\"'&amp;", "&lt;b&gt;&quot;&#39;&amp;amp;"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("\x00\x1b[31m\x7f\x9b\r", "\\x00\\x1b[31m\\x7f\\x9b\\r"),
        ("x\ud800y\udfff", "x\\ud800y\\udfff"),
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
    ],
)
def test_what_strangers_write_is_shown_and_does_nothing(hostile: str, shown: str) -> None:
    file = ReturnedFile(name=hostile, size=1, sha256="")
    case = Case(
        name=hostile,
        verdict=hostile,
        message=hostile,
        difference=Difference(expected=hostile, printed=hostile),
        interaction=f">{hostile}\n",
    )
    response = Response(
        id=hostile, status=hostile, reason=hostile, notes=[hostile], submitted=hostile, outputs=[file],
        outputs_missing=[hostile], cases=[case, wrong(hostile, hostile)],
        compile=Phase(stderr=hostile, outcome=hostile),
        run=Phase(stdout=hostile, signal=hostile, outcome=hostile),
    )  # fmt: skip
    html = report.html(hostile, [Row(hostile, hostile + "1", response)], [hostile], hostile)
    assert html.count(shown) > 15
    assert hostile not in html
    html.encode()  # only valid Unicode is left


def test_bytes_that_are_no_text_are_shown() -> None:
    odd = base64.b64encode(b"caf\xe9 \xff\n").decode()
    run = Phase(stdout=odd, stdout_encoding="base64", stderr="%", stderr_encoding="base64", outcome="nonzero_exit")
    html = report.html("t", [Row("a", "", Response(status="RUN_FAILED", run=run))])
    assert "caf\\xe9 \\xff" in html
    assert "<pre>%</pre>" in html, "text that is not base64 is shown as it is"


def test_long_outputs_are_cut_and_it_says_by_how_much() -> None:
    run = Phase(stdout="x" * 100_000, stdout_bytes=5 << 20, stderr="line\n" * 1000, outcome="nonzero_exit")
    html = report.html("t", [Row("a" * 5000, "", Response(status="RUN_FAILED", run=run))])
    assert len(html) < 40_000
    assert "93.8 KiB more in the response; 4.9 MiB more were printed but not kept" in html
    assert "4.6 KiB more in the response" in html
    assert "a" * 200 + "…" in html


def test_a_page_of_many_programs_has_a_size_that_one_can_open() -> None:
    cases = [wrong(f"case-{number}", "x<" * 20_000, message="<" * 5000) for number in range(20)]
    html = report.html("t", [Row(f"p{number}", f"id-{number}", judged(*cases)) for number in range(1000)])
    assert len(html.encode()) < 8 << 20
    assert "more parts of the response did not fit into this page" in html
    assert html.count('<div class="b">') >= 1000, "each shows its first difference"
    assert html.count("&lt;x&lt;x&lt;") >= 1000, "and a little of its output"


def test_more_cases_than_columns_are_counted() -> None:
    many = [wrong(f"case-{number}") for number in range(table.MOST + 30)]
    html = report.html("t", [Row("a", "", judged(*many))])
    assert html.count("<td class=x>") == table.MOST
    assert "Failed of 30 more" in html
    assert html.endswith("</html>\n")
    assert '<td class="n">30' in html


def test_the_details_of_programs_that_failed_have_more_room() -> None:
    failed, well = list(detail.rooms(["x"] + ["a"] * 999))[:2]
    assert failed.left == pytest.approx(4 * well.left, rel=0.01)


def test_numbers_that_are_odd_break_nothing() -> None:
    for number in (-5, 0, 10**300, 5e-324):
        cases = [
            Case(name=str(n), verdict="accepted", run=Phase(time=float(number), memory=n)) for n in (0, -1, 1 << 62)
        ]
        html = report.html("t", [Row("a", "", judged(*cases)), Row("b", "", judged(*cases[:1]))])
        assert "nan" not in html
        assert "inf" not in html


def test_an_empty_page_is_one() -> None:
    assert "0 programs" in report.html("", [])


# -- the file


def test_a_page_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "r.html", tmp_path / "link.html"
    path.write_text("before")
    link.symlink_to(path)

    def fails(_private: str, _public: str) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(fsops, "replace", fails)
        with pytest.raises(OSError, match="the disk is gone"):
            report.write(str(path), "t", [])
    assert path.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["link.html", "r.html"]
    assert report.write(str(link), "t", []) == path.stat().st_size
    assert link.is_symlink()
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert sorted(os.listdir(tmp_path)) == ["link.html", "r.html"]


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(GOOD))
    for words in (["-o", "-"], ["-o", "/dev/stdout"]):
        assert run(tmp_path, "b.json", *words).stdout.endswith("</html>\n")
    assert "directory" in run(tmp_path, "b.json", "-o", str(tmp_path), code=1).stderr
    assert os.listdir(tmp_path) == ["b.json"]


def test_a_name_without_a_directory_is_beside_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report.write("r" * 250, "t", [])
    assert os.listdir(tmp_path) == ["r" * 250]


# -- the command


def run(directory: Path, *words: str, given: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*LINE, *words], cwd=directory, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


GOOD = {
    "Submission_id": "b",
    "status": "COMPLETED",
    "run": {"stdout": "hi", "time": 0.5, "outcome": "ok", "new key": 1},
}
BAD = {"Submission_id": "c", "status": "REJECTED", "reason": "files: needed"}


def test_files_are_responses_arrays_of_them_or_lines(tmp_path: Path) -> None:
    (tmp_path / "b.response.json").write_text(json.dumps(GOOD, indent=2))
    (tmp_path / "c.refused.json").write_text(json.dumps(BAD))
    (tmp_path / "two.json").write_text(json.dumps([GOOD | {"Submission_id": "d"}, BAD | {"Submission_id": "e"}]))
    lines = [
        GOOD | {"Submission_id": "f"},
        {"name": "alice.py", "Submission_id": "g", "response": BAD},
        {"name": "late.py", "response": None},
    ]
    given = "".join(json.dumps(line) + "\n\n" for line in lines)
    done = run(tmp_path, "b.response.json", "c.refused.json", "two.json", "-", "--title", "All", given=given)
    assert done.stderr.startswith("report.html: 7 programs, 3 failed, ")
    seen = Seen((tmp_path / "report.html").read_text())
    for name in ("All", "b", "c", "d", "e", "f", "alice.py", "late.py", "files: needed", "spoolctl report, "):
        assert name in seen.text
    done = run(tmp_path, "two.json", "-o", "other.html", "--json")
    told = json.loads(done.stdout)
    assert told == {"file": "other.html", "size": (tmp_path / "other.html").stat().st_size, "programs": 2, "failed": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "x.json is no response"),
        ('{"x": 1}', 'x.json is no response: it has neither "status" nor "response"'),
        ('{"status": "COMPLETED"}\n{"status": ', "x.json, line 2, is no response"),
        ('{"status": "COMPLETED", "run": {"time": {}}}', "x.json is no response"),
        ("[" * 100_000, "x.json is no response"),
        ('{"status": "\xff"}', ""),
        ("7", "x.json is no response"),
    ],
)
def test_what_is_no_response_is_named(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    done = run(tmp_path, "x.json", "--json", code=1)
    assert why in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 1
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "gone.json" in run(tmp_path, "gone.json", code=1).stderr
    assert run(tmp_path, code=2).stderr
    assert "not both" in run(tmp_path, "gone.json", "-o", "-", "--json", code=2).stderr


def test_the_command_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(GOOD))
    code = "import sys\nfrom spoold.cli import ctl\ntry: ctl.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "b.json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not {"rich", "docker", "asyncio", "watchdog", "spoold.config"} & set(done.stderr.split())


def test_a_response_is_read_as_a_client_reads_it() -> None:
    assert read(json.dumps(GOOD).encode()).run.stdout == "hi"
