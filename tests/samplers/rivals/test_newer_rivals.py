"""Methods that act on features, on sets and on noise: each does what its equation says."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import xhat
from xhat.samplers.composite.middle import middle_of
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.rivals.dispersal import FeatureDispersal, dispersal
from xhat.samplers.rivals.embedding import EmbeddingNoise
from xhat.samplers.rivals.entropy import EntropyGuidance, entropy_push
from xhat.samplers.rivals.feature_particles import FeatureParticles, feature_push
from xhat.samplers.rivals.group import GroupInference, most_distant
from xhat.samplers.rivals.particles import repulsion
from xhat.samplers.rivals.registry import rival
from xhat.samplers.rivals.spectrum import SpectralNoise, reshaped
from xhat.samplers.rivals.stride import ComponentNoise, principal_axes

SETS = ["feature_dispersal", "group_inference", "sparke", "particles_features"]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student_under(pair, tap, **options):
    models = {"base": pair.base, "student": pair.student}
    return compose(models, whole("student", pair.student, **options), [] if tap is None else [tap])


NEUTRAL = [
    FeatureDispersal(weight=0.0),
    ComponentNoise(scale=0.0),
    GroupInference(candidates=1),
    SpectralNoise(exponent=0.0),
    EntropyGuidance(weight=0.0),
    FeatureParticles(embed=lambda z: z, weight=0.0),
    EmbeddingNoise(scale=0.0),
]


@pytest.mark.parametrize("tap", NEUTRAL, ids=lambda tap: type(tap).__name__)
def test_a_neutral_tap_changes_not_a_bit(pairs, sample, tap):
    pair = pairs("sd")
    plain = sample(student_under(pair, None), "sd", seeds=range(2))
    assert torch.equal(sample(student_under(pair, tap), "sd", seeds=range(2)), plain)


@pytest.mark.parametrize("way", ["stride", "spectral_noise", "embedding_noise"])
def test_a_sample_does_not_depend_on_its_batch(pairs, sample, way):
    pipe = rival(way, pairs("sd"))
    both = sample(pipe, "sd", seeds=range(3))
    torch.testing.assert_close(sample(pipe, "sd", seeds=[1])[0], both[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", SETS)
def test_a_set_does_not_depend_on_other_prompts_and_one_sample_is_no_set(pairs, sample, way):
    pipe = rival(way, pairs("sd"))
    together = sample(pipe, "sd", seeds=range(2))
    apart = sample(pipe, "sd", seeds=range(2), prompts=["a red planet"])
    torch.testing.assert_close(together[:2], apart, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="changed nothing in this call"):
        sample(pipe, "sd", seeds=[0])


# features


class Middle(Tap):
    """Keeps what it is shown."""

    def __init__(self):
        self.shapes = []

    def features(self, run, h):
        self.shapes.append(tuple(h.shape))
        return h


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart"])
def test_features_are_those_of_the_conditional_branch_alone(pairs, sample, name):
    pair, tap = pairs(name), Middle()
    plan = Plan([Segment("base", 0, 2, 2, 3.0)])
    sample(compose({"base": pair.base}, plan, [tap]), name, seeds=range(2))
    assert [shape[0] for shape in tap.shapes] == [4, 4]  # two prompts × two seeds, not the halves
    network = getattr(pair.base, pair.slot)
    assert not middle_of(network)._forward_hooks  # nothing is left behind


def test_a_network_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="neither a middle block nor a stack"):
        middle_of(torch.nn.Linear(2, 2))


def test_dispersal_is_the_gradient_of_its_loss():
    h = normal(5, 3, 2).requires_grad_()
    flat = h.flatten(1)
    squared = (flat[:, None] - flat[None]).square().sum(-1)
    scaled = squared / (squared.detach().sum() / (5 * 4))
    loss = (-scaled / 0.7).exp().mean().log()
    (gradient,) = torch.autograd.grad(loss, h)
    push = dispersal(h.detach(), 0.7)
    cosine = torch.nn.functional.cosine_similarity(push.flatten(), -gradient.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1.0)
    assert torch.equal(dispersal(torch.ones(3, 4)), torch.zeros(3, 4))


def test_dispersal_moves_features_by_a_share_of_their_norm_and_apart():
    tap, h = FeatureDispersal(weight=0.25), normal(4, 6, 2, 2).float()
    moved = tap._dispersed(h)
    share = (moved - h).flatten(1).norm(dim=1) / h.flatten(1).norm(dim=1)
    torch.testing.assert_close(share, torch.full((4,), 0.25))
    assert torch.pdist(moved.flatten(1)).mean() > torch.pdist(h.flatten(1)).mean()


def test_components_are_those_of_the_covariance():
    tokens = normal(2, 50, 4) * torch.tensor([3.0, 1.0, 0.3, 0.1])
    axes = principal_axes(tokens, 4)
    covariance = torch.stack([torch.cov(sample.T) for sample in tokens])
    torch.testing.assert_close(axes.mT @ axes, covariance)
    assert (principal_axes(tokens[:, :2], 3)[:, 1:].abs() < 1e-12).all()  # two positions: one axis


@pytest.mark.parametrize("shape", [(3, 6, 4, 4), (3, 16, 6)], ids=["channels first", "tokens"])
def test_noise_stays_in_the_span_of_the_components(shape):
    class Run:
        position = 0

        def draw(self, like, stream):
            return normal(*like.shape, seed=1).to(like)

    h = normal(*shape).float()
    moved = ComponentNoise(components=2).features(Run(), h) - h
    moved = moved.flatten(2).mT if len(shape) == 4 else moved
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved))  # the same at all positions
    tokens = h.flatten(2).mT if len(shape) == 4 else h
    axes = principal_axes(tokens, 2)
    expected = torch.einsum("nk,nkc->nc", normal(3, 2, seed=1).float(), axes)
    torch.testing.assert_close(moved[:, 0], expected, rtol=1e-4, atol=1e-5)


# sets


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_set_with_exchanges_is_near_the_best_of_all(seed):
    x = normal(9, 3, seed=seed)
    apart = torch.cdist(x, x)

    def worth(rows):
        return sum(float(apart[a, b]) for a, b in itertools.combinations(rows, 2))

    best = max(worth(rows) for rows in itertools.combinations(range(9), 4))
    chosen = most_distant(x, 4)
    assert len(set(chosen)) == 4
    assert worth(chosen) >= 0.99 * best


def test_group_inference_draws_what_its_noises_would_alone(pairs, sample):
    """The noises that were chosen, put in by hand, give the same pictures."""
    pair = pairs("sd")
    pipe = student_under(pair, GroupInference(candidates=6), noise="own")
    plain = student_under(pair, None, noise="own")
    found = sample(pipe, "sd", seeds=range(2), prompts=["a red planet"])
    start = pipe.scheduler.run.start
    assert start.shape == found.shape
    again = sample(plain, "sd", seeds=range(2), prompts=["a red planet"], latents=start)
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["group_inference", "spectral_noise"])
def test_a_trace_has_the_noise_that_the_run_started_from(pairs, way):
    pipe = rival(way, pairs("sd"))
    traced = xhat.trace(pipe, ["a robot"], seeds=range(2), progress=False, height=16, width=16)
    start = pipe.scheduler.run.start
    first = torch.from_numpy(traced["latents"].isel(prompt=0, step=0).values)
    torch.testing.assert_close(first.float(), start.float(), rtol=2e-3, atol=2e-3)


def test_entropy_push_is_the_gradient_of_the_entropy():
    x = normal(4, 3).requires_grad_()
    h = 1.3
    squared = (x[:, None] - x[None]).square().sum(-1)
    kernel = (-squared / (2 * h**2)).exp()
    (gradient,) = torch.autograd.grad((16 / kernel.square().sum()).log(), x)
    torch.testing.assert_close(entropy_push(x.detach(), h), h**2 * gradient)


def test_entropy_grows_along_its_push():
    x = normal(6, 8)
    kernels = [(-torch.cdist(y, y).square() / 8).exp() for y in (x, x + 0.1 * entropy_push(x, 2.0))]
    assert kernels[1].square().sum() < kernels[0].square().sum()


def test_particles_of_features_push_along_the_gradient_of_their_kernel():
    """By autograd through the features, with the bandwidths held fixed; of linear ones, Jᵀ·r."""
    matrix = normal(6, 3, seed=3)
    x = normal(4, 2, 3)
    push = feature_push(x, lambda z: z.flatten(1) @ matrix)
    expected = repulsion(x.flatten(1) @ matrix) @ matrix.T
    torch.testing.assert_close(push, expected.reshape(x.shape))
    tap = FeatureParticles(embed=lambda z: z.flatten(1), weight=0.2)
    moved = tap._push(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert 0 < float(moved.min()) <= float(moved.max()) < 0.6


# noise


@pytest.mark.parametrize("exponent", [-0.5, 0.3, 1.0])
def test_reshaped_noise_has_its_spectrum_and_unit_variance(exponent):
    x = normal(400, 1, 16, 16)
    y = reshaped(x, exponent)
    assert float(y.square().mean()) == pytest.approx(1.0, abs=0.1)
    power = torch.fft.fft2(y).abs().square().mean((0, 1))
    ratio = math.log(float(power[0, 8] / power[0, 2])) / math.log(4)
    assert ratio == pytest.approx(-2 * exponent, abs=0.1)
    torch.testing.assert_close(reshaped(x, 0.0), x, rtol=1e-5, atol=1e-5)


def test_packed_latents_have_no_spectrum():
    with pytest.raises(ValueError, match="no rows and columns"):
        reshaped(torch.zeros(2, 16, 64), 0.2)


def test_each_sample_has_one_prompt_throughout(pairs, sample):
    """The noise on the embeddings is the same at every step, and another for every sample."""
    pair, seen = pairs("sd"), []
    pipe = student_under(pair, EmbeddingNoise(scale=0.3))
    hook = pair.student.unet.register_forward_pre_hook(
        lambda m, a, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    sample(pipe, "sd", seeds=range(2), prompts=["a red planet"])
    hook.remove()
    assert len(seen) == 4
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    assert not torch.equal(seen[0][0], seen[0][1])
    clean = pair.base.encode_prompt(["a red planet"], "cpu", 1, False)[0][0]
    noise = (seen[0] - clean).std()
    assert (noise / clean.std()).item() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureDispersal(temperature=0.0),
        lambda: ComponentNoise(components=0),
        lambda: GroupInference(candidates=0),
    ],
)
def test_settings_without_meaning_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
