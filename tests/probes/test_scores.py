"""Scores of alignment and quality: the published formulas on small models of the real classes, and
what is said where weights are missing.
"""

import numpy as np
import pytest
import torch
import transformers
import xarray as xr

from xhat.analysis.measures.registry import MEASURES
from xhat.analysis.sampling.arms import measure_finals
from xhat.probes import scores
from xhat.probes.encoders import MissingWeights
from xhat.probes.features import FeatureSpace, feature_space
from xhat.probes.scores import SCORES, ScoredSpace, load_score, scores_here, with_scores

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny):
    """A small CLIP and a small SigLIP of random weights with a tokenizer, saved as published."""
    root = tmp_path_factory.mktemp("scores")
    words = tiny.tokenizer(8)
    text = {**SIZE, "vocab_size": len(words), "max_position_embeddings": 8}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    picture = {**SIZE, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    clip = transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=12)
    siglip = transformers.SiglipConfig(text_config=text, vision_config=picture)
    for name, model in (
        ("clip", transformers.CLIPModel(clip)),
        ("siglip", transformers.SiglipModel(siglip)),
    ):
        model.save_pretrained(root / name)
        words.save_pretrained(root / name)
    return root


@pytest.fixture
def named(folders):
    kinds = {"clip_score": "clip", "siglip_score": "siglip", "pickscore": "clip"}
    return {name: f"{name}:{folders / kind}" for name, kind in kinds.items()}


def pictures(n=3, side=16, seed=0):
    return np.random.default_rng(seed).random((n, 3, side, side), dtype=np.float32)


def test_the_clip_score_is_a_hundred_times_the_cosine(folders, named):
    model = transformers.CLIPModel.from_pretrained(folders / "clip").eval()
    words = transformers.AutoTokenizer.from_pretrained(folders / "clip")
    mean, std = ([[[v]] for v in values] for values in scores.NORM["clip"])
    with torch.no_grad():
        seen = model.visual_projection(
            model.vision_model(torch.tensor((pictures() - mean) / std).float()).pooler_output
        )
        read = model.text_projection(
            model.text_model(**words("a red planet", return_tensors="pt")).pooler_output
        )
    cosine = torch.nn.functional.cosine_similarity(seen, read)
    found = load_score(named["clip_score"])(pictures(), "a red planet", batch_size=2)
    np.testing.assert_allclose(found, 100 * cosine, atol=1e-4)
    picked = load_score(named["pickscore"])(pictures(), "a red planet")
    np.testing.assert_allclose(picked, model.logit_scale.exp().item() * cosine, atol=1e-4)


def test_siglip_reads_the_prompt_in_lower_case_at_full_length(folders, named):
    score = load_score(named["siglip_score"])
    np.testing.assert_array_equal(
        score(pictures(), "a red planet"), score(pictures(), "A Red Planet")
    )
    model = transformers.SiglipModel.from_pretrained(folders / "siglip").eval()
    words = transformers.AutoTokenizer.from_pretrained(folders / "siglip")
    given = words("a red planet", padding="max_length", max_length=8, return_tensors="pt")
    assert given["input_ids"].shape == (1, 8)
    with torch.no_grad():
        out = model(given["input_ids"], torch.tensor(pictures() * 2 - 1))
    expected = 100 * (out.image_embeds @ out.text_embeds.T)[:, 0]
    np.testing.assert_allclose(score(pictures(), "a red planet"), expected, atol=1e-4)


def test_every_score_is_a_measure_that_tables_print(named):
    for name in SCORES:
        assert MEASURES[name].headline
        assert MEASURES[name].says in ("alignment", "quality")
        assert len(load_score(named[name]).attrs["weights"]) == 64


def test_missing_weights_come_with_the_command_and_the_licence(monkeypatch):
    places = {name: (f"nobody/{name}", "MIT") for name in SCORES}
    monkeypatch.setattr(scores, "_PLACES", places)
    with pytest.raises(MissingWeights, match=r"`hf download nobody/pickscore` \(MIT\)"):
        load_score("pickscore")
    there, missing = scores_here()
    assert there == []
    assert len(missing) == len(SCORES)
    with pytest.raises(ValueError, match="did you mean 'clip_score'"):
        load_score("clipscore")


def test_scores_stand_beside_diversity_for_every_arm(tiny, named):
    pipe = tiny.sd()
    space = with_scores(feature_space("pixel", pipe), pipe.vae, list(named.values()))
    assert isinstance(space, FeatureSpace)
    rng = np.random.default_rng(0)
    coords = {"prompt": ["a red planet", "a cat"], "seed": range(4)}
    dims = ("prompt", "seed", "channel", "y", "x")
    finals = {
        arm: xr.DataArray(rng.normal(size=(2, 4, 4, 8, 8)), coords, dims)
        for arm in ("base", "student")
    }
    measured = measure_finals(finals, space)
    for name in SCORES:
        one = load_score(named[name])
        expected = one(space.images(finals["student"].values[1].astype(np.float32)), "a cat")
        found = measured[f"{name}_by_seed"].sel(arm="student", prompt="a cat")
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert len(measured.attrs[f"{name} weights"]) == 64


def test_a_space_keeps_what_else_it_reads(tiny, named):
    class Reader:
        name, attrs = "reader", {"space": "reader"}

        def features(self, latents):
            return latents.reshape(len(latents), -1)

        def fidelity(self, latents, prompt):
            return np.ones(len(latents))

    space = ScoredSpace(Reader(), tiny.sd().vae, [load_score(named["clip_score"])])
    assert space.fidelity(np.zeros((2, 4, 8, 8)), "a cat").tolist() == [1, 1]
    assert not hasattr(space, "labels")


def test_the_familys_judge_needs_no_score_unless_it_is_asked_for(named):
    judge = type("Judge", (), {"name": "judge", "attrs": {}, "images": staticmethod(lambda x: x)})()
    assert with_scores(judge, None) is judge
    assert isinstance(with_scores(judge, None, [named["clip_score"]]), ScoredSpace)
