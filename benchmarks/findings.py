"""What was found, in front: the README's two sentences and picture, and the first half page of
docs/results.md. All of it is computed; nothing is typed in.

python benchmarks/findings.py     # README.md and docs/samples.png, from the shipped figures/data
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from xhat.analysis.experiments.collapse_text import ROWS, two_sentences
from xhat.analysis.result import Result
from xhat.figures import draw
from xhat.figures.kit.data import load_data
from xhat.zoo.family.progress import CAPTIONS, PROMPTS, SEEDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "samples.png"
BLOCK = re.compile(r"(<!-- findings[^>]*-->\n).*?(<!-- /findings -->)", re.DOTALL)
LEADS: dict[str, Sequence[int] | str] = {
    "demo": (2, 3, 0, 1, -4, -2, -1),
    "regime": (1, 3, 4),
    "swaps": (0, 8, 9),
    "credit": range(2),
    "pareto": range(2),
    "similarity": (0, -1),
    "patch": (1, -1),
    "antidistillation": range(4),
    "lineage": r"\w[\w ]*: Vendi",
    "transfer": r"base → \w+: |\w+: given the same input",
}
"""Which of an experiment's sentences are its findings, by place or by how they begin; the first one
where nothing is said here."""


def picture(samples: xr.Dataset) -> Figure:
    """Base, student and hybrid under the same seeds."""
    return draw("samples", samples.sel(model=list(ROWS)))


def lead(result: Result) -> list[str]:
    """The sentences of a result that say what was found."""
    if result.name == "readout":
        return _half_decided(result)
    sentences = list(result.sentences)
    places = LEADS.get(result.name, (0,))
    if isinstance(places, str):
        return [sentence for sentence in sentences if re.match(places, sentence)]
    return [sentences[i] for i in places if -len(sentences) <= i < len(sentences)]


def _half_decided(result: Result) -> list[str]:
    attributes = result.table.rows
    of = ", ".join(
        f"{sum(row[i] is not None for row in attributes)} in the {column.title}"
        for i, column in enumerate(result.table.columns)
        if i
    )
    return [f"Of {len(attributes)} attributes, x̂₀ gives half away at some step: {of}."]


def half_page(results: Mapping[str, Result], titles: Mapping[str, str]) -> str:
    """The findings, an experiment a paragraph that leads to its part of the page; of further
    students the first finding.
    """
    lines, seen = ["## In short", ""], set()
    kinds = list(dict.fromkeys(result.name for result in results.values()))
    for name, result in sorted(results.items(), key=lambda item: kinds.index(item[1].name)):
        told = lead(result)
        if result.name in seen:
            told = [f"{result.settings.get('student', name)}: {line}" for line in told[:1]]
        elif told:
            title = titles[name]
            lines.append(f"**[{title}](#{anchor(title)})**\n")
        seen.add(result.name)
        lines += [f"- {_brief(line)}" for line in told] + [""] * bool(told)
    return "\n".join(lines)


def training_part(data: xr.Dataset) -> str:
    """The part of the page on how diversity fell while students were trained; of one small set of
    prompts and seeds, so that no interval is given. ``data``: of the figure ``training``.
    """
    lines = [
        f"- {run}: Vendi {_from_to(data.sel(run=run), 'vendi_q2')}, obedience "
        f"{_from_to(data.sel(run=run), 'obedience')}, in "
        f"{float(data['step'].sel(run=run).max()):g} steps."
        for run in data["run"].values
    ]
    return (
        "## Collapse while training\n\n`python benchmarks/training.py`\n\n"
        f"The base: Vendi {data.attrs['base_vendi_q2']:.2f}, obedience "
        f"{data.attrs['base_obedience']:.2f}. Students, from before their first step to after "
        "their last (-2: a second seed; dmd-even: dmd with the base's own guidance); "
        f"{len(PROMPTS)} prompts × {SEEDS} seeds and {CAPTIONS} full captions, no intervals:\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _from_to(run: xr.Dataset, name: str) -> str:
    values = run[name].values[run["step"].notnull().values]
    return f"{values[0]:.2f} → {values[-1]:.2f}"


def _brief(sentence: str) -> str:
    """A sentence without what would decide where nothing was told apart, or ranks cells."""
    return re.sub(r"(?<=[.)]) (At \d+ prompt|It falls furthest).*", "", sentence)


def anchor(title: str) -> str:
    """The name of a heading on a page, as both GitHub and mkdocs make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def readme_sentences() -> str:
    """The finding on the embedded family, in two sentences."""
    return two_sentences(load_data("measured"), " of the embedded family", bold=True)


def write_readme(readme: Path = README, shown: Path = PICTURE) -> None:
    """The two sentences between the README's marks, and the picture."""
    text = readme.read_text(encoding="utf-8")
    block = f"\\1{readme_sentences()}\n\\2"
    readme.write_text(BLOCK.sub(block, text), encoding="utf-8")
    picture(load_data("samples")).savefig(shown, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    write_readme()
