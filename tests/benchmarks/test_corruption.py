"""The table of corruptions, one of each kind: nothing is read as other data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def corruption(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("corruption", BENCHMARKS / "corruption.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_cache_gives_no_other_numbers(corruption):
    outcomes = corruption.counted(corruption.in_caches, 10)
    assert len(outcomes) == 4
    assert {outcome for count in outcomes.values() for outcome in count} == {"named"}


def test_what_is_read_as_other_data_counts_as_silent(corruption, tmp_path):
    """The table would show it: a file of other numbers under a name of its own content."""
    made = {"arm": corruption.measured(0)}
    corruption.Cache(tmp_path).write("arm", corruption.KEY, corruption.measured(1))
    assert corruption.read_again(tmp_path, made) == "silent"
    corruption.Cache(tmp_path / "b").write("arm", corruption.KEY, corruption.measured(0))
    assert corruption.read_again(tmp_path / "b", made) == "same"
