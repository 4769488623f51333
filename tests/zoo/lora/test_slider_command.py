"""``xhat slider``, and the sliders that come with the family."""

import numpy as np
import pytest
import torch
import xarray as xr

from xhat.analysis.sampling.slider_grid import with_flags
from xhat.cli import main
from xhat.figures.slider_grid import draw
from xhat.zoo.family.attributes import HELD_OUT, parse_prompt
from xhat.zoo.family.judge import load_judge
from xhat.zoo.lora.loading import load_slider, remove, sliding
from xhat.zoo.lora.shipped import SLIDERS, find_slider, notes, shipped
from xhat.zoo.pairs import load_model


@pytest.mark.parametrize("name", SLIDERS)
def test_the_captions_state_what_the_slider_turns(name):
    turned = SLIDERS[name]
    for prompt, value in ((turned.positive, turned.up), (turned.negative, turned.down)):
        scene = parse_prompt(prompt)
        assert scene.kind == turned.kind
        assert scene.values == {turned.attribute: value}
    assert parse_prompt(turned.target).values == {}


def test_every_slider_of_the_table_is_shipped_and_says_how_it_was_made():
    files = shipped("base")
    assert set(SLIDERS) <= set(files)
    assert set(files) & set(HELD_OUT)
    assert {"critter-1", "critter-3"} <= set(files)
    assert len(shipped("dmd")) >= 2
    for path in shipped().values():
        said = notes(path)
        assert path.stat().st_size < (2048 if said["layers"] == "all" else 300) * 1024
        assert said["objective"] in ("concept slider", "customisation", "sliderspace direction")
        assert len(said["weights"]) == 64
        assert {"target", "model", "steps", "seed", "rank", "layers"} <= set(said)


@pytest.mark.slow
def test_a_shipped_slider_moves_what_the_judge_reads():
    pipe, judge, turned = load_model("demo/base"), load_judge(), SLIDERS["square"]
    load_slider(pipe, shipped()["square"], "square_slider")
    share = {}
    for scale in (-1, 1):
        with sliding(pipe, {"square_slider": scale}):
            generators = [torch.Generator().manual_seed(s) for s in range(8)]
            images = pipe(
                [turned.target] * 8,
                generator=generators,
                num_inference_steps=6,
                guidance_scale=3.0,
                output_type="np",
            ).images
        read = judge.read(images.transpose(0, 3, 1, 2), turned.kind)
        values = np.array(["round", "square", "thin", "pointy", "bell", "stepped"])[
            read.labels["shape"]
        ]
        share[scale] = (values == "square").mean() - (values == "round").mean()
    remove(pipe, "square_slider")
    assert share[1] > share[-1] + 0.5


def test_list_names_them_all(capsys):
    assert main(["slider", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in shipped())
    assert "a square critter" in listed


@pytest.mark.slow
def test_apply_draws_a_grid(tmp_path, capsys):
    argv = [
        "slider",
        "apply",
        "demo/dmd",
        "--slider",
        "square",
        "--scales",
        "-1",
        "1",
        "--seeds",
        "0:2",
    ]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "slider_grid.png").exists()
    with xr.open_dataset(tmp_path / "data" / "slider_grid.nc") as data:
        assert data["images"].shape == (1, 3, 2, 64, 64, 3)
        assert data["scale"].values.tolist() == [
            -1,
            0,
            1,
        ]
        assert data.attrs["prompt"] == "a critter"
        assert data.attrs["slider"] == "square"


@pytest.mark.slow
def test_train_writes_a_slider_that_apply_takes(tmp_path, capsys):
    path = tmp_path / "mine.safetensors"
    argv = ["slider", "train", "demo/dmd", "--target", "a planet", "--positive", "a big planet"]
    assert (
        main(
            [
                *argv,
                "--negative",
                "a small planet",
                "--steps",
                "2",
                "--rank",
                "1",
                "--to",
                str(path),
            ]
        )
        == 0
    )
    said = notes(path)
    assert (said["model"], said["positive"], said["steps"], said["rank"]) == (
        "demo/dmd",
        ["a big planet"],
        2,
        1,
    )
    assert find_slider(str(path)) == (path, "a planet")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["apply", "demo/dmd", "--slider", "sqare"], "did you mean 'square'?"),
        (["apply", "demo/dmd", "--slider", "square", "--hybrid"], "made of two models"),
        (["train", "demo/dmd", "--target", "a planet"], "train needs --positive, --negative"),
        (["train", "--all", "--rank", "3"], "leave out rank"),
    ],
)
def test_mistakes_are_one_line(argv, says, capsys):
    assert main(["slider", *argv]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_saturated_pictures_are_flagged():
    """Noise clipped to black and white: the share of clipped values rises, and the judge is no
    longer sure.
    """
    rng = np.random.default_rng(0)
    calm = rng.integers(60, 200, (1, 1, 3, 64, 64, 3), dtype=np.uint8)
    burnt = (rng.integers(0, 2, (1, 1, 3, 64, 64, 3)) * 255).astype(np.uint8)
    images = np.concatenate([calm, calm, burnt], axis=1)
    data = xr.Dataset(
        {"images": (("model", "scale", "seed", "row", "col", "rgb"), images)},
        coords={"model": ["base"], "scale": [0.0, 1.0, 8.0], "seed": [0, 1, 2]},
        attrs={"prompt": "a critter", "slider": "square"},
    )
    flagged = with_flags(data, None)
    assert flagged["saturated"].values.tolist() == [[False, False, True]]
    assert np.isnan(flagged["confidence"]).all()
    figure = draw(flagged)
    framed = [axis for axis in figure.axes if axis.spines["left"].get_visible()]
    assert len(figure.axes) == 9
    assert len(framed) == 3
