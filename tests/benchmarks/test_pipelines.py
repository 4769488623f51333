"""A part of the table of pipelines: what works, what is refused, and that an oracle would show a
wrong x̂₀.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import diffusers
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def table():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("pipelines", ROOT / "benchmarks/pipelines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "benchmarks"))
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusion3Img2ImgPipeline",
        "FluxPipeline",
        "QwenImageImg2ImgPipeline",
        "CogVideoXPipeline",
        "WanPipeline",
    ],
)
def test_a_pipeline_works_in_every_column(table, name):
    cells = table.row(getattr(diffusers, name))
    assert cells == dict.fromkeys(table.COLUMNS, table.WORKS)


@pytest.mark.slow
def test_a_refusal_and_a_warning_are_told(table):
    cells = table.row(diffusers.AnimateDiffPipeline)
    assert cells["hybrid"].startswith("refused: no hybrid can be made of a AnimateDiffPipeline")
    assert cells["points"].startswith("warns: ")


@pytest.mark.slow
def test_an_oracle_shows_a_wrong_picture(table, monkeypatch):
    built, _ = table.build(diffusers.StableDiffusionPipeline)
    right = table.pointing
    monkeypatch.setattr(table, "pointing", lambda *a: right(*a) * torch.tensor(1.01))
    assert table.points_at(built).startswith("fails: off by")


def test_the_page_is_made_of_its_rows(table):
    rows = json.loads(table.ROWS.read_text())
    assert table.PAGE.read_text() == table.page(rows)
    assert not any("fails" in c for r in rows.values() if isinstance(r, dict) for c in r.values())
