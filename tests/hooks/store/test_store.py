"""Stores survive: kills, full disks, other runs; and come back to the bit."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import tqdm
import xarray as xr
import zarr

import xhat
from xhat.hooks.store import files, grams, layout
from xhat.hooks.store import locks as lock
from xhat.hooks.store.reading import open_trace
from xhat.hooks.store.store import Store
from xhat.hooks.store.writer import Writer

pytestmark = pytest.mark.filterwarnings("ignore:__array", "ignore:This process.*is multi-threaded")
PROMPTS = ["a red planet", "a face <script>", "ein blauer Plänet 🪐"]
HOOKS = {"h": "mean", "in": "pool(2)", "mid.res.0": "gram"}


def trace(pipe, store, **kwargs):
    arguments = {
        "seeds": range(4),
        "hooks": HOOKS,
        "batch_size": 2,
        "num_inference_steps": 2,
        "progress": False,
    }
    return xhat.trace(pipe, PROMPTS, store=store, **(arguments | kwargs))


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd()


@pytest.fixture(scope="module")
def unbroken(pipe):
    return trace(pipe, None)


@pytest.mark.slow
def test_a_store_holds_what_memory_would(pipe, unbroken, tmp_path):
    found = trace(pipe, tmp_path / "a.zarr")
    xr.testing.assert_identical(found.load(), unbroken)
    assert list(found["activations"].children) == list(unbroken["activations"].children)


@pytest.mark.slow
def test_plain_xarray_reads_it(pipe, unbroken, tmp_path):
    trace(pipe, tmp_path / "a.zarr")
    found = xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=False)
    assert np.array_equal(found["pred_x0"], unbroken["pred_x0"])
    assert "sigma" in found.coords
    assert zarr.open_group(tmp_path / "a.zarr").metadata.zarr_format == 3


@pytest.mark.slow
def test_dask_reads_it_a_chunk_at_a_time(pipe, unbroken, tmp_path):
    trace(pipe, tmp_path / "a.zarr")
    lazy = open_trace(tmp_path / "a.zarr", chunks={})
    assert lazy["pred_x0"].chunks is not None
    assert lazy["pred_x0"].chunks[1] == (2, 2)
    np.testing.assert_allclose(
        lazy["pred_x0"].mean().compute(), unbroken["pred_x0"].mean(), rtol=1e-5
    )


@pytest.mark.slow
def test_a_large_tile_is_split_by_step(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SPLIT", 1000)
    found = trace(tiny.sd(), tmp_path / "a.zarr")
    array = zarr.open_group(tmp_path / "a.zarr")["pred_x0"]
    assert array.shards[:3] == (1, 2, 2)
    assert array.chunks[:3] == (1, 2, 1)
    xr.testing.assert_identical(found.load(), trace(tiny.sd(), None))


@pytest.mark.slow
def test_a_remote_store(pipe, unbroken):
    store = "memory://traces/remote.zarr"
    found = trace(pipe, store)
    xr.testing.assert_identical(found.load(), unbroken)
    with lock.locked(store), pytest.raises(ValueError, match="another run is writing"):
        trace(pipe, store)
    with pytest.raises(ValueError, match="belongs to another run"):
        trace(pipe, store, seeds=[9])


# Going on


class Killed(BaseException):
    pass


def killed_after(monkeypatch, tiles):
    """The process dies while it writes tile number ``tiles`` (in this run)."""
    write, count = Store.write, []

    def dying(self, index, tile, arrays):
        count.append(index)
        if len(count) > tiles:
            place = (
                slice(tile.prompts.start, tile.prompts.stop),
                slice(tile.seeds.start, tile.seeds.stop),
            )
            self._array("pred_x0")[place] = 7.0  # written, and not yet complete
            raise Killed
        write(self, index, tile, arrays)

    monkeypatch.setattr(Store, "write", dying)
    return count


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_writes_nothing_twice(pipe, unbroken, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            trace(pipe, path)
    with pytest.warns(UserWarning, match="not finished: 4 of 6 batches are missing"):
        open_trace(path)
    with monkeypatch.context() as patch:
        count = killed_after(patch, 99)
        found = trace(pipe, path)
        assert len(count) == 4
    xr.testing.assert_identical(found.load(), unbroken)
    with monkeypatch.context() as patch:
        count = killed_after(patch, 0)
        xr.testing.assert_identical(trace(pipe, path).load(), unbroken)
        assert not count  # finished: nothing is sampled


@pytest.mark.slow
def test_another_batch_size_goes_on_in_the_batches_of_the_store(
    pipe, unbroken, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        killed_after(patch, 1)
        with pytest.raises(Killed):
            trace(pipe, tmp_path / "a.zarr")
    xr.testing.assert_identical(trace(pipe, tmp_path / "a.zarr", batch_size=16).load(), unbroken)


@pytest.mark.slow
def test_killed_while_its_store_is_made(pipe, unbroken, tmp_path, monkeypatch):
    put, count = files.put, []

    def dying(*args):
        count.append(1)
        if len(count) > 9:
            raise Killed
        put(*args)

    with monkeypatch.context() as patch:
        patch.setattr(files, "put", dying)
        patch.setattr(Store, "abandon", lambda self: None)
        with pytest.raises(Killed):
            trace(pipe, tmp_path / "a.zarr", batch_size=1)
    assert (tmp_path / "a.zarr").exists()
    xr.testing.assert_identical(trace(pipe, tmp_path / "a.zarr").load(), unbroken)


@pytest.mark.slow
def test_killed_while_its_grams_are_made(pipe, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(grams, "streamed_gram", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            trace(pipe, tmp_path / "a.zarr")
    xr.testing.assert_identical(trace(pipe, tmp_path / "a.zarr").load(), unbroken)


@pytest.mark.slow
def test_killed_between_its_scratch_files_and_their_folders(pipe, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files, "_remove_empty", lambda _: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            trace(pipe, tmp_path / "a.zarr")
    folder = tmp_path / "a.zarr" / "scratch"
    assert folder.exists()
    assert not [path for path in folder.rglob("*") if path.is_file()]
    (tmp_path / "a.zarr" / f"scratch/{'0' * 32}.partial").touch()
    (tmp_path / "a.zarr" / f"scratch/x.{'0' * 32}.partial").touch()
    xr.testing.assert_identical(trace(pipe, tmp_path / "a.zarr").load(), unbroken)
    assert [path.name for path in folder.rglob("*")] == [f"{'0' * 32}.partial"]  # not ours


def fork(action) -> int:
    """Run ``action`` in a child process; 0 is its exit status where it returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), 2
            )  # a child that is killed has nothing to say
            tqdm.tqdm.set_lock(
                threading.RLock()
            )  # the one it has is shared: killed with it, it would stop us all
            action()
            status = 0
        finally:
            os._exit(status)
    return child


@pytest.mark.slow
def test_twenty_kills_at_random_moments(pipe, tmp_path):
    """SIGKILL, anywhere between the first instruction and the last; each time the next run goes
    on.
    """
    arguments = {"seeds": range(6), "batch_size": 1, "num_inference_steps": 1}
    whole = trace(pipe, None, **arguments)
    dice, kills, path, runs = random.Random(0), 0, tmp_path / "0.zarr", 0
    while kills < 20:
        child = fork(lambda path=path: trace(pipe, path, **arguments))
        time.sleep(dice.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        else:
            assert os.WEXITSTATUS(status) == 0
            xr.testing.assert_identical(open_trace(path).load(), whole)
            runs += 1
            path = tmp_path / f"{runs}.zarr"
    xr.testing.assert_identical(trace(pipe, path, **arguments).load(), whole)
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("scratch"))


# What stands in the way


def held(store):
    """Whether another may not write into the store."""
    try:
        with lock.locked(store):
            return False
    except lock.StoreInUse:
        return True


@pytest.mark.slow
def test_two_runs_into_one_store_are_refused(pipe, tmp_path):
    path = str(tmp_path / "a.zarr")
    with (
        lock.locked(path),
        pytest.raises(ValueError, match=rf"another run is writing into .*process {os.getpid()} on"),
    ):
        trace(pipe, path)
    assert not (tmp_path / "a.zarr").exists()
    trace(pipe, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_lock_dies_with_its_process(tmp_path):
    path = str(tmp_path / "a.zarr")
    read, write = os.pipe()

    def hold():
        with lock.locked(path):
            os.write(write, b"x")
            time.sleep(60)

    child = fork(hold)
    os.read(read, 1)
    assert held(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not held(path)


def test_a_remote_lock_is_taken_over_when_it_is_old(monkeypatch):
    store = "memory://traces/old.zarr"
    with lock.locked(store):
        assert held(store)
        monkeypatch.setattr(lock, "STALE", -1.0)
        assert not held(store)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seeds": range(5)}, "seeds"),
        ({"hooks": {"h": "full"}}, "hooks"),
        ({"num_inference_steps": 3}, "call"),
        ({"guidance_scale": 1.0}, "call"),
    ],
)
def test_a_store_of_another_run_is_refused_and_left_alone(pipe, unbroken, tmp_path, change, named):
    trace(pipe, tmp_path / "a.zarr")
    with pytest.raises(
        ValueError, match=rf"belongs to another run \({named}\S*: .* there, .* here"
    ):
        trace(pipe, tmp_path / "a.zarr", **change)
    xr.testing.assert_identical(open_trace(tmp_path / "a.zarr").load(), unbroken)


@pytest.mark.slow
def test_other_weights_are_another_run(tiny, pipe, tmp_path):
    trace(pipe, tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="belongs to another run .*weights"):
        trace(tiny.sd(seed=1), tmp_path / "a.zarr")


def test_what_is_no_trace_is_left_alone(pipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="is there already and is no trace"):
        trace(pipe, tmp_path / "mine")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="a Zarr store, but not a trace"):
        trace(pipe, tmp_path / "other.zarr")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no trace at"):
        open_trace(tmp_path / "nothing.zarr")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "way_out"), [(99, "upgrade xhat"), ("0.1", "read it with the xhat that wrote it")]
)
def test_other_formats_are_refused_with_the_way_out(pipe, tmp_path, version, way_out):
    trace(pipe, tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").attrs["xhat_format"] = version
    for action in (
        lambda: open_trace(tmp_path / "a.zarr"),
        lambda: trace(pipe, tmp_path / "a.zarr"),
    ):
        with pytest.raises(ValueError, match=way_out):
            action()


def disk_full_at(monkeypatch, call):
    """The disk has room for so many files."""
    from zarr.storage import _local

    put, count = _local._put, []

    def full(*args, **kwargs):
        count.append(1)
        if len(count) >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(*args, **kwargs)

    monkeypatch.setattr(_local, "_put", full)


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 5, 12, 40, 60])
def test_a_full_disk_stops_the_run_and_loses_nothing(pipe, unbroken, tmp_path, monkeypatch, files):
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        disk_full_at(patch, files)
        with pytest.raises(
            OSError, match="no room left for .*: free some, and the same call goes on"
        ):
            trace(pipe, path)
    if files <= 12:
        assert not list(tmp_path.iterdir())  # no batch was whole: nothing stays
    xr.testing.assert_identical(trace(pipe, path).load(), unbroken)


def test_a_disk_that_cannot_hold_the_run_is_refused_before(pipe, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(layout.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        OSError, match="no room: the trace needs up to .* 1e.03 B are free|1000 B are free"
    ):
        trace(pipe, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


# The writer


def test_the_writer_keeps_order_and_a_bounded_queue():
    written, gate, sent = [], threading.Event(), []

    def slow(i):
        gate.wait(5)
        written.append(i)

    def send(writer):
        for i in range(6):
            writer.put(i)
            sent.append(i)

    with pytest.warns(UserWarning, match="sampling waits for the disk"), Writer(slow) as writer:
        thread = threading.Thread(target=send, args=(writer,))
        thread.start()
        time.sleep(0.2)
        assert len(sent) == 2
        assert not written
        gate.set()
        thread.join()
    assert written == list(range(6))


def test_a_failure_of_the_writer_is_raised_in_the_run():
    def broken(_):
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"), Writer(broken) as writer:
        writer.put(1)
        time.sleep(0.1)
        writer.put(2)


def test_a_failure_at_the_last_batch_is_raised_at_the_end_and_nothing_is_written_after_one():
    begun, written = threading.Event(), []

    def broken(i):
        begun.wait()
        written.append(i)
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"), Writer(broken) as writer:
        writer.put(1)
        writer.put(2)
        begun.set()
    assert written == [1]


def test_the_writer_finishes_what_it_has_when_the_run_fails():
    written = []
    with pytest.raises(KeyError), Writer(written.append) as writer:
        writer.put(1)
        raise KeyError
    assert written == [1]
