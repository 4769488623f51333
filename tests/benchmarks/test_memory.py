"""Peak memory of a trace to disk does not grow with its seeds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
def test_peak_memory_is_flat_in_the_number_of_seeds(tmp_path):
    """Eight times the seeds of the embedded student: medians of three runs, each in its process,
    within a tenth.
    """
    command = [
        sys.executable,
        str(MEMORY),
        "--sizes",
        "32",
        "256",
        "--batch",
        "16",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (rows,) = json.loads((tmp_path / "memory.json").read_text()).values()
    assert [row["seeds"] for row in rows] == ["32", "256"]
    assert float(rows[1]["written, MiB"]) > 4 * float(
        rows[0]["written, MiB"]
    )  # it did keep eight times as much
