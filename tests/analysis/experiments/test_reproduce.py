"""``xhat reproduce``, end to end on a small random SDXL pair in the layouts in which it is
published, and its parts.
"""

import json

import pytest
import torch
import transformers
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import xhat
from xhat.analysis.experiments.reproduce import Reproduction, arm_names, later_plan, paper_arms
from xhat.analysis.experiments.reproduce_text import STUDENTS, reproduced_table
from xhat.analysis.result import Result
from xhat.cli import main
from xhat.commands.reproduce import share_of
from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.plan import Segment
from xhat.samplers.plans.schedule import scheduled


@pytest.fixture(scope="module")
def published(tiny, tmp_path_factory):
    """A base's folder, DMD2's bare UNet in half precision as a pickle, a LoRA, a CLIP."""
    root = tmp_path_factory.mktemp("published")
    base, student = tiny.sdxl(0), tiny.sdxl(1)
    base.save_pretrained(root / "base")
    half = {k: v.half() for k, v in student.unet.state_dict().items()}
    torch.save(half, root / "dmd2_sdxl_4step_unet_fp16.bin")
    torch.manual_seed(0)
    student.unet.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    (root / "controls").mkdir()
    StableDiffusionXLPipeline.save_lora_weights(
        root / "controls",
        unet_lora_layers=get_peft_model_state_dict(student.unet),
        weight_name="age.safetensors",
    )
    row = {"row": "age", "file": "age.safetensors", "prompts": ["a person"], "target": "the face"}
    (root / "controls" / "controls.json").write_text(json.dumps([row]))
    words = tiny.tokenizer(8)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"intermediate_size": 32, "projection_dim": 12}
    text = size | {"vocab_size": len(words), "max_position_embeddings": 8, "eos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config=size | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    transformers.CLIPModel(config).save_pretrained(root / "clip")
    words.save_pretrained(root / "clip")
    return root


def command(published, out, *more):
    paths = {
        "--base": published / "base",
        "--student": published / "dmd2_sdxl_4step_unet_fp16.bin",
        "--out": out,
    }
    given = [str(part) for pair in paths.items() for part in pair]
    small = ["--base-steps", "6", "--seeds", "0:3", "--space", "pixel", "--scores"]
    return ["reproduce", *given, *small, f"clip_score:{published / 'clip'}", *map(str, more)]


@pytest.mark.slow
def test_the_papers_tables_end_to_end(published, tmp_path, capsys):
    controls = ("--controls", published / "controls", "--clip", published / "clip")
    assert main(command(published, tmp_path / "run", "--dry-run", *controls)) == 0
    before = capsys.readouterr().out
    assert "missing" not in before
    assert "90 pictures left" in before  # 6 arms, 5 prompts, 3 seeds
    assert not (tmp_path / "run").exists()
    assert main(command(published, tmp_path / "run", "--share", "2/2", *controls)) == 0
    assert main(command(published, tmp_path / "run", "--dry-run", *controls)) == 0
    assert "54 pictures left" in capsys.readouterr().out  # two of five prompts are there
    assert main(command(published, tmp_path / "run", *controls)) == 0
    result = Result.load(tmp_path / "run")
    table = result.table.to_text()
    line = next(row for row in table.splitlines() if "mean over prompts" in row and "base" in row)
    assert line.rstrip().endswith("0.337")
    assert "a cute puppy" in table
    assert any(row[:2] == ("1 transfer, %", "age") and row[4] == 17.8 for row in result.table.rows)
    scored = [r for r in result.table.rows if r[1] == "CLIP score" and r[2].startswith("first")]
    assert scored[0][4] == 31.71
    said = " ".join(result.sentences)
    assert "3 seeds a prompt; the paper has 100" in said
    assert "the paper's are DreamSim" in said
    assert "The base makes 6 steps" in said
    assert main(command(published, tmp_path / "run", "--dry-run", *controls)) == 0
    assert "0 pictures left" in capsys.readouterr().out.splitlines()[-1]


def test_a_dry_run_says_what_is_missing_and_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("stable-diffusion-xl-base-1.0" in line and "hf download" in line for line in lines)
    assert any("dreamsim" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_only_later_steps_are_the_bases_own_from_the_students_second_level():
    pair = xhat.load_pair("demo")
    plan = later_plan(pair.base, pair.student)
    first, rest = plan.segments
    assert (first.model, first.start, first.stop, rest.model) == ("student", 0, 1, "base")
    steps = rest.num_inference_steps
    base = noise_levels(scheduled(pair.base.scheduler, Segment("base", 0, steps, steps))).sigma
    student = noise_levels(
        scheduled(pair.student.scheduler, *whole("student", pair.student).segments)
    ).sigma
    assert base[rest.start] <= student[1] * (1 + 1e-6) < base[rest.start - 1] * (1 + 2e-6)
    assert rest.stop == steps


def test_the_hybrid_is_the_papers_with_and_without_guidance():
    pair = xhat.load_pair("demo")
    arms = paper_arms(pair.base, pair.student, ["hybrid", "hybrid_guided"])
    for name, guidance in (("hybrid", 1.0), ("hybrid_guided", 7.0)):
        first = arms[name].pipe.scheduler.plan.segments[0]
        assert (first.model, first.stop - first.start) == ("base", 1)
        assert (first.guidance_scale, first.noise) == (guidance, "fresh")


def test_arms_of_tables():
    assert arm_names(["cost", "swap"], 4) == [
        "base", "student", "hybrid", "hybrid_guided", "skip", "later"
    ]  # fmt: skip
    assert arm_names(["cost", "swap"], 1) == ["base", "student", "hybrid", "hybrid_guided"]
    assert arm_names(["transfer"], 4) == []


def test_mistakes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected some of diversity"):
        Reproduction(tables=["speed"])
    with pytest.raises(ValueError, match="needs controls"):
        Reproduction(tables=["transfer"])
    with pytest.raises(ValueError, match="expected I/N"):
        share_of("3/2")
    assert set(STUDENTS) < set(xhat.zoo.load.catalogue.published())


def test_nothing_measured_gives_an_empty_table():
    assert reproduced_table({}, "sdxl/dmd2", []).rows == ()
