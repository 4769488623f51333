"""The README's Python runs as it stands, and its findings are those of the shipped data."""

import importlib.util
import re
from pathlib import Path

import pytest

from xhat.figures.kit.data import load_data

README = (Path(__file__).parents[1] / "README.md").read_text()


def findings():
    path = Path(__file__).parents[1] / "benchmarks" / "findings.py"
    spec = importlib.util.spec_from_file_location("findings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_readmes_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["image"].size == (64, 64)
    assert "pred_x0" in capsys.readouterr().out


def test_its_findings_are_what_the_shipped_data_say():
    (said,) = re.findall(r"<!-- findings[^>]*-->\n(.*?)\n<!-- /findings -->", README, re.DOTALL)
    assert said == findings().readme_sentences()


def test_a_sentence_says_which_way_the_numbers_fall():
    measured = load_data("measured").sel(arm=["base", "student", "hybrid"])
    turned = measured.assign_coords(arm=["student", "base", "hybrid"])
    assert "the student has less than the base" in findings().two_sentences(measured)
    assert "the student has more than the base" in findings().two_sentences(turned)


def test_the_picture_is_base_student_and_hybrid_of_the_prompts_that_the_text_names():
    samples = load_data("samples")
    figure = findings().picture(samples)
    rows = [[axis.get_ylabel() for axis in block.axes] for block in figure.subfigs]
    assert rows == [["base", "student", "hybrid"]] * samples.sizes["prompt"]
    assert all(f'"{prompt}"' in README for prompt in samples["prompt"].values)
