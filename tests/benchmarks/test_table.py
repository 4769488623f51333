"""What benchmarks share: arms in turns, paired ratios, peak memory, and the page of their
tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("table", "run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import table

    return table


@pytest.mark.slow
def test_arms_take_turns_and_each_round_begins_with_another(table):
    order = []
    arms = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = table.side_by_side(arms, 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratios_are_of_the_same_round(table):
    slow = np.array([1.0, 10.0, 1.0, 10.0])  # the machine was busy in every other round
    assert table.ratio(1.1 * slow, slow) == pytest.approx((1.1, 1.1, 1.1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset through /proc")
def test_peak_memory_is_that_of_the_action(table):
    size = 64 << 20
    found = table.peak_above(lambda: np.ones(size, np.uint8).sum())
    assert 0.9 * size <= found <= 1.5 * size
    assert table.peak_above(lambda: None) < size / 4


def test_a_table_is_written_and_the_page_holds_it(table, tmp_path, monkeypatch, capsys):
    args = argparse.Namespace(quick=False, out=tmp_path)
    table.publish(
        args,
        "tracing",
        "Tracing",
        {"small": [{"arm": "a", "ms": 1}, {"arm": "b", "MiB": 2}]},
        "the disk",
    )
    text = (tmp_path / "tracing.md").read_text()
    assert "| arm | ms | MiB |\n|---|---|---|\n| a | 1 | – |\n| b | – | 2 |" in text
    assert "Machine: " in text
    assert "What bounds it now: the disk" in text
    import run

    monkeypatch.setattr(run, "RESULTS", tmp_path)
    page = run.page()
    assert text in page
    assert "Not measured yet: `python benchmarks/run.py sampling`" in page


def test_a_quick_run_leaves_the_results_alone(table, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    table.publish(argparse.Namespace(quick=True, out=tmp_path), "tracing", "Tracing", {}, "nothing")
    assert not list(tmp_path.iterdir())
