"""The report: self-contained, says what the data says, escapes, and works in a browser."""

import re
from html.parser import HTMLParser

import pytest

from xhat.analysis.result import Result
from xhat.analysis.table import Table
from xhat.figures.kit.data import load_data
from xhat.figures.report.page import write_report


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


def test_pictures_have_alternative_texts_and_tables_headers(report):
    found = Elements(report.read_text()).found
    images = [attrs for tag, attrs in found if tag == "img"]
    assert len(images) == 6
    assert all(len(attrs["alt"]) > 20 for attrs in images)
    assert {attrs.get("scope") for tag, attrs in found if tag == "th"} == {"col", "row"}
    assert ("html", {"lang": "en"}) in found
    assert any(tag == "main" for tag, _ in found)


def test_hostile_names_stay_text(report):
    text = report.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "the lowest CKA is at &lt;h&gt;" in text


def test_the_report_of_a_run_says_what_its_result_says(run, tmp_path):
    table = Table(["model", "Vendi"], [["<base>", (1.8, 1.4, 2.4)]])
    data = {name: load_data(name, run) for name in ("measured", "diversity")}
    result = Result("demo", data, table, ["The hybrid & its student."], {})
    text = write_report(result.save(tmp_path)).read_text()
    assert "The hybrid &amp; its student." in text
    assert "&lt;base&gt;" in text
    assert "1.8 <small>[1.4, 2.4]</small>" in text


def test_the_page_opens_without_an_error_and_holds_the_wall(report, page):
    page.open(report)
    assert page.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('.xhat-wall .cell').length") == 18
    page.run("document.querySelector('.level').focus()")
    code = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    page.ask("Input.dispatchKeyEvent", type="keyDown", **code)
    assert page.run("document.querySelector('.now').textContent") == "σ = 8"
    assert page.problems == []


@pytest.mark.parametrize("width", [320, 390, 1000])
def test_nothing_is_wider_than_the_page(report, page, width):
    page.open(report, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_dark_is_dark(report, page):
    page.open(report, dark=True)
    ink, paper = (
        page.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    light = [sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in (ink, paper)]
    assert light[0] > 500
    assert light[1] < 150
