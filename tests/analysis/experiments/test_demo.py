"""The main job, end to end and small: traces, table, figures, report."""

import re

import numpy as np
import pytest

import xhat
from xhat.analysis.experiments.collapse import Demo, demo, sentences
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import cost
from xhat.figures.kit.registry import redraw
from xhat.figures.report.page import write_report

PROMPTS = ["a planet", "a critter", "a plant", "a landscape", "a happy critter"]
ASKED = {"prompts": PROMPTS, "seeds": range(5), "batch_size": 5}
ARMS = ["base", "base_few", "student", "hybrid_one", "hybrid", "control", "control_hybrid"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out, pair = tmp_path_factory.mktemp("demo"), xhat.load_pair("demo")
    config = Demo(pair=pair, **ASKED)
    result = demo(config, traces=out / "traces")
    result.save(out)
    redraw(run=out, out=out / "figures")
    write_report(out)
    return out, config, result


@pytest.mark.slow
def test_the_table_holds_what_was_measured(run):
    out, _, result = run
    assert result.data["measured"]["arm"].values.tolist() == ARMS
    assert {p.stem for p in (out / "traces").glob("*.zarr")} == set(ARMS)
    names = [column.title for column in result.table.columns]
    for row, arm in zip(result.table.rows, ARMS, strict=True):
        mean, low, high = row[names.index("Vendi (q = 2)")]
        assert mean == pytest.approx(float(result.data["measured"]["vendi_q2"].sel(arm=arm).mean()))
        assert low <= mean <= high
    few = next(row for row in result.table.rows if row[0].startswith("base at"))
    assert few[0] == "base at 4 steps, guidance 1 (4 evaluations)"


@pytest.mark.slow
def test_the_primary_contrast_comes_first(run):
    _, _, result = run
    assert result.sentences[0].startswith("Vendi (q = 2): the hybrid")
    assert "the student" in result.sentences[0]
    assert any("late-committing control" in sentence for sentence in result.sentences)


@pytest.mark.slow
def test_the_last_sentence_is_on_the_difference_of_two_gains(run):
    measured = run[2].data["measured"].copy(deep=True)
    last = sentences(measured)[-1]
    assert last.startswith("gain in attribute entropy by the hybrid: the student and")
    entropy = measured["attribute_entropy"].mean("prompt")
    gain = entropy.sel(arm="hybrid") - entropy.sel(arm="student")
    late = entropy.sel(arm="control_hybrid") - entropy.sel(arm="control")
    printed = float(re.search(r"\(([-+]?[0-9.]+) \[", last).group(1))
    assert printed == pytest.approx(float(gain - late), abs=0.006)


@pytest.mark.slow
def test_the_result_is_read_as_it_was_saved(run):
    out, _, result = run
    assert Result.load(out).identical(result)


@pytest.mark.slow
def test_arms_share_their_noise(run):
    out, _, _ = run
    first = {n: xhat.open_trace(out / "traces" / f"{n}.zarr")["latents"][:, :, 0] for n in ARMS}
    for name, x in first.items():
        np.testing.assert_array_equal(x, first["base"], err_msg=name)


@pytest.mark.slow
def test_evaluations_are_counted(run):
    pair = run[1].models()
    assert (
        cost(pair.base, "a planet", batch_size=1, num_inference_steps=3)[0] == 6
    )  # guided: two a step
    assert cost(pair.student, "a planet", batch_size=1)[0] == 4
    paper = xhat.hybrid(pair.base, pair.student, recipe="paper")
    assert cost(paper, "a planet", batch_size=1)[0] == 4


@pytest.mark.slow
def test_report_is_one_file_that_needs_nothing(run):
    out, _, result = run
    html = (out / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert 'src="data:image/webp;base64,' in html
    for sentence in result.sentences:
        assert sentence in html.replace("&#39;", "'")


@pytest.mark.slow
def test_every_figure_of_the_run_is_drawn(run):
    out, _, _ = run
    drawn = {p.stem for p in (out / "figures").glob("*.pdf")}
    assert drawn == {"samples", "filmstrip", "diversity", "commitment", "schematic"}
    assert {p.stem for p in (out / "figures").glob("*.png")} == drawn


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(run):
    out, config, result = run
    assert demo(config, traces=out / "traces").identical(result)


@pytest.mark.slow
def test_a_control_that_is_no_student_is_named(run):
    with pytest.raises(ValueError, match="no student 'nobody' to be the control"):
        demo(Demo(pair=run[1].pair, control="nobody", **ASKED), traces=run[0])
