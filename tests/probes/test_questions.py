"""Questions as GRADE and DIM-CIM publish theirs."""

from __future__ import annotations

import json

import pytest

from xhat.probes.questions import Question, load_questions

GRADE = """concept_id,concept,prompt_id,prompt,attribute_id,attribute,attribute_values
1,a hat,0,a hat in a shop.,0,"What color is the hat (e.g., red)?","{'red', 'blue', 'dark green'}"
1,a hat,0,a hat in a shop.,1,Is there a band?,"{'Yes', 'No'}"
1,a hat,1,a hat at sea.,0,"What color is the hat (e.g., red)?","{'blue', 'dark green', 'red'}"
2,an oven,2,an oven.,2,Is it open?,"{'Yes', 'No'}"
"""


def test_a_file_of_grade_is_read(tmp_path):
    path = tmp_path / "grade_dataset.csv"
    path.write_text(GRADE)
    color, band, oven = load_questions(path)
    text = "What color is the hat (e.g., red)?"
    assert color == Question(text, ("blue", "dark green", "red"), text, "hat")
    assert band.choices == ("No", "Yes")
    assert oven.concept == "oven"
    assert color.is_open_in("a hat in a shop.")
    assert not color.is_open_in("a dark green hat")
    assert not color.is_open_in("an oven.")
    assert band.is_open_in("a hat with no feather")  # an answer, not a word of the prompt


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("open('x')", "a set of words"),
        ("{", "a set of words"),
        ("", "a set of words"),
        ("3", "a set of words"),
        ("{'one'}", "two or more different choices"),
    ],
)
def test_what_grade_does_not_write_is_refused(tmp_path, values, says):
    path = tmp_path / "grade.csv"
    path.write_text(f'concept,attribute,attribute_values\na hat,What?,"{values}"\n')
    with pytest.raises(ValueError, match=says):
        load_questions(path)
    path.write_text("prompt\na hat\n")
    with pytest.raises(ValueError, match="GRADE's columns"):
        load_questions(path)


def test_a_file_of_dimcim_is_read(tmp_path):
    def dense(kind, attribute):
        return {"attribute_type": kind, "attribute": attribute, "dense_prompt": "…"}

    prompts = [
        {"coarse_prompt": "A bus.", "dense_prompts": [dense("color", "red"), dense("size", "big")]},
        {"coarse_prompt": "A bus, parked.", "dense_prompts": [dense("color", "blue")]},
    ]
    path = tmp_path / "bus_dense_prompts.json"
    path.write_text(json.dumps({"concept": "bus", "coarse_dense_prompts": prompts}))
    assert load_questions(path) == (
        Question("color", ("red", "blue"), "What is the color of the bus?", "bus"),
    )
    path.write_text(json.dumps({"concept": "bus", "coarse_dense_prompts": [{}]}))
    with pytest.raises(ValueError, match="without 'dense_prompts'"):
        load_questions(path)
