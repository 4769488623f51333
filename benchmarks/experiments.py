"""Every experiment on the embedded family: runs them, keeps their figures' data, writes
docs/results.md.

python benchmarks/experiments.py                     # all: about an hour and a half on two idle
cores
python benchmarks/experiments.py swaps-dmd pareto-dmd
python benchmarks/experiments.py --page              # only the page and the figures' data, of the
runs that are there
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from xhat.figures.kit.data import SHIPPED, load_data, save_data
from xhat.zoo.pairs import embedded, load_pair

SHOWN = "turbo"  # of the students, the one that collapses most: its figures are the shipped ones
DRAWN = {
    "filmstrip": {"seed": slice(1)}
}  # the figure shows one; a run keeps more, for the player of its report
RUNS, PAGE = Path("runs/experiments"), Path(__file__).parents[1] / "docs" / "results.md"
SAID = "said.txt"
OF_EACH = (
    "measured",
    "controls",
    "swap_matrix",
)  # of every student: the paper's tables are made of them
GRID = ["demo/base", *(f"demo/{name}" for name in ("dmd", "turbo")), "--slider", "square"]
TRANSFER = [
    "transfer",
    "--seeds",
    "4",
    "--scales",
    "-1",
    "-0.25",
    "0",
    "0.25",
    "1",
]  # at 1 many are at their end
HEAD = """# What the embedded family shows

Made by `python benchmarks/experiments.py`, which runs each command and copies what it prints; no
number and no sentence is typed in. Every comparison is paired: the same prompts, seeds and noise in
every arm. Model cards with obedience and diversity are beside the weights in `zoo/weights/`.
"""


def experiments() -> dict[str, tuple[str, list[str]]]:
    """name → (title, arguments of xhat). The first run that makes a figure's data is the one whose
    data is shipped.
    """
    students = sorted(
        (name for name in embedded() if name != "base"), key=lambda name: name != SHOWN
    )
    found = {
        "demo": ("Base, student and hybrid", ["demo"]),
        "similarity": ("Are the representations the same?", ["similarity"]),
        "transfer": ("Does control survive distillation?", TRANSFER),
        "slider": ("A slider across models", ["slider", "apply", *GRID]),
        "readout": ("When is an attribute decided?", ["readout"]),
        "patch": ("The base's activations of step one in the student", ["patch"]),
    }
    for name in (
        name for name in students if name != load_pair("demo").chosen
    ):  # that one is "demo" itself
        found[f"demo-{name}"] = (
            f"Base, student and hybrid. Student {name}",
            ["demo", "--pair", f"demo/{name}"],
        )
    for name in students:
        found[f"swaps-{name}"] = (
            f"Which step decides? Student {name}",
            ["swaps", "--pair", f"demo/{name}"],
        )
    for name in students:
        found[f"pareto-{name}"] = (
            f"Every way to more diversity. Student {name}",
            ["pareto", "--pair", f"demo/{name}"],
        )
    return found


def run(name: str) -> bool:
    """Run one experiment, showing and keeping what it prints. A run that was stopped goes on."""
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "xhat", *experiments()[name][1], "--out", str(folder)]
    partial = folder / f"{SAID}.partial"
    with (
        partial.open("w") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.write(line)
    if process.returncode == 0:
        partial.replace(folder / SAID)
    return process.returncode == 0


def ship() -> None:
    """Copy the runs' figure data to the package, and write the page of what they said."""
    parts, taken = [HEAD], set()
    for name, (title, arguments) in experiments().items():
        said = RUNS / name / SAID
        if not said.exists() or not said.read_text().strip():
            continue
        parts.append(
            f"## {title}\n\n`xhat "
            f"{' '.join(arguments)}`\n\n```text\n{_told(said.read_text())}\n```\n"
        )
        for file in sorted((RUNS / name / "data").glob("*.nc")):
            shipped = file.stem
            if shipped in taken and shipped in OF_EACH:
                shipped = f"{shipped}_{name.split('-')[-1]}"
            if shipped not in taken:
                taken.add(shipped)
                save_data(
                    load_data(file.stem, RUNS / name).isel(DRAWN.get(shipped, {})),
                    SHIPPED.parent,
                    shipped,
                )
    PAGE.write_text("\n".join(parts))


def _told(text: str) -> str:
    """What was found, without the announcements before it and the file names after it."""
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if not line.startswith(("report:", "grid:", "figures", "results:", "policy:", str(RUNS)))
    ]
    while kept and not kept[-1]:
        kept.pop()
    start = kept.index("") + 1 if "" in kept else 0
    return "\n".join(kept[start:]).strip("\n")


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
    ship()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
