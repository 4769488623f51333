"""One trace by several processes under ``accelerate launch``, and traces that are read with
Dask.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback

import xhat
from xhat.analysis import diversity_by_noise, similarity_map

ROOT = Path(__file__).parents[3]
ARGUMENTS = [
    "demo/turbo",
    "--prompts",
    "a planet",
    "a critter",
    "--seeds",
    "0:2",
    "--steps",
    "1",
    "--batch-size",
    "1",
]


@pytest.mark.slow
def test_accelerate_launch_with_two_processes_makes_the_trace_of_one(tmp_path):
    argv = ["trace", *ARGUMENTS, "--hooks", "h=gram", "in", "--device", "cpu", "--store"]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--module",
        "xhat",
        *argv,
        str(tmp_path / "two.zarr"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("DataTree") == 1  # the first process speaks for both
    two = xhat.open_trace(tmp_path / "two.zarr").load()
    one = xhat.trace(
        xhat.load_pair("demo").student,
        ["a planet", "a critter"],
        seeds=range(2),
        hooks={"h": "gram", "in": "mean"},
        batch_size=1,
        num_inference_steps=1,
        progress=False,
    )
    for node in one.subtree:
        for name, variable in node.data_vars.items():
            np.testing.assert_array_equal(
                two[f"{node.path.rstrip('/')}/{name}"], variable, err_msg=name
            )
    assert {k: v for k, v in two.attrs.items() if k != "checkpoint"} == {
        k: v for k, v in one.attrs.items() if k != "checkpoint"
    }


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("dask") / "a.zarr"
    prompts = ["a face", "a plant", "a robot", "a planet"]
    hooks = {"h": "mean", "in": "full"}
    xhat.trace(
        tiny.sd(),
        prompts,
        seeds=range(4),
        hooks=hooks,
        store=path,
        batch_size=4,
        num_inference_steps=2,
        progress=False,
    )
    return path


class Held(Callback):
    """The most bytes of arrays that one computation gave."""

    def __init__(self):
        super().__init__(start=self.begin, posttask=self.after)
        self.most, self.now, self.computations = 0, 0, 0

    def begin(self, graph):
        self.now, self.computations = 0, self.computations + 1

    def after(self, key, result, graph, state, worker):
        self.now += result.nbytes if isinstance(result, np.ndarray) else 0
        self.most = max(self.most, self.now)


@pytest.mark.slow
def test_analyses_of_a_lazy_trace_read_it_in_parts(store):
    lazy, whole = xhat.open_trace(store, chunks={}), xhat.open_trace(store).load()
    with dask.config.set(scheduler="threads"), Held() as held:
        found = diversity_by_noise(lazy)
    xr.testing.assert_identical(found, diversity_by_noise(whole))
    assert held.computations >= 4
    assert held.most <= 0.6 * whole["pred_x0"].nbytes
    maps = [similarity_map(t, t, by=None) for t in (lazy, whole)]
    xr.testing.assert_identical(*maps)


@pytest.mark.slow
def test_the_same_call_runs_on_a_distributed_cluster(store):
    distributed = pytest.importorskip("distributed")
    lazy, whole = xhat.open_trace(store, chunks={}), xhat.open_trace(store).load()
    cluster = {
        "n_workers": 1,
        "threads_per_worker": 1,
        "processes": False,
        "dashboard_address": None,
    }
    with distributed.Client(**cluster) as client:
        found = diversity_by_noise(lazy)
        assert client.cluster.scheduler.task_prefixes  # it was the cluster that read
    xr.testing.assert_identical(found, diversity_by_noise(whole))


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["file://{folder}/a.zarr", "memory://scale/a.zarr"])
def test_stores_by_url(tiny, tmp_path, prefix):
    url = prefix.format(folder=tmp_path)
    arguments = {
        "seeds": range(2),
        "hooks": {"h": "gram"},
        "num_inference_steps": 1,
        "progress": False,
    }
    found = xhat.trace(tiny.sd(), "a face", store=url, batch_size=1, **arguments)
    xr.testing.assert_identical(
        found.load(), xhat.trace(tiny.sd(), "a face", batch_size=1, **arguments)
    )
    xr.testing.assert_identical(xhat.open_trace(url).load(), found)
    assert [p.name for p in tmp_path.iterdir()] == (["a.zarr"] if prefix.startswith("file") else [])


@pytest.mark.slow
def test_the_first_process_does_not_end_well_where_another_did_not(tiny, tmp_path, monkeypatch):
    """Its share alone is no trace: it waits while another process lives, and then says what is
    missing; the same call goes on.
    """
    from xhat.hooks import trace as trace_module

    call = {"seeds": range(4), "batch_size": 1, "num_inference_steps": 1, "progress": False}
    monkeypatch.setenv("WORLD_SIZE", "2")
    alive, now = [True, True], [0.0]
    monkeypatch.setattr(trace_module, "held", lambda path, rank: bool(alive and alive.pop()))
    monkeypatch.setattr(trace_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trace_module.time, "sleep", lambda _: now.__setitem__(0, now[0] + 10.0))
    with pytest.raises(ValueError, match="not finished: 2 batches of other processes are missing"):
        xhat.trace(tiny.sd(), "a face", store=tmp_path / "a.zarr", **call)
    assert not alive  # it waited for as long as the other was there,
    assert now[0] > 60.0  # and a minute more
    monkeypatch.setenv("WORLD_SIZE", "1")
    got = xhat.trace(tiny.sd(), "a face", store=tmp_path / "a.zarr", **call)
    assert np.isfinite(got["pred_x0"].values).all()


@pytest.mark.slow
def test_the_first_process_waits_for_the_share_of_another(tiny, tmp_path, monkeypatch):
    """The other process makes its share while the first one waits."""
    from xhat.hooks import trace as trace_module

    call = {"seeds": range(4), "batch_size": 1, "num_inference_steps": 1, "progress": False}
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []

    def held(path, rank):
        """Another process is there, and makes its share just now."""
        shares.append(rank)
        if len(shares) == 2:
            monkeypatch.setenv("RANK", "1")
            xhat.trace(tiny.sd(), "a face", store=tmp_path / "a.zarr", **call)
        return True

    monkeypatch.setattr(trace_module, "held", held)
    got = xhat.trace(tiny.sd(), "a face", store=tmp_path / "a.zarr", **call)
    assert shares == [1, 1]
    assert np.isfinite(got["pred_x0"].values).all()


def test_traces_are_streamed_unless_told_otherwise(store):
    """Analyses of a default open hold parts of x̂₀, never the whole."""
    lazy, whole = xhat.open_trace(store), xhat.open_trace(store, chunks=None).load()
    assert lazy["pred_x0"].chunks is not None
    with dask.config.set(scheduler="threads"), Held() as held:
        xr.testing.assert_identical(diversity_by_noise(lazy), diversity_by_noise(whole))
    assert held.most <= 0.6 * whole["pred_x0"].nbytes
