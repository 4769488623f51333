"""Answers of an image–text model: a small random LLaVA of the real class, with its processor."""

from __future__ import annotations

from string import ascii_uppercase

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from xhat.probes.answers import load_answers
from xhat.probes.encoders import MissingWeights
from xhat.probes.vqa import VisualAnswers, letter_token, prompt_text, rotations

SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    *ascii_uppercase,
    *["what", "color", "red", "blue"],
]
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else ' ' + part['text'] }}"
    "{% endfor %}{% endfor %}"
)
CHOICES = ("red", "blue", "what", "color")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llava")
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    picture = {**SIZE, "image_size": 16, "patch_size": 8, "num_hidden_layers": 2}
    text = {**SIZE, "vocab_size": len(WORDS), "num_hidden_layers": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**picture),
        text_config=transformers.LlamaConfig(**text, pad_token_id=0),
        image_token_id=WORDS.index("<image>"),
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    size = {"height": 16, "width": 16}
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)


def test_the_answer_is_read_at_the_letters(folder, images):
    answers = VisualAnswers(str(folder), orders=1, batch_size=2)
    found = answers.ask(images, "what color", CHOICES)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    letters = processor.tokenizer("A B C D", add_special_tokens=False)["input_ids"]
    for row, image in zip(found, images, strict=True):
        pixels = Image.fromarray(np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8))
        text = f"<image> {prompt_text('what color', CHOICES)}"
        with torch.no_grad():
            logits = model(**processor(text=text, images=pixels, return_tensors="pt")).logits
        np.testing.assert_allclose(row, logits[0, -1, letters].softmax(0), rtol=1e-4)
    assert np.ptp(found, axis=0).max() > 1e-3  # it looks at the pictures
    assert answers.attrs["answers model"] == str(folder)


def test_in_as_many_orders_as_choices_the_order_given_has_no_effect(folder, images):
    answers = VisualAnswers(str(folder), orders=len(CHOICES))
    moved = [2, 3, 0, 1]
    found = answers.ask(images, "what color", CHOICES)
    again = answers.ask(images, "what color", [CHOICES[i] for i in moved])
    np.testing.assert_allclose(again, found[:, moved], atol=1e-6)
    once = VisualAnswers(str(folder), orders=1)
    first = once.ask(images, "what color", CHOICES)
    other = once.ask(images, "what color", [CHOICES[i] for i in moved])
    assert np.abs(other - first[:, moved]).max() > 1e-3  # in one order it has
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_orders_are_spread_and_no_more_than_there_are():
    assert list(rotations(2, 4)) == [[0, 1], [1, 0]]
    assert [order[0] for order in rotations(8, 4)] == [0, 2, 4, 6]


def test_what_cannot_be_asked_is_refused(folder, images):
    answers = load_answers(f"vqa:{folder}")
    with pytest.raises(ValueError, match="27 choices; 26 can be lettered"):
        answers.ask(images, "what", [str(i) for i in range(27)])
    with pytest.raises(ValueError, match="no token for the answer 'Ä'"):
        letter_token(answers.processor.tokenizer, "Ä")
    with pytest.raises(ValueError, match="orders=0"):
        VisualAnswers(str(folder), orders=0)
    with pytest.raises(MissingWeights, match=r"hf download Qwen/Qwen2-VL-2B-Instruct.*vqa:FOLDER"):
        load_answers("vqa")
    with pytest.raises(MissingWeights, match="nowhere"):
        load_answers("vqa:nowhere/at-all")
