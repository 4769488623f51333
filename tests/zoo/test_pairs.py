"""The embedded family loads with diffusers alone, and carries its defaults."""

import pytest
import torch

import xhat
from xhat.zoo.family.distil import TIMESTEPS
from xhat.zoo.load.embedded import LATE_TIMESTEPS, RETIRED, WEIGHTS, embedded
from xhat.zoo.pairs import load_model


@pytest.mark.slow
def test_diffusers_loads_every_member_and_gives_the_same_picture():
    from diffusers import StableDiffusionPipeline

    for name, folder in embedded().items():
        ours = load_model(f"demo/{name}")
        theirs = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        call = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "np"}
        a, b = (
            p("a planet", generator=torch.Generator().manual_seed(0), **call).images
            for p in (ours, theirs)
        )
        assert (a == b).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in embedded() if name != "base"])
def test_students_step_at_their_training_timesteps(name):
    student = load_model(f"demo/{name}")
    student("a planet", output_type="latent", **xhat.defaults(student))
    late = name.endswith("-late")
    assert student.scheduler.timesteps.tolist() == list(LATE_TIMESTEPS if late else TIMESTEPS)


def test_the_control_is_the_same_student_on_a_grid_that_commits_late():
    assert xhat.load_pair("demo").control == "dmd-late"
    assert xhat.load_pair("demo/lcm").control is None
    assert xhat.load_pair("sdxl/dmd2").control is None


def test_a_retired_name_is_refused_with_its_heir():
    for refused in (xhat.load_pair, load_model):
        with pytest.raises(ValueError, match="demo/paired is retired; take demo/lcm"):
            refused("demo/paired")
    assert set(RETIRED.values()) <= set(embedded())


def test_what_ships_is_small():
    """The files of the package stay under 95 MB."""
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 95e6


def test_unknown_names_show_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'demo"):
        xhat.load_pair("demo/dmmd")
    with pytest.raises(ValueError, match="there are demo/base"):
        load_model("demo/nothing")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        load_model(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="could not be loaded"):
        load_model(str(tmp_path))


def test_list_names_the_family_and_the_published_pairs(capsys):
    from xhat import zoo
    from xhat.zoo.load.catalogue import bases, published

    zoo.list()
    lines = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")
    ]
    assert lines[: len(embedded())] == [f"demo/{n}" for n in embedded()]
    assert set(lines[len(embedded()) :]) == {*bases(), *published()}
    zoo.list(cards=True)
    out = capsys.readouterr().out
    assert all(
        entry.source in out and entry.checked in out
        for entry in (*published().values(), *bases().values())
    )
