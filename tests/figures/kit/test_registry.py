"""Figures by name: listed, redrawn to the same bytes, and mistakes told."""

import matplotlib as mpl
import pytest

from xhat.cli import main
from xhat.figures.kit.data import SHIPPED
from xhat.figures.kit.registry import draw, figures, redraw

MINE = {"samples", "filmstrip", "diversity", "commitment", "schematic", "similarity_map"}


def test_every_file_with_a_draw_is_listed_with_title_and_caption(run):
    listed = {entry.name: entry for entry in figures(run)}
    assert set(listed) >= MINE
    assert not {"registry", "style", "curves"} & set(listed)
    assert {name for name, entry in listed.items() if entry.there} == MINE
    assert all(entry.title and entry.caption for entry in listed.values())


@pytest.mark.slow
def test_a_redraw_gives_equal_pdf_bytes_with_type_42_fonts(run, tmp_path):
    first, second = (redraw(run=run, out=tmp_path / part) for part in "ab")
    assert set(first) == MINE
    for name, (pdf, png) in first.items():
        assert pdf.read_bytes() == second[name][0].read_bytes(), name
        assert b"/CIDFontType2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes(), name
        assert png.stat().st_size > 0


@pytest.mark.slow
def test_drawing_leaves_matplotlib_as_it_was(run):
    before = dict(mpl.rcParams)
    draw("commitment", run=run)
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_the_shipped_figures_are_redrawn_from_little_data(tmp_path):
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.nc")) < 5e6
    if not any(entry.there for entry in figures()):
        pytest.skip("no data of the embedded family is shipped yet")
    drawn = redraw(out=tmp_path)
    assert set(drawn) == {entry.name for entry in figures() if entry.there}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["figures", "comitment"], "did you mean 'commitment'"),
        (
            ["figures", "commitment", "--from", "nowhere"],
            "no figure data 'commitment' in nowhere/data",
        ),
        (["figures", "--from", "nowhere"], "no figure data in nowhere/data"),
        (
            ["figures", "commitment", "--from", "RUN", "--venue", "icmi"],
            "unknown venue 'icmi'; there are icml",
        ),
        (["report", "--from", "nowhere"], "no figure data"),
        (["tables", "4"], "no table '4'"),
    ],
)
def test_mistakes_are_told(run, argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(run) if part == "RUN" else part for part in argv]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_lists_and_draws(run, tmp_path, capsys):
    assert main(["figures", "--list", "--from", str(run)]) == 0
    assert "similarity_map" in capsys.readouterr().out
    argv = [
        "figures",
        "diversity",
        "--from",
        str(run),
        "--out",
        str(tmp_path),
        "--venue",
        "neurips",
    ]
    assert main(argv) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"diversity.pdf", "diversity.png"}
