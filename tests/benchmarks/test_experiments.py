"""The page of results is what saved results say."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.result import Result
from xhat.analysis.table import Table

PATH = Path(__file__).parents[2] / "benchmarks" / "experiments.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PATH.parent))
    spec = importlib.util.spec_from_file_location("experiments", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "package" / "data")
    return module


def result(value):
    data = xr.Dataset({"v": ("x", np.array([value]))})
    table = Table(["model", "Vendi"], [["base", value]])
    return Result("demo", {"measured": data, "samples": data}, table, [f"It is {value}."], {})


def test_the_page_has_the_sentences_and_the_table_of_every_result(script):
    for name, value in (("demo", 1.0), ("demo-lcm", 2.0)):
        result(value).save(script.RUNS / name)
    results = script.saved()
    text = script.page(results)
    assert list(results) == ["demo", "demo-lcm"]
    assert text.index("(#base-student-and-hybrid)**") < text.index("- It is 1.0.")
    assert (
        text.index("- It is 1.0.")
        < text.index("`xhat demo --prompts 24`")
        < text.index("`xhat demo --pair demo/lcm`")
    )
    assert "base       2" in text
    script.ship(results)
    assert {p.stem for p in script.SHIPPED.iterdir()} == {"measured", "measured_lcm", "samples"}


def test_the_page_ends_with_how_students_were_trained(script):
    nan = np.nan
    notes = {"step": [[0.0, 200.0, nan], [0.0, 200.0, 400.0]]}
    notes["vendi_q2"] = [[1.9, 1.6, nan], [2.0, 1.9, 2.1]]
    notes["obedience"] = [[0.5, 0.9, nan], [0.5, 0.7, 0.8]]
    data = xr.Dataset({k: (("run", "row"), v) for k, v in notes.items()}, {"run": ["dmd", "lcm"]})
    text = script.training_part(data.assign_attrs(base_vendi_q2=2.0, base_obedience=0.95))
    assert "- dmd: Vendi 1.90 → 1.60, obedience 0.50 → 0.90, in 200 steps." in text
    assert "- lcm: Vendi 2.00 → 2.10, obedience 0.50 → 0.80, in 400 steps." in text


def test_what_leads_the_page_is_chosen_by_the_experiment(script):
    table = Table(
        ["half decided at σ", "base", "student"], [["colour", 4.1, None], ["mood", None, None]]
    )
    read = Result("readout", {}, table, ["colour: …", "mood: …"], {})
    assert script.lead(read) == [
        "Of 2 attributes, x̂₀ gives half away at some step: 1 in the base, 0 in the student."
    ]
    layers = Result("patch", {}, table, ["first", "best layer", "its mean", "which add"], {})
    assert script.lead(layers) == ["best layer", "which add"]
