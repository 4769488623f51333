"""Every experiment on the embedded family: runs them, ships their figures' data, renders
docs/results.md and the README's findings.

python benchmarks/experiments.py                     # all: some hours on two idle cores
python benchmarks/experiments.py swaps-dmd pareto-dmd
python benchmarks/experiments.py --page              # the page, README and figures' data alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from findings import half_page, lead, training_part, write_readme

from xhat.analysis.files import ForeignFolder
from xhat.analysis.result import Result
from xhat.cli import main as command
from xhat.figures.kit.data import SHIPPED, load_data, save_data
from xhat.zoo.pairs import embedded, load_pair

SHOWN = "dmd"  # of the students, the one that collapses most: its figures are the shipped ones
# what is shipped is small; a run keeps more. Of the first four prompts, one a kind, the planet and
# the landscape are shown: as was decided before these students were drawn
FEWER = {"wall": {"prompt": slice(1)}, "samples": {"prompt": [2, 3]}}
RUNS, PAGE = Path("runs/experiments"), Path(__file__).parents[1] / "docs" / "results.md"
# of every student: the paper's tables are made of them
OF_EACH = ("measured", "controls", "swap_matrix")
NOT_SHIPPED = ("antidistillation", "contrasts", "predicted", "readout", "twins")
GRID = ["demo/base", *(f"demo/{name}" for name in ("dmd", "em")), "--slider", "square"]
# at scale 1 many controls are at their end
TRANSFER = ["transfer", "--seeds", "4", "--scales", "-1", "-0.25", "0", "0.25", "1"]
# some 40 samplers at their default settings: ten minutes a student; with --tune 120, and an hour
MORE = {"pareto": ["--fit-prompts", "4", "--prompts", "8", "--seeds", "0:10"]}
HEAD = """# What the embedded family shows

Rendered by `python benchmarks/experiments.py` from the results that each command saved; no number
and no sentence is typed in. Every comparison is paired: the same prompts, seeds and noise in every
arm. Each part begins with its findings; which contrasts those are was fixed before any run.
Model cards with obedience and diversity are beside the weights in `zoo/weights/`. What an earlier
version of this page said and no longer holds stands in the changelog.
"""


def experiments() -> dict[str, tuple[str, list[str]]]:
    """name → (title, arguments of xhat). The first run that makes a figure's data is the one whose
    data is shipped.
    """
    students = sorted((name for name in embedded() if name != "base"), key=lambda n: n != SHOWN)
    runs = {
        "demo": ("Base, student and hybrid", ["demo", "--prompts", "24"]),
        "regime": ("When does the first step decide?", ["regime"]),
        "similarity": ("Are the representations the same?", ["similarity"]),
        "transfer": ("Does control survive distillation?", TRANSFER),
        "slider": ("A slider across models", ["slider", "apply", *GRID]),
        "readout": ("When is an attribute decided?", ["readout"]),
        "lineage": (
            "What each stage of a lineage loses",
            ["probe", "demo/base", "demo/dmd", "demo/pruned", "--prompts", "16"],
        ),
        "antidistillation": ("Can samples teach less?", ["antidistil"]),
        "patch": ("The base's activations of step one in the student", ["patch"]),
    }
    of_each = {
        "demo": "Base, student and hybrid.",
        "swaps": "Which step decides?",
        "credit": "What each step adds.",
        "pareto": "Every way to more diversity.",
    }
    for kind, title in of_each.items():
        for name in students:
            if (kind, name) != ("demo", load_pair("demo").chosen):  # that one is "demo" itself
                arguments = [kind, "--pair", f"demo/{name}", *MORE.get(kind, [])]
                runs[f"{kind}-{name}"] = (f"{title} Student {name}", arguments)
    return runs


def run(name: str) -> bool:
    """Run one experiment; a run that was stopped goes on."""
    return command([*experiments()[name][1], "--out", str(RUNS / name)]) == 0


def saved() -> dict[str, Result]:
    """The results that are there, in the order of :func:`experiments`."""
    results = {}
    for name in experiments():
        try:
            results[name] = Result.load(RUNS / name)
        except ForeignFolder as error:
            print(f"left out, {name}: {error}", file=sys.stderr)
    return results


def ship(results: Mapping[str, Result]) -> None:
    """Copy the data of figures into the package."""
    taken: set[str] = set()
    for name, result in results.items():
        for figure, data in result.data.items():
            if figure in NOT_SHIPPED or (figure == "measured" and result.name != "demo"):
                continue
            shipped = figure
            if figure in taken and figure in OF_EACH:
                shipped = f"{figure}_{name.rpartition('-')[2]}"
            if shipped not in taken:
                taken.add(shipped)
                few = data.isel(FEWER.get(shipped, {}), missing_dims="ignore")
                save_data(few, SHIPPED.parent, shipped)
    if (RUNS / "slider").exists():  # a picture alone, no result
        save_data(load_data("slider_grid", RUNS / "slider"), SHIPPED.parent, "slider_grid")


def page(results: Mapping[str, Result]) -> str:
    """The findings, then of each result the command that made it and, folded, all that it says."""
    titles = {name: experiments()[name][0] for name in results}
    parts = [HEAD, half_page(results, titles)]
    for name, result in results.items():
        found = "\n".join(f"- {sentence}" for sentence in lead(result))
        sentences = "\n".join(f"- {sentence}" for sentence in result.sentences)
        table = f"\n\n```text\n{result.table.to_text()}\n```" if result.table.rows else ""
        command_line = f"`xhat {' '.join(experiments()[name][1])}`"
        parts.append(
            f"## {titles[name]}\n\n{command_line}\n\n{found}\n\n"
            '<details markdown="1"><summary>every sentence, and the table</summary>\n\n'
            f"{sentences}{table}\n\n</details>\n"
        )
    return "\n".join([*parts, training_part(load_data("training"))])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(experiments())} (default all)"
    )
    parser.add_argument("--page", action="store_true", help="run nothing")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in experiments()]
    if unknown:
        parser.error(f"no experiment is named {unknown[0]!r}: there are {', '.join(experiments())}")
    failed = [name for name in ([] if args.page else args.names or experiments()) if not run(name)]
    results = saved()
    ship(results)
    PAGE.write_text(page(results), encoding="utf-8")
    write_readme()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
