"""Attributes read by asking: who answers is exchangeable, and what cannot be asked is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

import xhat
from xhat.analysis.measures.by_seed import entropy_by_seed
from xhat.analysis.sampling.arms import measure_finals
from xhat.probes.answers import (
    AskedSpace,
    ContrastiveAnswers,
    JudgeAnswers,
    load_answers,
    with_questions,
)
from xhat.probes.encoders import MissingWeights
from xhat.probes.features import JudgeSpace, feature_space
from xhat.probes.questions import Question, check_asked, load_questions
from xhat.zoo.family.attributes import ATTRIBUTES

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PLANET = tuple(
    Question(name, choices, f"planet {name}", "planet")
    for name, choices in ATTRIBUTES["planet"].items()
    if name not in ("ring", "moons")  # whose values are "a" and "no", words of every prompt
)


def test_questions_are_read_whole_or_refused(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps([{"attribute": "time", "choices": ["day", "night"]}]))
    (question,) = load_questions(path)
    assert question == Question("time", ("day", "night"))
    for content, says in (
        ("[", "no file of questions"),
        ("{}", "expected a list"),
        ('[{"attribute": "a"}]', "expected a list"),
        ('[{"attribute": "a", "choices": "day"}]', "expected a list"),
        ('[{"attribute": "a", "choices": ["day"]}]', "two or more different choices"),
        ('[{"attribute": "a", "choices": ["x", "y"], "txt": ""}]', "expected a list"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=says):
            load_questions(path)


def test_what_a_prompt_states_is_not_open():
    question = Question("time", ("day", "night"), concept="street")
    assert question.is_open_in("a Street in the rain")
    assert not question.is_open_in("a street at night")
    assert not question.is_open_in("a streetcar")
    assert Question("time", ("day", "night")).is_open_in("anything")
    check_asked((), ["a dog"])
    with pytest.raises(ValueError, match="no question is open in 'a dog'"):
        check_asked([question], ["a dog", "a street"])


def test_the_choice_is_softmax_over_the_sentences_of_clip(tmp_path, tiny):
    words = tiny.tokenizer(8)
    text = {**SIZE, "vocab_size": len(words), "max_position_embeddings": 8}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    picture = {**SIZE, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=12)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    answers = load_answers(f"clip:{tmp_path}")
    assert isinstance(answers, ContrastiveAnswers)
    images = np.random.default_rng(0).random((5, 3, 16, 16), dtype=np.float32)
    asked = answers.ask(images, "a {} planet", ["red", "blue"])
    np.testing.assert_allclose(asked.sum(1), 1)
    assert asked.std() > 0
    one = answers.ask(images[2:3], "a {} planet", ["red", "blue"])
    np.testing.assert_allclose(one, asked[2:3], rtol=1e-4)
    turned = answers.ask(images, "a {} planet", ["blue", "red"])
    np.testing.assert_allclose(turned[:, ::-1], asked, rtol=1e-4)
    np.testing.assert_allclose(
        answers.ask(images, "a planet", ["red", "blue"]),
        answers.ask(images, "a planet {}", ["red", "blue"]),
    )
    assert set(answers.attrs) == {"answers", "answers model", "answers weights"}


def test_names_and_weights_that_are_not_here(monkeypatch):
    with pytest.raises(ValueError, match="unknown answers 'siglib'; did you mean 'siglip'"):
        load_answers("siglib")
    with pytest.raises(MissingWeights, match="'clip' needs the weights .* clip:FOLDER"):
        load_answers("clip:nobody/nothing")
    with pytest.raises(ValueError, match="the judge cannot tell 'planet rings'"):
        JudgeAnswers().ask(np.zeros((1, 3, 64, 64), np.float32), "planet rings", ["no", "a"])


@pytest.mark.slow
def test_the_judge_when_asked_says_what_it_says_of_itself():
    pipe = xhat.load_pair("demo").student
    tree = xhat.trace(pipe, ["a planet"], seeds=range(6), progress=False, output_type="latent")
    final = {"student": tree.to_dataset()["final"]}
    own = JudgeSpace(pipe.vae)
    asked = with_questions(own, pipe.vae, "judge", PLANET)
    assert isinstance(asked, AskedSpace)
    assert with_questions(own, pipe.vae, "judge", ()) is own
    latents = final["student"].values[0]
    theirs, ours = own.labels(latents, "a planet"), asked.labels(latents, "a planet")
    assert set(theirs) - set(ours) == {"ring", "moons"}
    for name in ours:
        np.testing.assert_array_equal(theirs[name][0], ours[name][0])
        assert theirs[name][1] == ours[name][1]
    entropy = measure_finals(final, asked)["attribute_entropy"]
    each = [entropy_by_seed(*ours[name]) for name in ours]
    np.testing.assert_allclose(entropy.values, np.mean(each), rtol=1e-6)
    other = with_questions(feature_space("latent", pipe), pipe.vae, "judge", PLANET[:1])
    assert "attribute_entropy" in measure_finals(final, other)


@pytest.mark.slow
def test_the_command_measures_what_was_asked(tmp_path, capsys):
    from xhat.cli import main

    path = tmp_path / "q.json"
    questions = [vars(q) for q in PLANET]
    path.write_text(json.dumps(questions))
    prompts = ["a planet", "a big planet", "a planet with no moons"]
    argv = ["probe", "demo/dmd", "--base", "demo/base", "--base-steps", "2", "--seeds", "0:4"]
    argv += ["--questions", str(path), "--answers", "judge", "--space", "latent"]
    argv += ["--out", str(tmp_path / "out"), "--budget", "1h", "--prompts"]
    assert main([*argv, *prompts]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "attribute_entropy" in json.dumps(results)
    capsys.readouterr()
    assert main([*argv, "a critter"]) == 2
    assert "no question is open in 'a critter'" in capsys.readouterr().err
