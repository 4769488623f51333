"""The main job, end to end and small: traces, table, figures, report."""

import json

import numpy as np
import pytest

import xhat
from xhat.analysis.experiments.collapse import demo
from xhat.analysis.sampling.arms import cost
from xhat.figures.kit.registry import redraw
from xhat.figures.report.collect import save_demo_data
from xhat.figures.report.page import findings, write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out, pair = tmp_path_factory.mktemp("demo"), xhat.load_pair("demo")
    result = demo(pair, out, prompts=["a planet", "a critter"], seeds=range(5), batch_size=5)
    save_demo_data(result, pair, out)
    redraw(run=out, out=out / "figures")
    write_report(out)
    return out, pair, result


@pytest.mark.slow
def test_the_table_holds_what_the_traces_hold(run):
    out, _, result = run
    assert [r.model for r in result.rows] == ["base", "base_few", "student", "hybrid"]
    assert {p.name for p in (out / "traces").iterdir()} >= {
        "base.zarr",
        "student.zarr",
        "hybrid.zarr",
    }
    stored = json.loads((out / "results.json").read_text())
    assert [r["vendi_q2"][0] for r in stored["rows"]] == [r.vendi_q2[0] for r in result.rows]
    for row in result.rows:
        mean, low, high = row.vendi_q2
        assert 1 <= low <= mean <= high <= 5
        assert 0 <= row.fidelity <= 1
    seeds_differ = result.traces["hybrid"]["final"].values
    assert not np.allclose(seeds_differ[:, 0], seeds_differ[:, 1])


def test_arms_share_their_noise(run):
    _, _, result = run
    first = {n: t["latents"].isel(step=0).values for n, t in result.traces.items()}
    for name, x in first.items():
        np.testing.assert_array_equal(x, first["base"], err_msg=name)


@pytest.mark.slow
def test_evaluations_are_counted(run):
    _, pair, _ = run
    assert (
        cost(pair.base, "a planet", batch_size=1, num_inference_steps=3)[0] == 6
    )  # guided: two a step
    assert cost(pair.student, "a planet", batch_size=1)[0] == 4
    assert cost(xhat.hybrid(pair.base, pair.student), "a planet", batch_size=1)[0] == 4


def test_report_is_one_file_that_needs_nothing(run):
    out, _, result = run
    html = (out / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert 'src="data:image/png;base64,' in html
    assert len(findings(result.measured)) == 3
    for line in findings(result.measured):
        assert line in html


def test_every_figure_of_the_run_is_drawn(run):
    out, _, _ = run
    drawn = {p.stem for p in (out / "figures").glob("*.pdf")}
    assert drawn == {"samples", "filmstrip", "diversity", "commitment", "schematic"}
    assert {p.stem for p in (out / "figures").glob("*.png")} == drawn


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(run):
    out, pair, result = run
    again = demo(pair, out, prompts=["a planet", "a critter"], seeds=range(5), batch_size=5)
    np.testing.assert_array_equal(
        again.traces["hybrid"]["final"].values, result.traces["hybrid"]["final"].values
    )
