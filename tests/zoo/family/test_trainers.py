"""Every trainer runs, and goes on as if it had not stopped; the objectives hold where their answer
is known."""

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import xhat
from xhat.zoo import train
from xhat.zoo.family import distil, dmd, em, lightning, pruned, turbo
from xhat.zoo.family.critic import Critic, Features
from xhat.zoo.family.networks import load_unet
from xhat.zoo.pairs import WEIGHTS, load_pipeline


@pytest.fixture
def small(monkeypatch, teacher, data):
    """Trainers in batches of four on eight latents, without their figures and grids."""
    for name in ("turbo", "dmd", "lcm", "lightning", "em", "pruned"):
        module = import_module(f"xhat.zoo.family.{name}")
        monkeypatch.setattr(module, "load_teacher", lambda device="cpu": teacher)
        monkeypatch.setattr(module, "BATCH", 4)
        if hasattr(module, "latents"):
            monkeypatch.setattr(module, "latents", lambda runs: (data, None))
    monkeypatch.setattr(dmd, "FAKE_UPDATES", 2)
    monkeypatch.setattr(em, "LANGEVIN", 2)
    monkeypatch.setattr(lightning, "REGRESSION", 1)
    monkeypatch.setattr(distil, "progress", lambda *_: {"obedience": 0.5})
    monkeypatch.setattr(distil, "draw", lambda folder, path, **_: path.touch())


def test_of_a_run_that_was_killed_later_rows_go(tmp_path):
    run = SimpleNamespace(folder=tmp_path, device="cpu", seed=0, timesteps=[999])
    for done in (0, 100, 200, 100):
        distil._note(run, done, {"obedience": 0.5})
    note = json.loads((tmp_path / "training.json").read_text())
    assert [row["step"] for row in note["progress"]] == [0, 100]


@pytest.mark.slow
@pytest.mark.parametrize("name", train.STUDENTS)
def test_two_steps_of_every_trainer(small, tmp_path, monkeypatch, name):
    monkeypatch.setattr(distil, "CHECK_EVERY", 1)
    module, function, _ = train.TRAINERS[name]
    trainer = getattr(import_module(module), function)
    torch.manual_seed(0)
    trainer(tmp_path / "broken", steps=1, seed=1)
    pipeline = trainer(tmp_path / "broken", steps=2, seed=1)
    torch.manual_seed(0)
    whole = trainer(tmp_path / "whole", steps=2, seed=1).parent
    files = [
        folder / "checkpoints" / "step_00002.safetensors" for folder in (pipeline.parent, whole)
    ]
    broken, unbroken = (load_file(file) for file in files)
    assert all(torch.equal(broken[key], unbroken[key]) for key in unbroken)

    assert pipeline.parent.name == f"{name}-2"
    notes = json.loads((pipeline.parent / "training.json").read_text())
    assert (notes["steps"], notes["seed"]) == (2, 1)
    assert notes["progress"] == [{"step": i, "obedience": 0.5} for i in range(3)]
    loaded = load_pipeline(pipeline)
    loaded("a planet", output_type="latent", **xhat.defaults(loaded))
    assert loaded.scheduler.timesteps.tolist() == list(distil.TIMESTEPS)
    sent = distil.ship(pipeline.parent, tmp_path / "weights")
    assert sent == tmp_path / "weights" / f"{name}-2"
    assert {file.name for file in sent.iterdir()} >= {
        "model_index.json",
        "grid.png",
        "training.json",
    }


def test_most_of_turbo_is_frozen(teacher):
    student = teacher.student()
    trained = sum(p.numel() for p in turbo.trainable(student))
    assert 0.84 < 1 - trained / sum(p.numel() for p in student.parameters()) < 0.88


def test_the_critics_losses_where_they_are_known(teacher):
    critic, cond = Critic(teacher), teacher.condition(["a planet"] * 3)
    for parameter in critic.parameters():
        torch.nn.init.zeros_(parameter)
    blocks = teacher.unet.config.block_out_channels
    widths = [blocks[0], *blocks, blocks[-1]]
    features = [torch.randn(3, w, 4, 4) for w in widths]
    silent = turbo.critic_loss(critic, features, features, cond)
    assert silent["hinge"] == 2
    assert silent["r1"] == 0
    with torch.no_grad():
        critic.heads[0][-1].bias.fill_(1.0)  # a score of √64 = 8 everywhere, from the first head
    told = turbo.critic_loss(critic, features, features, cond)
    assert torch.allclose(told["hinge"], torch.tensor((9 + 4 * 2) / 5))


def test_the_critic_reads_the_encoder_alone(teacher, normal):
    """Features of the copy that ends after the mid block are those of the whole network."""
    whole = []
    down = teacher.unet.down_blocks
    for block in (down[0].resnets[0], *down, teacher.unet.mid_block):
        block.register_forward_hook(
            lambda _m, _a, out: whole.append(out[0] if isinstance(out, tuple) else out)
        )
    x_t, t, cond = normal(2), torch.tensor([300, 600]), teacher.condition(["a planet"] * 2)
    teacher.evaluate(teacher.unet, x_t, t, cond)
    expected, tap = list(whole), Features(teacher)
    assert all(torch.equal(a, b) for a, b in zip(tap(x_t, t, cond), expected, strict=True))


def run(name):
    return distil.Distillation(name, None, 1)


@pytest.mark.slow
def test_distribution_matching_rests_where_the_scores_agree(teacher, data, monkeypatch):
    """The fake-score network starts as the base: without guidance, no direction is left."""
    game = dmd.Game(run("dmd"), teacher, data, guidance=1.0)
    losses = game.update_student(torch.Generator().manual_seed(0), teacher.condition(["a planet"]))
    assert losses["dmd"] < 1e-9
    guided = dmd.Game(run("dmd"), teacher, data, guidance=3.0)
    losses = guided.update_student(
        torch.Generator().manual_seed(0), teacher.condition(["a planet"])
    )
    assert losses["dmd"] > 1e-3


def test_fresh_samples_are_paired_with_their_captions(teacher, data, monkeypatch):
    monkeypatch.setattr(dmd, "BATCH", 4)
    game = dmd.Game(run("dmd"), teacher, data, guidance=3.0)
    made, cond = game.samples(*distil_seeds())
    assert len(made) == len(cond) == dmd.FAKE_UPDATES * 4
    captions = {tuple(row.flatten()[:50].tolist()) for row in cond}
    assert len(captions) <= len(made) // len(distil.TIMESTEPS)  # four x̂₀ a caption


def distil_seeds():
    from xhat.zoo.family.teacher import seeded

    return seeded(0, 0)


@pytest.mark.slow
def test_em_rests_where_the_scores_agree(teacher, monkeypatch):
    """The chain then leaves the picture as it is, wherever it takes the noise."""
    monkeypatch.setattr(em, "GUIDANCE", 1.0)
    student, generator = teacher.student(), torch.Generator().manual_seed(0)
    cond = teacher.condition(["a planet", "a critter"])
    for _ in range(3):
        inputs = em.start(run("em"), teacher, student, cond, generator)
        x_t, goal = em.Chain(teacher, student, teacher.unet, inputs).expectation(generator)
        with torch.no_grad():
            made = teacher.predict(student, x_t, inputs.t, cond)
        assert torch.allclose(made, goal, atol=1e-4)


@pytest.mark.slow
def test_lightnings_goal_lands_where_the_teacher_does(teacher, data, monkeypatch):
    monkeypatch.setattr(lightning, "BATCH", 8)
    trainer = lightning.Lightning(run("lightning"), teacher, data)
    interval = trainer.interval(0)
    goal = trainer.teacher_step(interval)
    x0 = trainer.goal_x0(interval, goal)
    landed = teacher.ddim(interval.x_t, x0, interval.t, interval.to)
    assert torch.allclose(landed, goal, atol=1e-3)
    assert (interval.to < 0).any()
    assert (interval.to > 0).any()


def test_pruning_takes_layers_out_and_leaves_the_rest():
    deep = load_unet(WEIGHTS / pruned.OF)
    student = pruned.pruned(deep)
    of_deep = deep.state_dict()
    assert all(torch.equal(w, of_deep[name]) for name, w in student.state_dict().items())
    share = sum(w.numel() for w in student.state_dict().values()) / sum(
        w.numel() for w in of_deep.values()
    )
    assert share < 0.8
    blocks = {"down_blocks.0": torch.randn(2, 3, 4, 4), "up_blocks.0": torch.randn(2, 5, 4, 4)}
    assert pruned.layer_loss(blocks, blocks) == 0
    off = {name: h + h.std() for name, h in blocks.items()}
    assert torch.allclose(pruned.layer_loss(off, blocks), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["dmd", "--warm"], "--warm is for base"), (["vae", "--ship"], "--ship is for a student")],
)
def test_options_of_another_trainer_are_refused(capsys, options, message):
    with pytest.raises(SystemExit):
        train.main(options)
    assert message in capsys.readouterr().err
