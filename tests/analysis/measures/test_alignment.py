"""Weights of LoRAs against the full product; a null of their size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orth, subspace_angles

from xhat.analysis.measures.alignment import lora_cosine, principal_angles
from xhat.analysis.measures.lora_factors import lora_of, random_like, tensors_of
from xhat.hooks.factors import Factors
from xhat.zoo.lora.loading import load_slider
from xhat.zoo.lora.slider import save_lora


def gaussian(seed: int, rank: int = 3, kernel: tuple[int, ...] | None = None) -> dict[str, Factors]:
    """A LoRA of two layers, 20 × 12 and 16 × 18."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"one": (20, 12), "two": (16, 18)}
    return {
        name: Factors(
            torch.randn(out, rank, generator=g, dtype=torch.float64),
            torch.randn(rank, inside, generator=g, dtype=torch.float64),
            (2, 3, 3) if name == "two" else None,
        )
        for name, (out, inside) in shapes.items()
    }


def full(f: Factors) -> np.ndarray:
    return (f.up @ f.down).numpy()


def test_cosine_is_that_of_the_full_product():
    a, b = gaussian(0), gaussian(1, rank=2)
    found = lora_cosine(a, b)
    for name in a:
        x, y = full(a[name]).ravel(), full(b[name]).ravel()
        assert float(found["cosine"].sel(layer=name)) == pytest.approx(
            x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        )
        assert float(found["norm_a"].sel(layer=name)) == pytest.approx(np.linalg.norm(x))
    x, y = (np.concatenate([full(lora[n]).ravel() for n in a]) for lora in (a, b))
    assert float(found["total"]) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_angles_are_those_of_the_full_product():
    a, b = gaussian(0), gaussian(1)
    mixed = {n: Factors(a[n].up + 0.2 * b[n].up, a[n].down + 0.2 * b[n].down) for n in a}
    found = principal_angles(a, mixed)
    for name in a:
        left = np.sort(subspace_angles(orth(full(a[name])), orth(full(mixed[name]))))
        right = np.sort(subspace_angles(orth(full(a[name]).T), orth(full(mixed[name]).T)))
        np.testing.assert_allclose(found["left"].sel(layer=name), left, atol=1e-7)
        np.testing.assert_allclose(found["right"].sel(layer=name), right, atol=1e-7)
        assert float(found["left_overlap"].sel(layer=name)) == pytest.approx(
            (np.cos(left) ** 2).mean()
        )


def test_a_lora_is_aligned_with_itself_however_it_is_factored():
    a = gaussian(0)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    same = {n: Factors(2 * f.up @ turn, turn.T @ f.down) for n, f in a.items()}
    np.testing.assert_allclose(lora_cosine(a, same)["cosine"], 1)
    for side in ("left", "right"):
        np.testing.assert_allclose(principal_angles(a, same)[side], 0, atol=1e-7)
    opposite = {n: Factors(-f.up, f.down) for n, f in a.items()}
    assert float(lora_cosine(a, opposite)["total"]) == pytest.approx(-1)
    np.testing.assert_allclose(principal_angles(a, opposite)["left"], 0, atol=1e-7)


def test_rank_lost_in_the_product_does_not_count_as_a_direction():
    a, b = gaussian(0), gaussian(1)
    poor = {n: Factors(f.up, torch.cat([f.down[:2], f.down[1:2]])) for n, f in b.items()}
    angles = principal_angles(a, poor)["left"].sel(layer="one").values
    assert np.isfinite(angles[:2]).all()
    assert np.isnan(angles[2])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 4])
def test_random_loras_meet_their_baselines(rank):
    cosines, overlaps = [], []
    for seed in range(500):
        a, b = gaussian(2 * seed, rank), gaussian(2 * seed + 1, rank)
        cosine, angles = lora_cosine(a, b), principal_angles(a, b)
        cosines.append(cosine["cosine"].values)
        overlaps.append([angles["left_overlap"].values, angles["right_overlap"].values])
    expected = np.array([[rank / 20, rank / 16], [rank / 12, rank / 18]])
    np.testing.assert_allclose(np.mean(overlaps, 0), expected, rtol=0.2)
    np.testing.assert_allclose([angles["left_random"], angles["right_random"]], expected)
    np.testing.assert_allclose(np.std(cosines, 0), cosine["random"], rtol=0.2)


def test_ranks_that_differ_are_compared_and_shapes_that_differ_are_not():
    a, b = gaussian(0, 4), gaussian(1, 2)
    angles = principal_angles(a, b)
    assert angles["left"].shape == (2, 2)
    np.testing.assert_allclose(angles["left_random"], [4 / 20, 4 / 16])
    with pytest.raises(ValueError, match=r"one is \(20, 12\) in one LoRA and \(16, 18\)"):
        lora_cosine(a, {"one": a["two"]})
    with pytest.raises(ValueError, match="share no layer"):
        lora_cosine(a, {"three": a["two"]})


def test_a_zero_layer_has_no_direction():
    a = gaussian(0)
    zero = {n: Factors(0 * f.up, f.down) for n, f in a.items()}
    assert np.isnan(lora_cosine(a, zero)["total"])
    assert np.isnan(principal_angles(a, zero)["left"]).all()


def test_random_like_has_norms_and_ranks_of_the_other():
    a = gaussian(0)
    other = random_like(a, 3)
    for name in a:
        assert other[name].norm() == pytest.approx(np.linalg.norm(full(a[name])))
        assert other[name].rank == 3
        assert other[name].kernel == a[name].kernel
    assert float(lora_cosine(a, other)["total"]) == pytest.approx(0, abs=0.2)


@pytest.fixture(scope="module")
def adapted(tiny):
    """A small pipeline with an adapter of rank 2, alpha 6, on linear layers and convolutions."""
    from peft import LoraConfig

    pipe = tiny.sd()
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, lora_alpha=6, target_modules=["to_q", "conv1"], init_lora_weights=False
    )
    pipe.unet.add_adapter(config, "s")
    return pipe


def test_factors_of_an_adapter_are_what_it_adds_to_the_weights(adapted):
    lora = lora_of(adapted)
    module = adapted.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    delta = module.get_delta_weight("s").detach().double().numpy()
    np.testing.assert_allclose(
        full(lora["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"]), delta, atol=1e-6
    )
    conv = adapted.unet.mid_block.resnets[0].conv1
    factors = lora["mid_block.resnets.0.conv1"]
    np.testing.assert_allclose(
        full(factors), conv.get_delta_weight("s").detach().flatten(1).numpy(), atol=1e-6
    )
    assert factors.kernel == (16, 3, 3)
    with pytest.raises(ValueError, match="expected one of the loaded s"):
        lora_of(adapted, "t")


def test_a_file_of_any_kind_gives_the_factors_of_the_adapter(adapted, tmp_path):
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    lora = lora_of(adapted)
    state = get_peft_model_state_dict(adapted.unet, adapter_name="s")
    config = adapted.unet.peft_config["s"].to_dict()
    adapted.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=config)
    kohya = {}
    for key, tensor in state.items():
        layer, _, end = key.rpartition(".lora_")
        name = "lora_unet_" + layer.replace(".", "_")
        kohya[f"{name}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = tensor.contiguous()
        kohya[f"{name}.alpha"] = torch.tensor(6.0)
    save_file(kohya, tmp_path / "kohya.safetensors")
    assert float(
        lora_cosine(lora, tmp_path / "pytorch_lora_weights.safetensors")["total"]
    ) == pytest.approx(1)
    norms = lora_cosine(lora, tmp_path / "pytorch_lora_weights.safetensors")
    np.testing.assert_allclose(norms["norm_a"], norms["norm_b"], rtol=1e-5)
    read = lora_of(tmp_path / "kohya.safetensors")
    for name, f in lora.items():
        np.testing.assert_allclose(
            full(read[name.replace(".", "_")]), full(f), rtol=1e-5, atol=1e-6
        )


def test_factors_go_back_into_a_pipeline(adapted, tiny, tmp_path):
    pipe, file = tiny.sd(seed=1), tmp_path / "back.safetensors"
    lora = lora_of(adapted)
    save_lora(file, tensors_of(lora), {})
    load_slider(pipe, file, scale=1.0)
    back = lora_of(pipe)
    assert back.keys() == lora.keys()
    for name in lora:
        np.testing.assert_allclose(
            full(back[name]), full(lora[name]), atol=1e-2
        )  # files are in half precision


def test_what_is_no_lora_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="no LoRA loaded"):
        lora_of(tiny.sd())
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no safetensors file"):
        lora_of(tmp_path / "x.safetensors")
