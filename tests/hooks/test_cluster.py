"""Tracing on a cluster of Dask: the trace of one process, whatever becomes of the workers."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from functools import partial

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import xhat
from xhat.cli import main
from xhat.hooks import cluster
from xhat.zoo.pairs import load_model

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
PROMPTS = ["a planet", "a critter"]
CALL = {
    "seeds": range(3),
    "hooks": {"h": "gram", "in": "mean"},
    "batch_size": 1,
    "num_inference_steps": 1,
    "progress": False,
}
TURBO = partial(load_model, "demo/turbo")


@pytest.fixture(scope="module")
def whole():
    return xhat.trace(TURBO(), PROMPTS, **CALL)


@pytest.fixture(scope="module")
def processes():
    env = dict.fromkeys(cluster.THREADS, "1")
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "env": env}
    with LocalCluster(n_workers=2, **options) as made, Client(made) as client:
        yield client


@pytest.fixture
def threads():
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with Client(**options, dashboard_address=":0") as client:
        yield client


def assert_equal(got, expected):
    for node in expected.subtree:
        for name, variable in node.data_vars.items():
            there = got[f"{node.path.rstrip('/')}/{name}"]
            np.testing.assert_array_equal(there, variable, err_msg=name)


@pytest.mark.slow
def test_the_trace_of_workers_is_that_of_one_process(whole, processes, tmp_path):
    got = xhat.trace(
        TURBO(), PROMPTS, store=tmp_path / "a.zarr", client=processes, load=TURBO, **CALL
    )
    assert_equal(got.load(), whole)
    assert got.attrs["checksum"] == whole.attrs["checksum"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.slow
def test_the_batches_of_a_killed_worker_are_done_by_others(whole, processes, tmp_path):
    """SIGKILL to one of two, as soon as there is a store to write to."""
    store, pids = tmp_path / "a.zarr", processes.run(os.getpid)
    victim = next(iter(pids.values()))

    def kill():
        while not (store / "zarr.json").exists():
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    got = xhat.trace(TURBO(), PROMPTS, store=store, client=processes, load=TURBO, **CALL)
    killer.join()
    assert_equal(got.load(), whole)


@pytest.mark.slow
def test_a_batch_that_fails_is_named_and_the_others_are_done(tiny, threads, tmp_path, monkeypatch):
    pipe, store = tiny.sd(), tmp_path / "a.zarr"
    call, refused = type(pipe).__call__, []

    def failing(self, *args, prompt, generator, **kwargs):
        if prompt == ["a critter"] and generator[0].initial_seed() == 1:
            refused.append(prompt)
            raise ArithmeticError("no such picture")
        return call(self, *args, prompt=prompt, generator=generator, **kwargs)

    failing.__signature__ = inspect.signature(call)
    with monkeypatch.context() as patch:
        patch.setattr(type(pipe), "__call__", failing)
        expected = r"1 batches failed.*prompts 1 to 1 × seeds 1 to 1 .*ArithmeticError: no such"
        with pytest.raises(RuntimeError, match=expected):
            xhat.trace(pipe, PROMPTS, store=store, client=threads, **CALL)
    assert len(refused) == 1 + cluster.RETRIES
    written = []
    monkeypatch.setattr(
        "xhat.hooks.store.store.Store.write",
        lambda self, index, *rest, _write=cluster.Store.write: (
            written.append(index),
            _write(self, index, *rest),
        ),
    )
    got = xhat.trace(pipe, PROMPTS, store=store, client=threads, **CALL)
    assert written == [(1, 1)]
    assert_equal(got.load(), xhat.trace(pipe, PROMPTS, **CALL))


@pytest.mark.slow
def test_no_tap_is_left_on_a_worker_s_pipeline(tiny, threads, tmp_path):
    pipe = tiny.sd()
    xhat.trace(pipe, PROMPTS, store=tmp_path / "a.zarr", client=threads, **CALL)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())


def test_a_worker_with_another_pipeline_is_refused(tiny, threads, tmp_path):
    with pytest.raises(ValueError, match=r"not the one that is traced \(weights: .*load= must"):
        xhat.trace(
            tiny.sd(),
            PROMPTS,
            store=tmp_path / "a.zarr",
            client=threads,
            load=partial(tiny.sd, seed=7),
            **CALL,
        )
    assert not (tmp_path / "a.zarr").exists()


def test_workers_need_a_store_that_they_can_see(tiny, threads):
    with pytest.raises(ValueError, match="the workers of client= write to a store"):
        xhat.trace(tiny.sd(), PROMPTS, client=threads, **CALL)
    with pytest.raises(ValueError, match="in this process's memory"):
        xhat.trace(tiny.sd(), PROMPTS, client=threads, store="memory://a/b.zarr", **CALL)


@pytest.mark.slow
def test_the_command_traces_on_workers_of_this_machine(tmp_path, capsys, whole):
    argv = ["trace", "demo/turbo", "--prompts", *PROMPTS, "--seeds", "0:3", "--steps", "1"]
    argv += ["--batch-size", "1", "--hooks", "h=gram", "in", "--device", "cpu"]
    assert main([*argv, "--store", str(tmp_path / "a.zarr"), "--workers", "2"]) == 0
    assert "workers: http" in capsys.readouterr().err
    xr.testing.assert_equal(
        xhat.open_trace(tmp_path / "a.zarr").load()["pred_x0"], whole["pred_x0"]
    )


def test_a_scheduler_that_is_not_there_is_named(tmp_path, capsys):
    argv = ["trace", "demo/turbo", "--prompts", "a planet", "--store", str(tmp_path / "a.zarr")]
    assert main([*argv, "--scheduler", str(tmp_path / "none.json")]) != 0
    assert "no such file; expected an address" in capsys.readouterr().err
