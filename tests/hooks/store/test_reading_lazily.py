"""Traces that are read with Dask, and stores by URL."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback

import xhat
from xhat.analysis import diversity_by_noise, similarity_map


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


def test_traces_are_streamed_unless_told_otherwise(store):
    """Analyses of a default open hold parts of x̂₀, never the whole."""
    lazy, whole = xhat.open_trace(store), xhat.open_trace(store, chunks=None).load()
    assert lazy["pred_x0"].chunks is not None
    with dask.config.set(scheduler="threads"), Held() as held:
        xr.testing.assert_identical(diversity_by_noise(lazy), diversity_by_noise(whole))
    assert held.most <= 0.6 * whole["pred_x0"].nbytes
