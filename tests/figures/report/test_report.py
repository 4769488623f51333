"""The report: self-contained, says what the data says, escapes, and works in a browser."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from xhat.analysis.result import Result
from xhat.analysis.table import Table
from xhat.figures.kit.data import load_data
from xhat.figures.report.page import advice, write_report


@pytest.fixture(scope="module")
def report(run):
    return write_report(run)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.mark.slow
def test_it_needs_nothing_beside_itself(report):
    text = report.read_text()
    for tag, attrs in Elements(text).found:
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "data:").startswith(("data:", "#")), (tag, name)
    assert re.findall(r"url\(.{6}", text) == ['url("data:']
    assert "@import" not in text


@pytest.mark.slow
def test_pictures_have_alternative_texts_and_tables_headers(report):
    found = Elements(report.read_text()).found
    images = [attrs for tag, attrs in found if tag == "img"]
    assert len(images) == 5  # the wall shows what the filmstrip would
    assert all(len(attrs["alt"]) > 20 for attrs in images)
    assert {attrs.get("scope") for tag, attrs in found if tag == "th"} == {"col", "row"}
    assert ("html", {"lang": "en"}) in found
    assert any(tag == "main" for tag, _ in found)


@pytest.mark.slow
def test_hostile_names_stay_text(report):
    text = report.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "the lowest CKA is at &lt;h&gt;" in text


@pytest.mark.slow
def test_the_report_of_a_run_says_what_its_result_says(run, tmp_path):
    table = Table(["model", "Vendi"], [["<base>", (1.8, 1.4, 2.4)]])
    data = {name: load_data(name, run) for name in ("measured", "diversity")}
    result = Result("demo", data, table, ["The hybrid & its student."], {})
    text = write_report(result.save(tmp_path)).read_text()
    assert "The hybrid &amp; its student." in text
    assert "&lt;base&gt;" in text
    assert "1.8 <small>[1.4, 2.4]</small>" in text


@pytest.mark.slow
def test_the_page_opens_without_an_error_and_holds_the_wall(report, page):
    page.open(report)
    assert page.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('.xhat-wall .cell').length") == 18
    page.run("document.querySelector('.level').focus()")
    code = {"key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}
    page.ask("Input.dispatchKeyEvent", type="keyDown", **code)
    assert page.run("document.querySelector('.now').textContent") == "σ = 0.7"
    assert page.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1000])
def test_nothing_is_wider_than_the_page(report, page, width):
    page.open(report, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_dark_is_dark(report, page):
    page.open(report, dark=True)
    ink, paper = (
        page.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    light = [sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in (ink, paper)]
    assert light[0] > 500
    assert light[1] < 150


@pytest.mark.parametrize(
    ("shift", "says"),
    [
        (0.3, "Let the base begin"),
        (-0.3, "Keep the student"),
        (0.0, "Keep the student: the hybrid changes"),
    ],
)
def test_the_advice_is_that_of_the_verdict(measured, shift, says):
    measured = measured.isel(prompt=[0, 1, 2, 3] * 2)
    values = measured["vendi_q2"].values.copy()
    values[3] = values[2] + shift + np.tile([0.02, -0.02, 0.01, -0.01], 2)
    text = advice(measured.assign(vendi_q2=(("arm", "prompt"), values)))
    assert text.startswith(says)
    assert "spends 4 evaluations" in text
    assert advice(measured.isel(prompt=slice(4))).startswith("Measure more")  # too few prompts


@pytest.mark.slow
def test_the_story_goes_from_the_finding_to_what_to_do(report):
    text = report.read_text()
    places = [text.index(f"<h2>{part}</h2>") for part in ("How sure", "Where it happens")]
    places = [text.index('class="headline"'), text.index('id="samples"'), *places]
    places += [text.index('id="wall-title"'), text.index("<h2>What to do</h2>")]
    assert places == sorted(places)
    for term in ("σ", "x̂₀", "Vendi", "Fidelity", "Evaluations", "student", "hybrid"):
        assert text.count(f"<dfn>{term}</dfn>") == 1


@pytest.mark.slow
def test_a_level_in_the_text_moves_the_wall(report, page):
    page.open(report)
    page.run("document.querySelector('figcaption a[href=\"#wall&sigma=4\"]').click()")
    page.run("new Promise(r => setTimeout(r, 50))")
    assert page.run("document.querySelector('.now').textContent") == "σ = 4"
    assert page.problems == []


@pytest.mark.slow
def test_figures_are_dark_on_a_dark_page(report, page):
    page.open(report, dark=True)
    filters = page.run(
        "[...document.querySelectorAll('.plate')].map(p => [p.currentSrc === p.src, "
        "getComputedStyle(p).filter])"
    )
    assert filters[0] == [False, "none"]  # pictures are drawn anew, not inverted
    assert all(same and "invert" in how for same, how in filters[1:])
    page.open(report)
