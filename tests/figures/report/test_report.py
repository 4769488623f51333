"""The report: self-contained, says what the data says, escapes, and works in a browser."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from xhat.analysis.result import Result
from xhat.analysis.table import Table
from xhat.figures.kit.data import load_data
from xhat.figures.report.page import write_report
from xhat.figures.report.player import player, x0_player

_spec = importlib.util.spec_from_file_location(
    "xhat_tests_browser", Path(__file__).with_name("browser.py")
)
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


@pytest.fixture(scope="module")
def report(run):
    return write_report(run)


@pytest.fixture(scope="module")
def page():
    if browser.find() is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(browser.NAMES)})")
    with browser.Browser() as opened:
        yield opened


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
    assert "url(" not in text
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


def test_the_page_opens_without_an_error_and_the_player_moves(report, page):
    page.open(report)
    pictures = "[...document.querySelectorAll('.xhat-player img')].map(i => i.src)"
    captions = "[...document.querySelectorAll('.xhat-player figcaption')].map(c => c.textContent)"
    assert page.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    first, said = page.run(pictures), page.run(captions)
    assert [line.split(",")[0] for line in said] == ["base", "student", "hybrid"]
    assert all("step 1 of" in line for line in said)

    set_level = (
        "(v => { const l = document.querySelector('.level'); l.value = v; "
        "l.dispatchEvent(new Event('input')) })"
    )
    page.run(f"{set_level}(1000)")
    assert all(a != b for a, b in zip(page.run(pictures), first, strict=True))
    assert ["step 8 of 8" in page.run(captions)[0], "step 4 of 4" in page.run(captions)[1]] == [
        True,
        True,
    ]

    page.run(f"{set_level}(400)")  # all models at the step that holds at one and the same noise
    at = [float(re.search(r"σ\s=\s([\d.]+)", line)[1]) for line in page.run(captions)]
    now = float(
        re.search(r"σ = ([\d.]+)", page.run("document.querySelector('.now').textContent"))[1]
    )
    assert all(level >= now * 0.9 for level in at)
    assert at[1] == at[2]

    page.run(
        "(s => { s.value = 3; s.dispatchEvent(new Event('change')) "
        "})(document.querySelector('.sample'))"
    )
    assert "a critter" in page.run("document.querySelector('.xhat-player img').alt")
    assert page.problems == []


def test_the_player_answers_keys_and_pointer(report, page):
    page.open(report)
    page.run("document.querySelector('.level').focus()")
    for key in ("End", "ArrowLeft"):
        for kind in ("keyDown", "keyUp"):
            page.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode={"End": 35, "ArrowLeft": 37}[key],
            )
    assert page.run("document.querySelector('.level').value") == "999"
    page.run("document.querySelector('.xhat-player img').scrollIntoView()")
    box = page.run(
        "(b => [b.x, b.y, b.width])(document.querySelector('.xhat-player "
        "img').getBoundingClientRect())"
    )
    page.ask("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] / 2, y=box[1] + 10)
    assert abs(int(page.run("document.querySelector('.level').value")) - 500) < 20
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


def test_a_widget_is_escaped_and_stands_in_its_own_frame(frames, page, tmp_path):
    shown = player(frames)._repr_html_()
    assert shown.startswith("<iframe")
    assert "<script" not in shown
    (tmp_path / "cell.html").write_text(f"<!doctype html><meta charset=utf-8>{shown}")
    page.open(tmp_path / "cell.html")
    page.run("document.querySelector('iframe').scrollIntoView()")
    inside = (
        "document.querySelector('iframe').contentDocument.querySelectorAll('.xhat-player "
        "img').length"
    )
    assert page.run(f"new Promise(r => setTimeout(() => r({inside}), 500))") == 3
    assert page.problems == []


def test_players_of_other_seeds_are_refused(tiny):
    import xhat

    pipe = tiny.sd()
    traces = {
        str(seed): xhat.trace(
            pipe,
            ["a face"],
            seeds=[seed],
            num_inference_steps=2,
            progress=False,
            height=16,
            width=16,
        )
        for seed in (0, 1)
    }
    assert "<iframe" in x0_player(traces["0"], vae=pipe.vae)._repr_html_()
    with pytest.raises(ValueError, match="same prompts and seeds"):
        x0_player(traces, vae=pipe.vae)
