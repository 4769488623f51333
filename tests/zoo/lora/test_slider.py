"""Sliders: the objective in closed form, training on every kind of pipeline, scales that change no
bit at 0.
"""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin

import xhat
from xhat.hooks import noise
from xhat.zoo.lora import slider
from xhat.zoo.lora.inputs import condition, network_of, predict, seen_x0, states
from xhat.zoo.lora.loading import load_slider, remove, scales_of, set_scales, sliding
from xhat.zoo.lora.slider import save_lora, train_slider

WORDS = ("a red planet", "a blue planet")


class GaussianDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """ε̂ of data N(m, s²) in closed form: b·(x − a·m)/(a²s² + b²), its mean m = to_k(prompt)."""

    @register_to_config
    def __init__(self, width: int = 6, in_channels: int = 3, spread: float = 0.5):
        super().__init__()
        self.to_k = torch.nn.Linear(width, in_channels, bias=False)
        self.register_buffer("alpha_bar", diffusers.DDIMScheduler().alphas_cumprod.clone())

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True):
        return (self.of_mean(sample, timestep, self.to_k(encoder_hidden_states)[:, :, None, None]),)

    def of_mean(self, x, t, mean):
        alpha_bar = self.alpha_bar[torch.as_tensor(t).reshape(-1)].view(-1, 1, 1, 1)
        a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return b * (x - a * mean) / (a**2 * self.config.spread**2 + b**2)


class GaussianPipeline:
    """As much of a pipeline as training needs: prompts are fixed vectors, no guidance."""

    def __init__(self):
        torch.manual_seed(0)
        self.unet, self.scheduler = (
            GaussianDenoiser().eval(),
            diffusers.DDIMScheduler(clip_sample=False),
        )
        self.words = {
            p: torch.randn(6, generator=torch.Generator().manual_seed(i))
            for i, p in enumerate(("", *WORDS))
        }
        self.components = {"unet": self.unet}

    def __call__(
        self,
        prompt,
        num_images_per_prompt,
        generator,
        output_type,
        num_inference_steps=5,
        guidance_scale=1,
    ):
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.stack([torch.randn(3, 2, 2, generator=g) for g in generator])
        for t in self.scheduler.timesteps:
            words = self.words[prompt].expand(len(x), -1)
            eps = self.unet(x, t, encoder_hidden_states=words)[0]
            x = self.scheduler.step(eps, t, x).prev_sample


def test_the_objective_is_the_denoiser_of_a_moved_mean():
    """ε̂ is affine in the mean, so ε(target) ± η·(ε(pos) − ε(neg)) is ε̂ of the mean m ± η·(m₊ −
    m₋).
    """
    pipe, eta = GaussianPipeline(), 1.7
    found = slider.draw_pool(pipe, ("", *WORDS), range(2))
    means = {p: pipe.unet.to_k(w).detach() for p, w in pipe.words.items()}
    moved = means[""] + eta * (means[WORDS[0]] - means[WORDS[1]])
    expected = pipe.unet.of_mean(found.x_t, found.timestep, moved.view(1, 3, 1, 1))
    torch.testing.assert_close(found.neutral + eta * found.delta, expected)
    assert len(found.x_t) == 3 * 2 * 5


@pytest.mark.slow
def test_training_reaches_the_closed_form():
    """The best LoRA moves the mean of the target by ±η·(m₊ − m₋), and nothing else is asked of
    it.
    """
    pipe = GaussianPipeline()
    before = pipe.unet.to_k.weight.clone()
    state = train_slider(pipe, "", *WORDS, rank=2, eta=1.7, steps=400, rate=3e-2)
    assert torch.equal(pipe.unet.to_k.weight, before)
    assert pipe.unet.to_k.weight.requires_grad
    down, up = state["unet.to_k.lora_A.weight"], state["unet.to_k.lora_B.weight"]
    moved = up @ down @ pipe.words[""]
    expected = 1.7 * pipe.unet.to_k(pipe.words[WORDS[0]] - pipe.words[WORDS[1]]).detach()
    torch.testing.assert_close(moved, expected, rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart", "flux", "aura"])
def test_a_slider_moves_what_it_was_trained_for(tiny, name, tmp_path):
    pipe, call = tiny.build(name), {**tiny.call_arguments(name), "num_inference_steps": 3}
    network = network_of(pipe)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = slider.draw_pool(pipe, ("a planet", *WORDS), range(1), **call)
    eta = float(
        0.2 * first.neutral.norm() / first.delta.norm()
    )  # random networks hardly hear the prompt
    steps = 120 if name == "aura" else 12
    state = train_slider(
        pipe, "a planet", *WORDS, rank=2, eta=eta, layers="all", steps=steps, rate=1e-2, call=call
    )
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    found = slider.draw_pool(pipe, ("a planet", *WORDS), range(50, 52), **call)
    load_slider(pipe, save_lora(tmp_path / "colour.safetensors", state, {}))
    for sign in (1, -1):
        with sliding(pipe, {"colour": sign}), torch.no_grad():
            moved = predict(network, found.given, found.x_t, found.timestep) - found.neutral
        cosine = torch.nn.functional.cosine_similarity(
            (sign * moved).flatten(), found.delta.flatten(), dim=0
        )
        assert cosine > (
            0.3 if name == "aura" else 0.5
        )  # by chance below 0.1, of so many directions


@pytest.mark.slow
def test_scale_zero_changes_no_bit_and_sliders_add(tiny, tmp_path):
    base, student = tiny.sd(0), tiny.sd(1, diffusers.LCMScheduler(original_inference_steps=4))
    for pipe, steps in ((base, 4), (student, 4)):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=1.0)
    both = xhat.hybrid(base, student)
    plain = [_picture(pipe) for pipe in (base, student, both)]
    path = save_lora(tmp_path / "s.safetensors", _random_lora(base), {})
    assert load_slider(both, path, "s") == "s"
    assert scales_of(base) == scales_of(student) == {"s": 0.0}
    for pipe, before in zip((base, student, both), plain, strict=True):
        assert _picture(pipe).tobytes() == before.tobytes()
        with sliding(pipe, {"s": 1.5}):
            assert scales_of(pipe) == {"s": 1.5}
            up = _picture(pipe)
            with sliding(pipe, {"s": 0}):
                assert _picture(pipe).tobytes() == before.tobytes()
            assert np.array_equal(_picture(pipe), up)
        assert _picture(pipe).tobytes() == before.tobytes()
        assert not np.array_equal(up, before)
    load_slider(base, path, "t", scale=0.75)
    set_scales(base, {"s": 0.75})
    with sliding(student, {"s": 1.5}):
        set_scales(student, {"s": 0})
    together = _picture(base)
    set_scales(base, {"t": 0, "s": 1.5})
    np.testing.assert_allclose(together, _picture(base), atol=1e-4)
    for name in ("s", "t"):
        remove(base, name)
    assert _picture(base).tobytes() == plain[0].tobytes()
    assert not [name for name, _ in base.unet.named_modules() if "lora" in name]


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    settings = {"rank": 1, "steps": 25, "rate": 1e-2}
    whole = train_slider(GaussianPipeline(), "", *WORDS, **settings)
    real = slider.predict

    def dying(*args):
        dying.calls += 1
        if dying.calls == 40:  # three of the pool, then two a step: in the nineteenth step
            raise KeyboardInterrupt
        return real(*args)

    dying.calls = 0
    monkeypatch.setattr(slider, "predict", dying)
    with pytest.raises(KeyboardInterrupt):
        train_slider(GaussianPipeline(), "", *WORDS, **settings, run=tmp_path)
    pipe = GaussianPipeline()
    monkeypatch.setattr(slider, "predict", real)
    again = train_slider(pipe, "", *WORDS, **settings, run=tmp_path)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    other = train_slider(pipe, "", *WORDS, **{**settings, "steps": 5}, run=tmp_path)
    assert not torch.equal(other["unet.to_k.lora_B.weight"], whole["unet.to_k.lora_B.weight"])


def test_a_student_is_heard_at_its_own_timesteps_and_without_guidance(tiny):
    pipe = tiny.sd(0, diffusers.LCMScheduler(original_inference_steps=4))
    xhat.set_defaults(pipe, num_inference_steps=4, guidance_scale=2.0)
    seen = states(pipe, ["a planet"], [3, 4], height=16, width=16)
    assert seen.timestep.tolist() == [999] * 2 + [749] * 2 + [499] * 2 + [249] * 2
    given = condition(pipe, "a planet", height=16, width=16)
    assert given["encoder_hidden_states"].shape[0] == 1
    ids = pipe.tokenizer(
        "a planet", padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    torch.testing.assert_close(
        given["encoder_hidden_states"], pipe.text_encoder(ids).last_hidden_state.detach()
    )


@pytest.mark.parametrize(
    "scheduler", ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]
)
def test_x0_of_what_the_network_is_given(tiny, scheduler):
    """The scheduler's own x̂₀ from its own latents, and ours from the network's scaled input, are
    one.
    """
    pipe = tiny.sd(0, getattr(diffusers, scheduler)())
    heard = []

    class Listener:
        def before(self, args, kwargs):
            heard.append(noise.pred_x0(pipe.scheduler, args[0], args[1], args[2]))

        def after(self, args, kwargs, result):
            pass

    with xhat.hooks.points.taps.listening(pipe.scheduler, "step", Listener()):
        seen = states(
            pipe, ["a planet"], [0], num_inference_steps=3, guidance_scale=1.0, height=16, width=16
        )
    given = condition(pipe, "a planet", height=16, width=16)
    with torch.no_grad():
        ours = seen_x0(pipe.scheduler, seen, predict(pipe.unet, given, seen.x_t, seen.timestep))
    torch.testing.assert_close(ours, torch.cat(heard), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_mistakes_are_told(tiny):
    pipe = tiny.sd(0)
    small = {"height": 16, "width": 16, "num_inference_steps": 2}
    with pytest.raises(
        ValueError,
        match="as many target as positive and negative prompts, one or more; got 1, 2, 1",
    ):
        train_slider(pipe, "a planet", ["a red planet", "b"], "a blue planet")
    with pytest.raises(ValueError, match="predicts the same for 'a red planet' and 'a red planet'"):
        train_slider(pipe, "a planet", "a red planet", "a red planet", call=small)
    with pytest.raises(ValueError, match="layers='cross'"):
        train_slider(pipe, "a planet", *WORDS, layers="cross", call=small)
    with pytest.raises(ValueError, match="rank=0"):
        train_slider(pipe, "a planet", *WORDS, rank=0, call=small)
    with pytest.raises(ValueError, match="no LoRA 'horns' is loaded; loaded: none"):
        set_scales(pipe, {"horns": 1})
    hybrid = xhat.hybrid(
        tiny.sd(0), tiny.sd(1), base_num_inference_steps=4, student_num_inference_steps=4
    )
    with pytest.raises(ValueError, match="a hybrid has several networks"):
        train_slider(hybrid, "a planet", *WORDS, call=small)
    pipe.unet.load_lora_adapter(_random_lora(pipe), prefix="unet", adapter_name="horns")
    with pytest.raises(ValueError, match="has adapters loaded \\(horns\\)"):
        train_slider(pipe, "a planet", *WORDS, call=small)
    with pytest.raises(ValueError, match="no LoRA 'horn' is loaded; did you mean 'horns'"):
        set_scales(pipe, {"horn": 1})


def _picture(pipe):
    generator = torch.Generator().manual_seed(0)
    return pipe(
        "a planet",
        generator=generator,
        output_type="np",
        height=16,
        width=16,
        **xhat.defaults(pipe),
    ).images


def _random_lora(pipe, rank=2, scale=0.3):
    """A LoRA on every attention projection, its weights those of half precision."""
    generator, state = torch.Generator().manual_seed(5), {}
    for name, layer in network_of(pipe).named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            state[f"unet.{name}.lora_A.weight"] = torch.randn(
                rank, layer.in_features, generator=generator
            ).half()
            state[f"unet.{name}.lora_B.weight"] = scale * torch.randn(
                layer.out_features, rank, generator=generator
            )
    return {key: value.half().float() for key, value in state.items()}
