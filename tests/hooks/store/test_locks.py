"""One name and one lock for each store, and nothing removed that this run did not make."""

from __future__ import annotations

import errno
import os

import pytest
import zarr

import xhat
from xhat.hooks.store import files, locks
from xhat.hooks.store.locks import located, locked


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd()


def trace(pipe, store, **kwargs):
    arguments = {"seeds": range(2), "batch_size": 1, "num_inference_steps": 1, "progress": False}
    return xhat.trace(pipe, "a face", store=store, **(arguments | kwargs))


def test_a_store_has_one_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a.zarr")
    one = str(tmp_path / "a.zarr")
    names = ["a.zarr", "./a.zarr/", "~/a.zarr", "link", one, tmp_path / "x" / ".." / "a.zarr"]
    names += [f"file:{one}", f"file://{one}", f"file://localhost{one}", f"local://{one}"]
    assert {located(name) for name in names} == {one}
    assert located("S3://bucket/x/../a.zarr/") == located("s3://bucket/a.zarr")


@pytest.mark.parametrize("name", ["file:{}", "file://{}", "{}/", "link"])
def test_a_lock_is_not_passed_by_another_name(pipe, tmp_path, name):
    store = tmp_path / "a.zarr"
    (tmp_path / "link").symlink_to(store)
    other = tmp_path / "link" if name == "link" else name.format(store)
    with locked(located(store)):
        with pytest.raises(ValueError, match="another run is writing into"):
            trace(pipe, other)
        with (
            pytest.raises(ValueError, match="another run is writing into"),
            xhat.Tracer(pipe, store=other),
        ):
            pipe("a face", num_inference_steps=1, output_type="latent")
    assert not store.exists()


def test_home_is_expanded(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trace(pipe, "~/a.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]


@pytest.mark.parametrize("number", locks.NO_LOCKS)
def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, number):
    import fcntl

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = str(tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match="without locks|flock not supported"), locked(store):
        assert len(list(tmp_path.iterdir())) == 1
        with (
            pytest.raises(ValueError, match="another run is writing"),
            pytest.warns(UserWarning, match="without locks|flock not supported"),
            locked(store),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_is_put_in_place_of_the_locked_one_guards_nothing(tmp_path):
    """The file of a lock goes when it is released: who opened it before holds a nameless file."""
    store = str(tmp_path / "a.zarr")
    with locked(store):
        before = locks.lock_path(store).stat().st_ino
    with locked(store):
        assert locks.lock_path(store).stat().st_ino
        with pytest.raises(ValueError, match="another run"), locked(store):
            pass
    assert before
    assert not locks.lock_path(store).exists()


def test_of_two_that_take_over_a_remote_lock_the_last_has_it(monkeypatch):
    store = "memory://locks/a.zarr"
    with locked(store) as first:
        first()
        monkeypatch.setattr(locks, "STALE", -1.0)
        with locked(store) as second:
            second()
            with pytest.raises(ValueError, match="another run has taken over"):
                first()
        monkeypatch.undo()
    with locked(store):
        pass


def test_a_run_renews_its_remote_lock_after_each_tile(pipe, monkeypatch):
    store, seen = "memory://locks/alive.zarr", []
    who = locks._who
    monkeypatch.setattr(locks, "_who", lambda token="": (seen.append(token), who(token))[1])
    trace(pipe, store)
    assert len(seen) >= 2 + 2  # made and read back, then once a tile


def test_what_others_put_into_a_store_stays_when_the_run_fails(pipe, tmp_path, monkeypatch):
    from xhat.hooks.store.store import Store

    store = tmp_path / "a.zarr"

    def full(self, index, tile, arrays):
        (store / "notes.txt").write_text("mine")
        (store / "latents" / "mine.partial").write_text("mine")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(OSError, match="No space"):
        trace(pipe, store)
    left = sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file())
    assert left == ["latents/mine.partial", "notes.txt"]


def test_a_trace_that_appears_meanwhile_is_left_alone(pipe, tmp_path, monkeypatch):
    store, put_new = tmp_path / "a.zarr", files.put_new

    def late(*args):
        zarr.create_group(store, zarr_format=3, attributes={"title": "another's"})
        put_new(*args)

    monkeypatch.setattr(files, "put_new", late)
    with pytest.raises(ValueError, match="another trace appeared"):
        trace(pipe, store)
    assert dict(zarr.open_group(store).attrs) == {"title": "another's"}


def test_only_zarrs_own_partial_files_are_swept(pipe, tmp_path, monkeypatch):
    store, seal = tmp_path / "a.zarr", files.sweep_partial
    ours = store / "pred_x0" / f"0.{'0' * 32}.partial"

    def sweep(path):
        ours.write_text("half")
        (store / "mine.partial").write_text("mine")
        seal(path)

    monkeypatch.setattr(files, "sweep_partial", sweep)
    with pytest.warns(UserWarning, match=r"mine.partial is not recognized"):
        trace(pipe, store)
    assert not ours.exists()
    assert (store / "mine.partial").read_text() == "mine"


def test_a_tile_is_on_the_disk_before_it_is_called_complete(pipe, tmp_path, monkeypatch):
    store, order = tmp_path / "a.zarr", []
    fsync = os.fsync

    def synced(descriptor):
        order.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        assert not (store / "run/checksums/c/0/0/0").exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    trace(pipe, store, seeds=[0])
    chunks = {str(p) for p in store.rglob("*") if p.is_file() and "/c/0/0" in str(p)}
    assert set(order) == {p for p in chunks if "/run/" not in p}


def test_a_store_that_is_a_file_is_refused(pipe, tmp_path):
    store = tmp_path / "a.zarr"
    store.write_text("mine")
    for action in (lambda: trace(pipe, store), lambda: xhat.open_trace(store)):
        with pytest.raises(ValueError, match=r"a\.zarr is a file"):
            action()
    assert store.read_text() == "mine"


def test_a_url_without_its_package_is_refused(pipe):
    with pytest.raises(ValueError, match="s3://bucket/a.zarr: .*s3fs"):
        trace(pipe, "s3://bucket/a.zarr")


def test_an_older_zarr_is_no_trace(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"xhat_format": 2})
    with pytest.raises(ValueError, match="is there already and is no trace"):
        xhat.open_trace(tmp_path / "a.zarr")
