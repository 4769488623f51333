"""Prompt suites in the layouts in which they are published, with made-up prompts."""

import json

import pytest

from xhat.zoo.suites import PAPER, SUITES, MissingSuite, load_suite

WANTED = {"a red cat", "two dogs, one hat", "a house"}


@pytest.fixture
def layouts(tmp_path, monkeypatch):
    """Every suite's file as its authors lay it out, in the folder where it is looked for."""
    monkeypatch.setenv("XHAT_SUITES", str(tmp_path))
    parti = [f"{p}\tAnimals\tBasic\t" for p in sorted(WANTED)]
    (tmp_path / "PartiPrompts.tsv").write_text(
        "\n".join(["Prompt\tCategory\tChallenge\tNote", *parti])
    )
    rows = ["a red cat,Colors", '"two dogs, one hat",Counting', "a house,Colors"]
    (tmp_path / "DrawBench.csv").write_text("\n".join(["Prompts,Category", *rows]))
    captions = [
        {"id": 7, "image_id": 1, "caption": "another caption"},
        {"id": 3, "image_id": 1, "caption": "a red cat"},
        {"id": 4, "image_id": 2, "caption": " two dogs,  one hat\n"},
        {"id": 5, "image_id": 3, "caption": "a house"},
    ]
    content = {"images": [], "annotations": captions}
    (tmp_path / "captions_val2014.json").write_text(json.dumps(content))
    lines = [{"tag": "single_object", "include": [], "prompt": p} for p in WANTED]
    (tmp_path / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = [f"1,a thing,0,\"{p}\",0,What?,\"{{'a', 'b'}}\"" for p in (*WANTED, "a house")]
    head = "concept_id,concept,prompt_id,prompt,attribute_id,attribute,attribute_values"
    (tmp_path / "grade_dataset.csv").write_text("\n".join([head, *asked]))
    dense = [{"attribute": "red", "dense_prompt": "a very red cat"}]
    nested = {"cat": [{"coarse_prompt": p, "dense_prompts": dense} for p in WANTED]}
    (tmp_path / "dimcim.json").write_text(json.dumps(nested))
    return tmp_path


@pytest.mark.parametrize("name", SUITES)
def test_a_published_layout_is_read(name, layouts):
    suite = load_suite(name)
    assert set(suite.prompts) == WANTED
    assert len(suite.prompts) == 3
    assert suite.licence in suite.text()
    assert load_suite(f"{name}:{layouts / SUITES[name].file}") == suite


def test_a_first_part_is_a_fair_one(layouts):
    many = [f"prompt {i}" for i in range(1000)]
    (layouts / "PartiPrompts.tsv").write_text("\n".join(["Prompt", *many]))
    first = [int(prompt.split()[1]) for prompt in load_suite("parti").prompts[:100]]
    assert 350 < sum(first) / 100 < 650
    assert load_suite("parti") == load_suite("parti")


def test_the_papers_subjects_need_no_file():
    assert load_suite("paper").prompts == PAPER


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("p.txt", "b\n\n a \nb\n"),
        ("p.csv", "id,Prompt\n1,b\n2,a\n"),
        ("p.jsonl", '{"prompt": "b"}\n{"prompt": "a"}\n'),
        ("p.json", '["b", "a"]'),
    ],
)
def test_a_file_keeps_its_order(file, text, tmp_path):
    (tmp_path / file).write_text(text)
    assert load_suite(str(tmp_path / file)).prompts == ("b", "a")


def test_what_is_missing_or_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XHAT_SUITES", str(tmp_path))
    for name, entry in SUITES.items():
        with pytest.raises(MissingSuite, match=f"suite '{name}' needs") as error:
            load_suite(name)
        assert entry.url in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'geneval'"):
        load_suite("genevals")
    with pytest.raises(MissingSuite, match="--repo-type dataset"):
        load_suite("nobody/prompts/data/p.csv")
    (tmp_path / "p.csv").write_text("id,title\n1,b\n")
    with pytest.raises(ValueError, match=r"no column prompt, prompts, caption or text: it has id"):
        load_suite(str(tmp_path / "p.csv"))
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(ValueError, match="has not the layout"):
        load_suite(str(tmp_path / "p.json"))
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        load_suite(str(tmp_path / "p.txt"))
