"""The seed wall in a browser: real keys, clicks and moves; all rows at one noise level; links."""

import json
from html.parser import HTMLParser

import pytest

from xhat.cli import main
from xhat.figures.report.wall import seed_wall, wall, wall_data, write_wall

KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "End": 35,
    "Home": 36,
    "Escape": 27,
}
TEXTS = "[...document.querySelectorAll('.row small')].map(t => t.textContent.trim())"
NOW = "document.querySelector('.now').textContent"
CHOSEN = "[...document.querySelectorAll('.chosen')].map(c => c.getAttribute('aria-label'))"


@pytest.fixture(scope="module")
def explored(run, tmp_path_factory):
    return write_wall(run, tmp_path_factory.mktemp("wall") / "explore.html")


def press(page, *keys):
    for key in keys:
        for kind in ("keyDown", "keyUp"):
            code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            page.ask("Input.dispatchKeyEvent", type=kind, **code)


def centre(page, selector, share=0.5):
    page.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    x, y, width, height = page.run(f"(b => [b.x, b.y, b.width, b.height])({box})")
    return {"x": x + width * share, "y": y + height / 2}


def click(page, selector):
    at = centre(page, selector)
    for kind in ("mousePressed", "mouseReleased"):
        page.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)


def test_an_arrow_is_a_step_and_every_row_says_its_noise(explored, page):
    page.open(explored[0])
    assert page.run(NOW) == "σ = 0.2"  # what was drawn, first
    press(page, "Home")
    assert page.run(NOW) == "σ = 14"
    press(page, "ArrowRight")
    assert page.run(NOW) == "σ = 8"
    base, student, hybrid = page.run(TEXTS)
    assert base.startswith("step 2 of 8, σ = 8 ·")
    assert student.startswith("step 1 of 4, σ = 14 (no step at 8)")
    assert hybrid.startswith("step 1 of 4, σ = 14 (no step at 8)")
    press(page, "ArrowRight")
    assert [t.split(" ·")[0] for t in page.run(TEXTS)] == [
        "step 3 of 8, σ = 4",
        "step 2 of 4, σ = 4",
        "step 2 of 4, σ = 4",
    ]
    press(page, "End", "ArrowLeft", "ArrowLeft")
    assert page.run(NOW) == "σ = 1"
    assert page.problems == []


def test_the_picture_shown_is_that_of_the_step_and_of_the_seed(explored, page):
    page.open(explored[0])
    press(page, "Home", "ArrowRight", "ArrowRight")
    style = "getComputedStyle(document.querySelectorAll('.row')[1].querySelectorAll('.cell')[2])"
    x, y = page.run(f"{style}.backgroundPosition").split()
    assert float(x[:-1]) == pytest.approx(100 * 2 / 5)
    assert float(y[:-1]) == pytest.approx(100 * 1 / 3, abs=1e-3)
    assert page.run(f"{style}.backgroundSize") == "600% 400%"
    assert page.run(f"{style}.backgroundImage").startswith('url("data:image/webp;base64,')


def test_a_click_chooses_a_seed_in_every_row(explored, page):
    page.open(explored[0])
    click(page, ".row:nth-child(2) .cell:nth-child(4)")
    assert page.run(CHOSEN) == ["base, seed 5", "student, seed 5", "hybrid, seed 5"]
    assert "Seed 5" in page.run("document.querySelector('.detail').innerText")
    press(page, "ArrowDown")
    assert page.run(CHOSEN)[0] == "base, seed 7"
    press(page, "Escape")
    assert page.run(CHOSEN) == []
    assert page.run("document.querySelector('.detail').hidden")


def test_moving_along_the_curve_moves_the_wall(explored, page):
    page.open(explored[0])
    at = centre(page, ".curve", share=310 / 320)
    page.ask("Input.dispatchMouseEvent", type="mouseMoved", **at)
    assert page.run(NOW) == "σ = 0.2"
    at = centre(page, ".curve", share=30 / 320)
    page.ask("Input.dispatchMouseEvent", type="mouseMoved", **at)
    assert page.run(NOW) == "σ = 14"


def test_a_finger_moves_the_wall(explored, page):
    page.open(explored[0], width=390)
    press(page, "Home")
    at = centre(page, ".curve", share=310 / 320)
    page.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
    page.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert page.run(NOW) == "σ = 0.2"
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_the_address_keeps_what_is_shown(explored, page):
    page.open(explored[0])
    assert page.run("location.hash") == ""
    press(page, "Home", "ArrowRight", "ArrowDown", "ArrowDown")
    assert page.run("location.hash") == "#wall&prompt=0&sigma=8&seed=1"
    page.run("location.hash = '#wall&prompt=1&sigma=0.72&seed=7'")
    page.run("new Promise(r => setTimeout(r, 50))")
    assert page.run(NOW) == "σ = 0.7"
    assert page.run(CHOSEN)[0] == "base, seed 7"
    assert page.run("document.querySelector('.prompt').value") == "1"
    page.run("location.hash = '#wall&prompt=9&sigma=x&seed=99'")  # of another wall: no harm
    page.run("new Promise(r => setTimeout(r, 50))")
    assert page.run(NOW) == "σ = 0.7"
    assert page.problems == []


def test_the_maps_have_a_line_a_seed_up_to_the_level_shown(explored, page):
    page.open(explored[0])
    press(page, "Home", "ArrowRight", "ArrowRight")
    lines = (
        "[...document.querySelectorAll('.maps svg')].map(s => [...s.querySelectorAll('polyline')]"
        ".map(l => l.getAttribute('points').trim().split(' ').length))"
    )
    assert page.run(lines) == [[3] * 6, [2] * 6, [2] * 6]


def test_it_is_dark_where_the_reader_wants_it(explored, page):
    page.open(explored[0], dark=True)
    dark = page.run("getComputedStyle(document.querySelector('.controls')).backgroundColor")
    assert sum(int(n) for n in dark[4:-1].split(",")[:3]) < 150
    page.open(explored[0])


def test_the_page_needs_nothing_beside_itself(explored):
    for path in explored:
        text = path.read_text()
        assert "http://" not in text
        assert "https://" not in text
        assert "@import" not in text
        assert "<script>alert" not in text


def test_the_blind_comparison_gives_its_answers_as_json(explored, page):
    page.open(explored[1])
    assert "student" not in page.run("document.body.innerText")
    for _ in range(5):
        press(page, "ArrowLeft")
    click(page, "button[value=same]")
    answers = json.loads(page.run("document.querySelector('textarea').value"))
    assert answers["seeds"] == [0, 1, 2, 5, 7, 9]
    pairs = [(a["prompt"], *sorted((a["left"], a["right"]))) for a in answers["answers"]]
    assert len(set(pairs)) == 6  # two prompts × three pairs
    for answer in answers["answers"][:5]:
        assert answer["varies_more"] == "left"
        assert answer["model"] == answer["left"]
    assert answers["answers"][5]["model"] is None
    saved = page.run("document.querySelector('.save').href")
    assert saved.startswith("data:application/json")
    assert page.problems == []


def test_a_widget_stands_in_its_own_frame(wall_frames, page, tmp_path):
    shown = wall(wall_frames)._repr_html_()
    assert shown.startswith("<iframe")
    assert "<script" not in shown
    (tmp_path / "cell.html").write_text(f"<!doctype html><meta charset=utf-8>{shown}")
    page.open(tmp_path / "cell.html")
    page.run("document.querySelector('iframe').scrollIntoView()")
    cells = "document.querySelector('iframe').contentDocument.querySelectorAll('.cell').length"
    assert page.run(f"new Promise(r => setTimeout(() => r({cells}), 500))") == 18
    assert page.problems == []


class Data(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.inside, self.text = False, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = ("type", "application/json") in attrs

    def handle_data(self, data):
        self.text += data * self.inside
        self.inside = False


def test_levels_that_models_share_are_one_stop(wall_frames):
    moved = wall_frames.copy(deep=True)
    moved["sigma"][1] *= 1.004  # float32 of another schedule
    assert len(wall_data(moved)["stops"]) == 8
    assert json.loads(Data(wall(moved).html).text)["stops"][0] == pytest.approx(14, rel=0.01)


def test_the_command_writes_the_pages(run, tmp_path, capsys):
    assert main(["explore", str(run), "--out", str(tmp_path / "wall.html")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"wall.html", "blind.html"}
    assert str(tmp_path / "wall.html") in capsys.readouterr().out
    assert main(["explore", str(tmp_path)]) == 2
    assert "no figure data 'wall'" in capsys.readouterr().err


def test_walls_of_other_seeds_are_refused(tiny):
    import xhat

    pipe, call = tiny.sd(), {"num_inference_steps": 2, "height": 16, "width": 16}
    traces = {
        str(seed): xhat.trace(pipe, ["a face"], seeds=[seed], progress=False, **call)
        for seed in (0, 1)
    }
    assert "<iframe" in seed_wall(traces["0"], vae=pipe.vae)._repr_html_()
    with pytest.raises(ValueError, match="same prompts and seeds"):
        seed_wall(traces, vae=pipe.vae)
