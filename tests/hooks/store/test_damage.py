"""Every kind of damage to a store is noticed, named in a line, and made again where it is asked."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import xhat
from xhat.hooks.store import layout
from xhat.hooks.store.failures import DamagedTrace

HOOKS = {"h": "mean", "in": "full", "mid.res.0": "gram"}
PROMPTS = ["a red planet", "a blue dog"]


def trace(pipe, store, **kwargs):
    arguments = {"seeds": range(3), "hooks": HOOKS, "batch_size": 1, "num_inference_steps": 2}
    return xhat.trace(pipe, PROMPTS, store=store, progress=False, **(arguments | kwargs))


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd()


@pytest.fixture(scope="module")
def made(pipe, tmp_path_factory):
    """A store in whose ``activations/in`` each step lies in a chunk of its own, within shards."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SPLIT", 5_000)
        whole = trace(pipe, path).load()
    assert zarr.open_group(path)["activations/in/value"].shards is not None
    assert zarr.open_group(path)["pred_x0"].shards is None
    return path, whole


def files_of(store, kind):
    """Files of a store: data of tiles, coordinates (and Gram matrices), metadata, checksums."""
    every = sorted(p for p in Path(store).rglob("*") if p.is_file())
    metadata = [p for p in every if p.name == "zarr.json"]
    checksums = [p for p in every if "run/checksums/c" in str(p)]
    chunks = [p for p in every if "/c/" in str(p) and p not in checksums]
    beside = [p for p in every if p.parent.name == "c"] + [
        p for p in chunks if "/activations/mid.res.0/" in str(p)
    ]
    data = [p for p in chunks if p not in beside]
    return {"data": data, "coordinate": beside, "metadata": metadata, "checksums": checksums}[kind]


def flip(dice, files):
    path = dice.choice(files)
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))


def delete(dice, files):
    dice.choice(files).unlink()


def truncate(dice, files):
    path = dice.choice(files)
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))])


def exchange(dice, files):
    """Two chunks of one array change places; where both hold the same, nothing is damaged."""
    while True:
        one = dice.choice(files)
        others = [p for p in files if array_of(p) == array_of(one)]
        other = dice.choice(others)
        if one.read_bytes() != other.read_bytes():
            break
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def array_of(path):
    return str(path).partition("/c/")[0]


KINDS = [
    (flip, "data"),
    (flip, "coordinate"),
    (flip, "metadata"),
    (flip, "checksums"),
    (delete, "data"),
    (delete, "coordinate"),
    (delete, "metadata"),
    (delete, "checksums"),
    (truncate, "data"),
    (truncate, "coordinate"),
    (truncate, "metadata"),
    (truncate, "checksums"),
    (exchange, "data"),
    (exchange, "checksums"),
]


def outcome(store, whole):
    """What a reader gets: ``named`` (one line of a ValueError that names the store), ``same``, or
    ``silent``.
    """
    try:
        got = xhat.open_trace(store).load()
    except ValueError as error:
        assert str(store) in str(error), error
        assert "\n" not in str(error)
        return "named"
    return "same" if got.identical(whole) else "silent"


def corrupted(made, folder, damage, kind, seed):
    store = folder / "a.zarr"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(made[0], store)
    dice = random.Random(f"{damage.__name__} {kind} {seed}")
    damage(dice, files_of(store, kind))
    return store


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "kind"), KINDS)
def test_no_damage_is_read_as_data(made, tmp_path, damage, kind):
    got = [outcome(corrupted(made, tmp_path, damage, kind, s), made[1]) for s in range(4)]
    # a bit of the root's metadata that says nothing of the trace may change without consequence
    assert set(got) <= ({"named", "same"} if (damage, kind) == (flip, "metadata") else {"named"})


def test_attributes_that_were_changed_are_not_read(made, tmp_path):
    store = shutil.copytree(made[0], tmp_path / "a.zarr")
    path = store / "zarr.json"
    root = json.loads(path.read_text())
    root["attributes"]["scheduler"] = "another"
    path.write_text(json.dumps(root))
    assert outcome(store, made[1]) == "named"


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["pred_x0", "activations/in/value"])
def test_a_step_read_alone_is_checked_too(made, tmp_path, variable):
    """Of a shard only a part is read: its bytes must be those of this part of this shard."""
    store = tmp_path / "a.zarr"
    shutil.copytree(made[0], store)
    files = [p for p in files_of(store, "data") if array_of(p).endswith(f"/{variable}")]
    a, b = files[0].read_bytes(), files[1].read_bytes()
    files[0].write_bytes(b)
    files[1].write_bytes(a)
    with pytest.raises(
        DamagedTrace, match=rf"{variable}/c/0/[01]/.* \(prompts 0, seeds [01] by pos"
    ):
        xhat.open_trace(store)[variable].isel(step=1).values  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (flip, "data"),
        (delete, "data"),
        (flip, "checksums"),
        (flip, "coordinate"),
        (delete, "metadata"),
    ],
)
def test_a_repair_makes_again_what_is_damaged(pipe, made, tmp_path, damage, kind):
    store = corrupted(made, tmp_path, damage, kind, 1 if kind == "metadata" else 0)
    before = {p.name for p in (store / "pred_x0" / "c" / "0").iterdir()}
    with pytest.raises(ValueError, match="damaged"):
        trace(pipe, store).load()
    xr.testing.assert_identical(trace(pipe, store, repair=True).load(), made[1])
    xr.testing.assert_identical(xhat.open_trace(store).load(), made[1])
    assert before == {p.name for p in (store / "pred_x0" / "c" / "0").iterdir()}


@pytest.mark.slow
def test_gram_matrices_are_made_again_of_every_tile(pipe, made, tmp_path):
    store = tmp_path / "a.zarr"
    shutil.copytree(made[0], store)
    chunks = [p for p in files_of(store, "coordinate") if array_of(p).endswith("res.0/value")]
    flip(random.Random(0), chunks)
    with pytest.raises(DamagedTrace, match="activations/mid.res.0/value"):
        xhat.open_trace(store)
    xr.testing.assert_identical(trace(pipe, store, repair=True).load(), made[1])
    assert not (store / "scratch").exists()


@pytest.mark.slow
def test_a_whole_store_is_left_as_it_is(pipe, made, tmp_path):
    store = tmp_path / "a.zarr"
    shutil.copytree(made[0], store)
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    trace(pipe, store, repair=True)
    assert before == {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_chunks_of_nothing_but_the_fill_value_are_there(made):
    """One that is not there would be taken for one that was lost."""
    group = zarr.open_group(made[0])
    for name in ("pred_x0", "images"):
        assert len(list((made[0] / name / "c").rglob("0"))) > 0
        assert group[name].metadata.codecs[-1].to_dict()["name"] == "crc32c"


@pytest.mark.slow
def test_a_tracers_store_is_checked_too(pipe, tmp_path):
    store = tmp_path / "a.zarr"
    with xhat.Tracer(pipe, hooks={"h": "mean"}, store=store):
        pipe("a face", num_inference_steps=2, output_type="latent")
    whole = xhat.open_trace(store).load()
    assert np.isfinite(whole["pred_x0"]).all()
    for i, damage in enumerate((flip, delete, truncate)):
        copy = tmp_path / f"{i}.zarr"
        shutil.copytree(store, copy)
        chunks = sorted(p for p in copy.rglob("*") if p.is_file() and "/c/" in str(p))
        damage(random.Random(i), chunks)
        assert outcome(copy, whole) == "named"
