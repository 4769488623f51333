"""What a hybrid refuses, and what the knobs of a segment do to the state it hands over."""

import diffusers
import pytest
import torch

import xhat
from xhat.hooks.noise.levels import scales
from xhat.samplers.composite.run import Run, shared_noise
from xhat.samplers.plans.plan import Plan, Segment


def lcm():
    return diffusers.LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        original_inference_steps=4,
    )


@pytest.fixture(scope="module")
def sd_pair(tiny):
    base, student = tiny.sd(0), tiny.sd(1, lcm())
    student.register_modules(text_encoder=base.text_encoder, vae=base.vae)
    return base, student


@pytest.mark.parametrize("steps", [0, -1, 4, 5, 1.0, True])
def test_a_model_without_steps_is_refused(sd_pair, steps):
    with pytest.raises(ValueError, match="base_steps"):
        xhat.hybrid(*sd_pair, base_steps=steps)


@pytest.mark.parametrize("steps", [-2, 0, 1])
def test_a_student_without_steps_is_refused(sd_pair, steps):
    with pytest.raises(ValueError, match=f"student of {steps} steps"):
        xhat.hybrid(*sd_pair, student_num_inference_steps=steps)


def test_a_base_without_steps_is_refused(sd_pair):
    with pytest.raises(ValueError, match="base_num_inference_steps=0: the base would run no step"):
        xhat.hybrid(*sd_pair, base_num_inference_steps=0)


@pytest.mark.parametrize("wrong", [{"plan": ["base"]}, {"policy": object()}])
def test_what_is_no_plan_is_refused(sd_pair, wrong):
    with pytest.raises(ValueError, match="expected an xhat.Plan"):
        xhat.hybrid(*sd_pair, **wrong)


def test_a_base_schedule_wholly_below_the_hand_over_is_refused(tiny, sd_pair):
    base = tiny.sd(0, tiny.ddim(timestep_spacing="leading"))
    base.register_modules(text_encoder=sd_pair[0].text_encoder, vae=sd_pair[0].vae)
    with pytest.raises(ValueError, match="the base would run no step.*base_num_inference_steps"):
        xhat.hybrid(
            base, sd_pair[1], base_num_inference_steps=2
        )  # 501 and 1; the student takes over at 749


def test_noise_that_rises_is_refused(sd_pair):
    with pytest.raises(ValueError, match="noise must fall"):
        xhat.hybrid(*sd_pair, plan=Plan([Segment("base", 0, 3, 4), Segment("student", 1, 4, 4)]))


def test_a_plan_and_a_policy_are_one_too_many(sd_pair):
    plan = Plan([Segment("student", 0, 4, 4)])
    with pytest.raises(ValueError, match="one of them"):
        xhat.hybrid(*sd_pair, plan=plan, policy=type("Policy", (), {"plan": plan}))


def test_the_plan_of_a_policy_is_run(sd_pair):
    plan = Plan([Segment("base", 0, 2, 4), Segment("student", 2, 4, 4)])
    assert xhat.hybrid(*sd_pair, policy=type("Policy", (), {"plan": plan})).scheduler.plan == plan


def test_an_unknown_model_is_named_with_the_nearest(sd_pair):
    with pytest.raises(ValueError, match="'studnt'; did you mean 'student'"):
        xhat.hybrid(*sd_pair, plan=Plan([Segment("studnt", 0, 4, 4)]))


@pytest.mark.parametrize(
    ("name", "said"), [("sdxl", "added conditioning"), ("sd3", "denoiser"), ("pixart", "denoiser")]
)
def test_pipelines_of_other_families_do_not_fit(tiny, sd_pair, name, said):
    with pytest.raises(ValueError, match=f"do not fit together.*{said}"):
        xhat.hybrid(sd_pair[0], tiny.build(name))


def test_another_width_of_the_prompt_embeddings_does_not_fit(tiny, sd_pair):
    """Whichever of the fields that say it differs."""
    student = tiny.sd(1, lcm())
    student.unet.register_to_config(cross_attention_dim=32)
    with pytest.raises(ValueError, match="width of the prompt embeddings: 16, 32"):
        xhat.hybrid(sd_pair[0], student)


def test_another_length_of_the_prompt_does_not_fit(tiny, sd_pair):
    student = tiny.sd(1, lcm())
    student.tokenizer = tiny.tokenizer(8)
    with pytest.raises(ValueError, match="length of tokenizer: 16, 8"):
        xhat.hybrid(sd_pair[0], student)


def test_another_vae_scale_does_not_fit(tiny, sd_pair):
    student = tiny.sd(1, lcm())
    student.vae.register_to_config(scaling_factor=0.13025)
    with pytest.raises(ValueError, match="scaling factor"):
        xhat.hybrid(sd_pair[0], student)


@pytest.mark.slow
def test_a_hybrid_is_no_base(sd_pair):
    with pytest.raises(ValueError, match="hybrid itself"):
        xhat.hybrid(xhat.hybrid(*sd_pair), sd_pair[1])


class Handed:
    """The states and estimates of a run, seen by the scheduler's step."""

    def __init__(self, tiny, pipe, prompts):
        self.steps = []
        inner = pipe.scheduler.step

        def step(output, t, x, **kwargs):
            result = inner(output, t, x, **kwargs)
            self.steps.append((output, x, result[0]))
            return result

        pipe.scheduler.step = step
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        pipe(prompts, generator=generators, output_type="latent", height=16, width=16)

    def split(self, entry, index):
        """x̂₀ and the handed-over state of one VP step of an ε-prediction."""
        output, x_t, after = self.steps[index]
        a, b = scales(entry.scheduler, entry.level)
        return (x_t - b * output) / a, output, after


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["own", "shared", "fresh"])
@pytest.mark.parametrize("x0", [None, "zero", "mean", "shuffle"])
def test_what_is_handed_over(tiny, sd_pair, noise, x0):
    """x' = √ᾱ'·x̂₀ + √(1−ᾱ')·ε, with ε or x̂₀ replaced, and nothing else."""
    plan = Plan([Segment("base", 0, 1, 4, noise=noise, x0=x0), Segment("student", 1, 4, 4)])
    hybrid = xhat.hybrid(*sd_pair, plan=plan)
    seen = Handed(tiny, hybrid, ["a planet", "a planet", "a robot", "a robot"])
    entry = hybrid.scheduler.run.entries[0]
    own, eps, after = seen.split(entry, 0)
    pairs = own.reshape(2, 2, *own.shape[1:])
    expected = {
        None: own,
        "zero": torch.zeros_like(own),
        "mean": pairs.mean(1, keepdim=True).expand_as(pairs).reshape(own.shape),
        "shuffle": pairs.flip(1).reshape(own.shape),
    }[x0]
    a, b = scales(entry.scheduler, entry.target)
    found = (after - a * expected) / b
    if noise == "own":
        torch.testing.assert_close(found, eps, rtol=1e-3, atol=1e-3)
    elif noise == "shared":
        torch.testing.assert_close(found, shared_noise(own), rtol=1e-3, atol=1e-3)
    else:
        assert abs(found.std() - 1) < 0.1
        assert (found - eps).abs().mean() > 0.5
        assert not torch.allclose(found[0], found[1])


def test_every_sample_draws_noise_of_its_own_whatever_its_batch():
    """Twelve samples, twelve noises; a half of the batch draws what it drew in the whole."""
    x_T = torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    )
    whole, half = Run([]), Run([])
    whole.begin(x_T)
    half.begin(x_T[6:])
    noise = whole.draw(x_T, "fresh")
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(12)
    assert correlation.abs().max() < 5 / 256**0.5
    assert torch.equal(half.draw(x_T[6:], "fresh"), noise[6:])
    assert not torch.equal(whole.draw(x_T, "another"), noise)
    whole.position = 1
    assert not torch.equal(whole.draw(x_T, "fresh"), noise)


@pytest.mark.parametrize("x0", ["mean", "shuffle"])
def test_a_lone_sample_has_no_mean_or_shuffle(tiny, sd_pair, x0):
    plan = Plan([Segment("base", 0, 1, 4, x0=x0), Segment("student", 1, 4, 4)])
    with pytest.raises(ValueError, match="two or more samples"):
        Handed(tiny, xhat.hybrid(*sd_pair, plan=plan), ["a planet"])


@pytest.mark.parametrize(("strength", "alone"), [(0.0, 0), (1.0, 1)])
def test_the_dial_ends_at_base_and_student(tiny, sd_pair, strength, alone):
    hybrid = xhat.hybrid(*sd_pair, plan=Plan([Segment("student", 0, 4, 4, strength=strength)]))
    networks = [pipe.unet for pipe in sd_pair]
    x, t, c = torch.ones(1, 4, 8, 8), 500, torch.ones(1, 16, 16)
    hybrid.scheduler.set_timesteps()
    with torch.no_grad():
        found = hybrid.unet(x, t, c, return_dict=False)[0]
        assert torch.equal(found, networks[alone](x, t, c, return_dict=False)[0])
        assert not torch.equal(found, networks[1 - alone](x, t, c, return_dict=False)[0])


def test_the_dial_between_is_linear_in_the_weights(sd_pair):
    hybrid = xhat.hybrid(*sd_pair, plan=Plan([Segment("student", 0, 4, 4, strength=0.25)]))
    between = hybrid.unet.front()
    for ours, base, student in zip(
        between.parameters(), *(p.unet.parameters() for p in sd_pair), strict=True
    ):
        torch.testing.assert_close(ours, base + 0.25 * (student - base))
