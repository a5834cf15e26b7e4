"""Reports in a real browser: no script of strangers runs, and people with and without a mouse can use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import report
from spoold.cli.report import Row
from spoold.client.response import Case, Difference, Phase, Response, ReturnedFile, Summary
from spoold.model import page as pages
from tests import browser
from tests.browser import Browser, Page

RUNS = "document.title='it ran';window.ran=1"
HOSTILE = [
    f"</script><script>{RUNS}</script>",
    f"</style></title></pre></bdi></option></select><script>{RUNS}</script>",
    f'"><img src=x onerror="{RUNS}">',
    f"' autofocus onfocus='{RUNS}' x='",
    f"x onmouseover={RUNS}",
    f"<svg onload={RUNS}>",
    f"<details open ontoggle={RUNS}><summary>x</summary></details>",
    "<style>*{display:none!important}</style><meta http-equiv=refresh content='0;url=http://127.0.0.1:1/'>",
    "<base href=http://127.0.0.1:1/><link rel=stylesheet href=/x><iframe src=http://127.0.0.1:1/></iframe>",
    "<!-- --!> <![CDATA[ ]]> <?x ?> &lt;script&gt; &#60;script&#62;",
    "<form action=http://127.0.0.1:1/><input name=find><input id=f><p id=n><table id=t>",
    f"javascript:{RUNS}",
    "\u202egnp.exe \u2066\u200f עברית العربية",
    "\x00\x07\x1b[31m\r\x7f\x9b\u2028",
    "lone \ud800 and \udfff",
    "Z\u0334\u0335\u0336\u0337\u0338" * 30,
    "w" * 3000,
    "",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as found:
        yield found


@pytest.fixture
def page(chromium: Browser) -> Page:
    return chromium.page()


def hostile_rows() -> list[Row]:
    """Return rows of programs in which each text is hostile."""
    rows = []
    for number, text in enumerate(HOSTILE):
        run = Phase(stdout=text, stderr=text, time=0.1 * number, memory=number << 20, signal=text, outcome=text)
        difference = Difference(line=1, column=1, expected=text, printed=f"{text}{text}")
        cases = [
            Case(name=text, verdict="wrong_answer", run=run, difference=difference, message=text, interaction=text),
            Case(name=f"2{text}", verdict=text, run=run),
        ]
        common = {"reason": text, "notes": [text], "submitted": text, "compile": run, "outputs_missing": [text]}
        file = ReturnedFile(name=text, size=1, sha256=text)
        summary = Summary(verdict=text or "wrong_answer", accepted=0, of=2, points=0, of_points=2)
        judged = Response(id=text, status="COMPLETED", cases=cases, summary=summary, outputs=[file], **common)  # type: ignore[arg-type]
        failed = Response(id=text, status=text, run=run, **common)  # type: ignore[arg-type]
        rows += [Row(text, f"1{text}", judged), Row(text, f"2{text}", failed)]
    return rows


def judged(number: int, *, failed: bool) -> Row:
    """Return the row of a program with four cases. A failed one has wrong answers in the second and the fourth."""
    cases = []
    for at in range(4):
        is_wrong = failed and at % 2 == 1
        run = Phase(stdout=f"line {at}\n", time=(number + 1) * 0.1 + at, memory=(20 - number) << 20, outcome="ok")
        verdict = "wrong_answer" if is_wrong else "accepted"
        difference = Difference(line=1, column=1, expected="1 " * 40, printed="1 " * 39 + "2") if is_wrong else None
        cases.append(Case(name=f"case-{at}", verdict=verdict, points=not is_wrong, run=run, difference=difference))
    well = 2 if failed else 4
    verdict = "wrong_answer" if failed else "accepted"
    summary = Summary(verdict=verdict, accepted=well, of=4, points=well * 2.5, of_points=10)
    response = Response(id=f"id-{number}", status="COMPLETED", cases=cases, summary=summary)
    return Row(f"student{number}.py", f"id-{number}", response)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a report of twelve programs. The even ones failed."""
    path = tmp_path / "report.html"
    report.write(str(path), "Exercise 3", [judged(number, failed=number % 2 == 0) for number in range(12)])
    return path


def shown(page: Page) -> list[str]:
    """Return the names of the programs that are shown, in order."""
    found: list[str] = page.evaluate(
        "Array.from(document.querySelectorAll('tbody:not([hidden])'), body => body.querySelector('bdi').textContent)"
    )
    return found


def said(page: Page) -> str:
    """Return the text that a screen reader announces after a change."""
    text: str = page.evaluate("document.querySelector('[aria-live=polite]').textContent")
    return text


# -- strangers


def ran(page: Page) -> bool:
    """Touch everything on a page. Tell whether any script of a stranger ran."""
    page.evaluate(
        """(() => { for (const each of document.querySelectorAll('details')) each.open = true;
        for (const each of document.querySelectorAll('*')) each.dispatchEvent(new MouseEvent('mouseover')); })()"""
    )
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    return bool(page.evaluate("window.ran === 1 || document.title === 'it ran'"))


def test_nothing_that_strangers_wrote_runs(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    report.write(str(path), HOSTILE[0], hostile_rows(), cases=HOSTILE, made=HOSTILE[2])
    page.open(path)
    assert not ran(page)
    assert page.requested == [path.as_uri()], "a page loads nothing else"
    assert page.errors == [], "the script works, and the policy had nothing to refuse"
    assert page.evaluate("document.title") == HOSTILE[0]
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    foreign = "img,iframe,base,link,object,embed,form:not(#f),style:not(head style),meta:not(head meta),[style]"
    assert page.evaluate(f"document.querySelectorAll('{foreign}').length") == 0
    assert page.evaluate(
        "Array.from(document.querySelectorAll('*')).every(e => e.getAttributeNames().every(a => !a.startsWith('on')))"
    )
    names = set(shown(page))
    for text in HOSTILE[:12]:
        assert text in names, "the text is shown as it was written"
    assert "\\u202egnp.exe \\u2066\\u200f עברית العربية" in names
    assert "\\x00\\x07\\x1b[31m\\r\\x7f\\x9b\\u2028" in names
    assert "lone \\ud800 and \\udfff" in names
    assert len(shown(page)) == 2 * len(HOSTILE)
    assert page.evaluate("Math.min(...Array.from(document.querySelectorAll('tbody'), b => b.offsetHeight))") > 0


@pytest.mark.parametrize("defence", ["neither", "escapes", "policy"])
def test_escapes_and_the_policy_are_each_enough(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defence: str
) -> None:
    """Without both defences the texts above would run."""
    if defence != "escapes":
        monkeypatch.setattr("spoold.cli.report.text.escaped", str)
    html = report.html("t", [Row(text, "x", Response(status="REJECTED", reason=text)) for text in HOSTILE[1:7]])
    if defence != "policy":
        html = html.replace("Content-Security-Policy", "x-nothing")
    path = tmp_path / "page.html"
    path.write_text(html)
    page.open(path)
    assert ran(page) == (defence == "neither")


@pytest.mark.parametrize("policy", [True, False])
def test_what_is_added_to_a_page_does_not_run(page: Page, file: Path, *, policy: bool) -> None:
    if not policy:
        file.write_text(file.read_text().replace("Content-Security-Policy", "x-nothing"))
    page.open(file)
    page.evaluate(
        """(() => { const add = (name, text) => {
          const each = document.createElement(name); each.textContent = text; document.body.append(each); };
        add("script", "window.ran = 1"); add("style", "body{outline:7px solid red}");
        const button = document.createElement("button"); button.setAttribute("onclick", "window.clicked = 1");
        button.setAttribute("style", "outline:7px solid red"); document.body.append(button); button.click();
        window.styled = getComputedStyle(document.body).outlineWidth + getComputedStyle(button).outlineWidth; })()"""
    )
    assert page.evaluate("window.ran === 1") != policy
    assert page.evaluate("window.clicked === 1") != policy
    assert ("7px" in page.evaluate("window.styled")) != policy
    assert any("Content Security Policy" in error for error in page.errors) == policy
    page.errors.clear()
    page.evaluate(
        "new Promise(done => { const i = new Image(); i.onerror = i.onload = done; i.src = 'http://127.0.0.1:1/'; })"
    )
    assert any("img-src" in error or "default-src" in error for error in page.errors) == policy


# -- people


def focus(page: Page, what: str) -> None:
    """Go to an element by the keyboard alone. ``what`` is a condition about ``e``."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(200):
        page.press("Tab")
        if page.evaluate(f"(e => {what})(document.activeElement)"):
            seen = page.evaluate(
                "(s => [s.outlineStyle, parseFloat(s.outlineWidth)])(getComputedStyle(document.activeElement))"
            )
            assert seen[0] != "none", "the focus is visible"
            assert seen[1] >= 2
            return
    raise AssertionError(f"the keyboard does not get to {what}")


def test_one_sorts_by_the_keyboard(page: Page, file: Path) -> None:
    page.open(file)
    assert shown(page)[:7] == [f"student{number}.py" for number in (0, 2, 4, 6, 8, 10, 1)], "failures come first"
    assert page.evaluate("document.querySelector('th[aria-sort=ascending]').textContent") == "Result"
    focus(page, "e.textContent === 'Program'")
    page.press("Enter")
    assert shown(page) == [f"student{number}.py" for number in range(12)]
    assert said(page) == "12 of 12 programs, by program"
    page.press("Space")
    assert shown(page)[:2] == ["student11.py", "student10.py"]
    assert said(page) == "12 of 12 programs, by program, descending"
    assert page.evaluate("document.querySelector('th[aria-sort=descending]').textContent") == "Program"
    assert page.evaluate("document.querySelectorAll('th[aria-sort=none]').length") == 5
    focus(page, "e.textContent === 'Memory'")
    page.press("Enter")
    assert shown(page)[0] == "student11.py"
    focus(page, "e.textContent === 'Points'")
    page.press("Enter", 2)
    assert shown(page)[0] == "student1.py"
    assert page.errors == []


def test_what_was_not_measured_comes_last_either_way(page: Page, tmp_path: Path) -> None:
    rows = [Row("none", "", None), judged(2, failed=True), judged(1, failed=False)]
    report.write(str(tmp_path / "r.html"), "t", rows)
    page.open(tmp_path / "r.html")
    focus(page, "e.textContent === 'Time'")
    page.press("Enter")
    assert shown(page) == ["student1.py", "student2.py", "none"]
    page.press("Enter")
    assert shown(page) == ["student2.py", "student1.py", "none"]


def test_one_filters_by_the_keyboard(page: Page, file: Path) -> None:
    page.open(file)
    focus(page, "e.name === 'find'")
    for character in "student1":
        page.press(character)
    assert shown(page) == ["student10.py", "student1.py", "student11.py"]
    assert said(page) == "3 of 12 programs, by result"
    focus(page, "e.name === 'result'")
    page.press("End")
    assert page.evaluate("document.getElementById('f').elements.result.value") == "accepted"
    assert shown(page) == ["student1.py", "student11.py"]
    focus(page, "e.textContent === 'All'")
    page.press("Enter")
    page.evaluate("new Promise(done => setTimeout(done))")
    assert len(shown(page)) == 12
    focus(page, "e.name === 'case'")
    page.press("2")
    assert page.evaluate("document.getElementById('f').elements.case.selectedOptions[0].text") == "2 case-1"
    assert shown(page) == [f"student{number}.py" for number in range(0, 12, 2)]
    page.press("Down")
    assert not shown(page), "nobody failed in the third case"
    assert said(page) == "0 of 12 programs, by result"
    assert page.errors == []


def test_details_open_by_the_keyboard(page: Page, file: Path) -> None:
    page.open(file)
    focus(page, "e.textContent.startsWith('case-1: wrong answer')")
    page.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    sides = page.evaluate(
        "Array.from(document.querySelectorAll('details[open] .b pre'), e => e.getBoundingClientRect().top)"
    )
    assert len(sides) == 4
    assert sides[0] == sides[1], "both sides of a difference stand side by side"
    focus(page, "e.textContent === 'Open details'")
    page.press("Enter")
    assert page.evaluate("document.querySelectorAll('tbody details[open]').length") == 12
    page.press("Enter")
    assert page.evaluate("document.querySelectorAll('tbody details[open]').length") == 0


def test_all_of_it_is_there_without_the_script(page: Page, file: Path) -> None:
    page.open(file, script=False)
    assert page.evaluate("document.getElementById('f').offsetHeight") == 0, "fields that do nothing are hidden"
    assert page.evaluate("document.querySelectorAll('th button').length") == 0
    focus(page, "e.textContent.startsWith('case-1: wrong answer')")
    page.press("Enter")
    assert page.evaluate("document.querySelector('tbody details[open] pre').offsetHeight") > 0


@pytest.mark.parametrize("width", [320, 360, 800, 1300])
@pytest.mark.parametrize("hostile", [False, True])
def test_no_page_is_wider_than_its_screen(page: Page, file: Path, tmp_path: Path, width: int, *, hostile: bool) -> None:
    if hostile:
        report.write(str(file), HOSTILE[16], hostile_rows(), cases=HOSTILE, made=HOSTILE[16])
    page.open(file, width=width)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(tmp_path / "seen.png")
    if width <= 360:
        outside = page.evaluate(
            f"Array.from(document.querySelectorAll('body *')).filter(e => e.getBoundingClientRect().right > {width} "
            "&& getComputedStyle(e).visibility !== 'hidden').map(e => e.outerHTML.slice(0, 200))"
        )
        assert outside == [], "nothing is cut off"


def luminance(colour: list[float]) -> float:
    """Return the luminance of a colour, as WCAG defines it."""
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_and_light_differ_and_can_be_read(page: Page, file: Path) -> None:
    backs = []
    for dark in (False, True):
        page.open(file, dark=dark)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found: list[list[Any]] = page.evaluate(
            """Array.from(document.querySelectorAll('h1, .dim, td, span, summary, mark, pre, button, input'), e => {
            const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
            let behind = e;
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            return [e.tagName + '.' + e.className, numbers(getComputedStyle(e).color),
              numbers(getComputedStyle(behind).backgroundColor)]; })"""
        )
        assert len(found) > 50
        for what, colour, behind in found:
            lighter, darker = sorted((luminance(colour), luminance(behind)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (what, dark)
        backs.append(luminance(found[0][2]))
    assert backs[0] > 0.8
    assert backs[1] < 0.1


def test_the_style_of_all_pages_says_which_colours_it_has() -> None:
    assert "color-scheme:light dark" in pages.STYLE
