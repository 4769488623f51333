"""Feature spaces by name: what each measures, that weights come from folders and the cache alone,
and their hashes.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import xhat
from xhat.analysis.measures.diversity import vendi
from xhat.analysis.traces.diversity import diversity_by_noise, final_diversity
from xhat.probes import encoders
from xhat.probes.encoders import Encoder, load_encoder, lpips_embedding, resized, weights_hash
from xhat.probes.features import SPACES, FeatureSpace, feature_space, middle_point
from xhat.probes.renoise import nearest_step, renoise


def latents(n=3, channels=4, side=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, channels, side, side)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small CLIP and DINOv2 of random weights, saved as their libraries save them."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    size = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    clip = transformers.CLIPVisionConfig(**size, intermediate_size=32, projection_dim=12)
    transformers.CLIPVisionModelWithProjection(clip).save_pretrained(root / "clip")
    siglip = transformers.SiglipVisionConfig(**size, intermediate_size=32)
    transformers.SiglipVisionModel(siglip).save_pretrained(root / "siglip")
    three = transformers.DINOv3ViTConfig(**size, intermediate_size=32, num_register_tokens=2)
    transformers.DINOv3ViTModel(three).save_pretrained(root / "dinov3")
    dino = transformers.Dinov2Config(**size, mlp_ratio=2)
    transformers.Dinov2Model(dino).save_pretrained(root / "dinov2")
    return root


def test_names_and_mistakes(tiny):
    with pytest.raises(ValueError, match=r"did you mean 'dinov\d'"):
        feature_space("dino")
    with pytest.raises(ValueError, match="needs the pipeline"):
        feature_space("pixel")
    pipe = tiny.sd()
    for name in ("latent", "pixel", "denoiser"):
        assert isinstance(feature_space(name, pipe), FeatureSpace)
        assert name in SPACES


def test_latents_have_unit_size_each():
    x = latents() * np.array([1, 10, 0.1]).reshape(3, 1, 1, 1)
    features = feature_space("latent").features(x)
    np.testing.assert_allclose((features**2).mean(1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        features[1], feature_space("latent").features(x[1:2] * 7)[0], rtol=1e-5
    )


def test_pixels_are_the_pictures_averaged(tiny):
    pipe = tiny.sd()
    space = feature_space("pixel", pipe, side=4)
    expected = space.images(latents()).reshape(3, 3, 4, 4, 4, 4).mean((3, 5)) * 2 - 1
    np.testing.assert_allclose(space.features(latents()), expected.reshape(3, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "width"), [("clip", 12), ("siglip", 16), ("dinov2", 16), ("dinov3", 16)]
)
def test_encoders_of_transformers_load_from_a_folder(name, width, folders, tiny):
    space = feature_space(f"{name}:{folders / name}", tiny.sd())
    features = space.features(latents())
    assert features.shape == (3, width)
    assert np.isfinite(features).all()
    assert space.attrs["encoder"] == str(folders / name)
    assert len(space.attrs["weights"]) == 64
    images = torch.from_numpy(space.images(latents()))
    kind = {
        "clip": transformers.CLIPVisionModelWithProjection,
        "siglip": transformers.SiglipVisionModel,
        "dinov2": transformers.Dinov2Model,
        "dinov3": transformers.DINOv3ViTModel,
    }[name]
    model = kind.from_pretrained(folders / name).eval()
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (_mean(name), _std(name)))
    given = torch.from_numpy((images.numpy() - mean) / std).float()
    with torch.no_grad():
        out = model(pixel_values=given)
    expected = {
        "clip": lambda: out.image_embeds,
        "siglip": lambda: out.pooler_output,
        "dinov2": lambda: out.last_hidden_state[:, 0],
        "dinov3": lambda: out.last_hidden_state[:, 0],
    }[name]()
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def _mean(name):
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, OPENAI_CLIP_MEAN

    return {"clip": OPENAI_CLIP_MEAN, "siglip": [0.5] * 3}.get(name, IMAGENET_DEFAULT_MEAN)


def _std(name):
    from transformers.image_utils import IMAGENET_DEFAULT_STD, OPENAI_CLIP_STD

    return {"clip": OPENAI_CLIP_STD, "siglip": [0.5] * 3}.get(name, IMAGENET_DEFAULT_STD)


@pytest.mark.parametrize(
    "name", ["clip", "siglip", "dinov2", "dinov3", "dreamsim", "lpips", "inception"]
)
def test_weights_that_are_not_there_are_named(name, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(encoders, "HUB", {n: f"nobody/{n}" for n in encoders.HUB})
    there = SimpleNamespace(FeatureExtractorInceptionV3=None, URL_INCEPTION_V3="https://x/y.pth")
    monkeypatch.setattr(encoders, "import_module", lambda name: there)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(encoders.MissingWeights, match=f"feature space '{name}' needs") as error:
        feature_space(name, tiny.sd())
    assert "\n" not in str(error.value)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(encoders, "import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'xhat\[features\]'"):
        load_encoder("lpips")


class SmallLPIPS(nn.Module):
    """The published formula on two small layers, with the attributes that the package's model
    has.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3, stride=2)
        self.lins = [
            SimpleNamespace(model=nn.Sequential(nn.Dropout(), nn.Conv2d(c, 1, 1, bias=False)))
            for c in (5, 4)
        ]
        for layer in self.lins:
            layer.model[-1].weight.data.abs_()

    def scaling_layer(self, x):
        return (x - 0.1) / 0.45

    def net(self, x):
        a = self.first(x).relu()
        return [a, self.second(a).relu()]

    def distance(self, a, b):
        """Zhang et al. 2018, eq. 1, place by place."""
        total = 0.0
        for x, y, layer in zip(
            *(self.net(self.scaling_layer(i * 2 - 1)) for i in (a, b)), self.lins, strict=True
        ):
            x, y = (z / (z.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
            total = total + nn.functional.conv2d((x - y) ** 2, layer.model[-1].weight).mean(
                (1, 2, 3)
            )
        return total


def test_distance_between_embeddings_is_lpips():
    model, images = SmallLPIPS(), torch.rand(4, 3, 12, 12)
    with torch.no_grad():
        rows = lpips_embedding(model)(images)
        expected = torch.stack([model.distance(images, images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(torch.cdist(rows, rows).square(), expected, atol=1e-5)


def test_the_middle_square_is_cut_out():
    picture = torch.zeros(1, 3, 8, 16)
    picture[..., 4:12] = 1
    assert resized(picture, 8).min() == 1
    assert resized(torch.rand(2, 3, 5, 9), 16).shape == (2, 3, 16, 16)


def test_a_hash_is_of_the_weights():
    torch.manual_seed(0)
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    assert weights_hash(one) != weights_hash(two)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two)


# the denoiser as a space


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart"])
def test_denoiser_features_depend_on_the_sample_alone(name, tiny):
    pipe = tiny.build(name)
    channels = 16 if name == "sd3" else 4
    xhat.set_defaults(pipe, num_inference_steps=6, guidance_scale=1.0)
    space = feature_space("denoiser", pipe, batch_size=2, **_small(tiny, name))
    x = latents(3, channels)
    features = space.features(x)
    assert features.ndim == 2
    assert len(features) == 3
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[:2], space.features(x[:2]), atol=1e-5)
    assert not np.allclose(features[0], features[1])
    assert (
        middle_point(pipe.unet if hasattr(pipe, "unet") else pipe.transformer)
        in space.attrs["space"]
    )


def _small(tiny, name):
    return {k: v for k, v in tiny.call_arguments(name).items() if k not in ("height", "width")}


@pytest.mark.slow
def test_a_denoiser_sees_the_noise_level_that_is_said():
    pipe = xhat.load_pair("demo").base
    clean = pipe(
        "a planet", generator=torch.Generator().manual_seed(1), output_type="latent"
    ).images.numpy()
    near, far = (renoise(pipe, clean, sigma, prompts="a planet") for sigma in (0.1, 3.0))
    assert near.level.sigma < 0.3
    assert far.level.sigma > 1.5
    a = near.level.alpha_bar
    noise = (near.x_t - a**0.5 * clean) / (1 - a) ** 0.5
    assert abs(noise.std() - 1) < 0.1
    errors = [np.abs(r.pred_x0 - clean).mean() for r in (near, far)]
    assert errors[0] < 0.3 * np.abs(clean).mean()
    assert errors[0] < errors[1]


def test_x0_of_a_renoised_sample_is_the_schedulers_own(tiny):
    """By hand: one evaluation of the network at the timestep, and ε-prediction solved for x̂₀."""
    pipe = tiny.sd()
    xhat.set_defaults(pipe, num_inference_steps=5, guidance_scale=1.0)
    found = renoise(pipe, latents(1), 1.0, prompts="a red planet")
    embeds = pipe.encode_prompt("a red planet", "cpu", 1, False)[0]
    with torch.no_grad():
        eps = pipe.unet(torch.from_numpy(found.x_t), found.level.timestep, embeds).sample.numpy()
    a = found.level.alpha_bar
    np.testing.assert_allclose(
        found.pred_x0, (found.x_t - (1 - a) ** 0.5 * eps) / a**0.5, atol=1e-4
    )


def test_the_noise_is_not_that_which_the_latents_were_made_of(tiny):
    pipe = tiny.sd()
    xhat.set_defaults(pipe, num_inference_steps=5, guidance_scale=1.0)
    found = renoise(pipe, np.zeros((3, 4, 8, 8), np.float32), 1.0)
    for i in range(3):
        x_T = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(i)).numpy()[0]
        assert abs(np.corrcoef(found.x_t[i].ravel(), x_T.ravel())[0, 1]) < 0.3


def test_the_nearest_level_is_by_ratio():
    levels = SimpleNamespace(sigma=np.array([np.inf, 10.0, 1.0, 0.1, 0.0]))
    assert [nearest_step(levels, s) for s in (100, 4, 2, 0.2, 1e-9)] == [1, 1, 2, 3, 3]


# in the measures of diversity


@pytest.mark.slow
def test_measures_take_a_space_by_name():
    pair = xhat.load_pair("demo")
    call = {"num_inference_steps": 2, "guidance_scale": 1.0}
    traced = xhat.trace(pair.student, ["a planet"], seeds=range(4), progress=False, **call)
    by_name = final_diversity(traced, features="judge", pipe=pair.base)
    assert "attribute_entropy" in by_name
    assert by_name.attrs["features"] == "judge"
    assert len(by_name.attrs["weights"]) == 64
    x = feature_space("pixel", pair.base).features(traced["final"].values[0])
    pixels = final_diversity(traced, features="pixel", pipe=pair.base)
    assert float(pixels["vendi_q2_plugin"][0]) == pytest.approx(vendi(x, q=2), rel=1e-6)
    named, plain = (
        diversity_by_noise(traced, features=f)["vendi_q2"].values for f in ("latent", None)
    )
    np.testing.assert_allclose(named, plain, rtol=1e-5)


def test_an_encoder_is_called_in_batches():
    seen = []

    def embed(images):
        seen.append(len(images))
        return images.flatten(1)

    assert Encoder("x", embed, {})(np.zeros((5, 3, 2, 2)), batch_size=2).shape == (5, 12)
    assert seen == [2, 2, 1]
