"""Training goes on where it stopped, and ends where an unbroken run ends."""

import pytest
import torch

from xhat.zoo.family.distil import Teacher
from xhat.zoo.family.loop import ema, set_rate, train_loop
from xhat.zoo.family.networks import base_scheduler, make_tokenizer, tokenize


def train(run, stop_at=None, steps=30):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    average, optimizer = ema(model, 0.9), torch.optim.AdamW(model.parameters(), 0.1)

    def step(i):
        if i == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(i))
        set_rate(optimizer, i, steps, 0.1, warmup=5)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return {"loss": loss.item()}

    parts = {"model": model, "average": average, "optimizer": optimizer}
    train_loop(run, parts, step, steps, save_every=4)
    return average.module.weight.detach()


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", stop_at=18)
    assert torch.equal(train(tmp_path / "killed"), whole)


def test_distillation_arithmetic_agrees_with_diffusers():
    scheduler = base_scheduler()
    scheduler.set_timesteps(20)
    teacher = Teacher(None, None, None, None, scheduler.alphas_cumprod, "cpu")
    x0, eps = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([749, 749])
    x_t = teacher.noised(x0, t, eps)
    assert torch.allclose(x_t, scheduler.add_noise(x0, eps, t))
    v = scheduler.get_velocity(x0, eps, t)
    assert torch.allclose(
        teacher.ddim(x_t, x0, t, t - 50), scheduler.step(v, 749, x_t).prev_sample, atol=1e-5
    )


def test_a_word_is_a_token():
    tokenizer = make_tokenizer()
    ids = tokenize(tokenizer, ["a happy critter with horns", ""])
    assert ids.shape == (2, 20)
    assert (ids[0] != tokenizer.pad_token_id).sum() == 7
    assert (ids[1] != tokenizer.pad_token_id).sum() == 2
    assert tokenizer.unk_token_id not in ids
