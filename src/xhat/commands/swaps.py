"""``xhat swaps``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from xhat.commands.parse import prompts, seeds

HELP = "which step decides: the base's steps put into the student's run, with the controls that tell causes apart"
FIGURES = ("swap_matrix", "controls", "sensitivity")
PAIRED = ("base", "base_few", "student", "hybrid", "skip", "fresh", "student_own", "hybrid_own")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["8"],
        metavar="P",
        help="prompts, or a number: the first so "
        "many of the twenty open prompts of the family (default 8)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=range(12),
        metavar="0:32",
        help="a range, or a list 1,2,5; every arm gets the same noise (default 0:12)",
    )
    parser.add_argument(
        "--guidance", type=float, metavar="G", help="of the base's guided steps (default: its own)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=24,
        metavar="B",
        help="samples at a time; at least all seeds of a prompt (default 24)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/swaps"),
        metavar="RUN",
        help="folder for results, "
        "figures and samples; the same command goes on there (default runs/swaps)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.swaps import TRACED, measure_swaps
    from xhat.analysis.experiments.swaps_text import statement, table_text
    from xhat.analysis.sampling.sensitivity import measure_sensitivity
    from xhat.figures.kit.curves import together
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.probes.features import feature_space
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair, chosen = load_pair(args.pair), prompts(args.prompts, OPEN_PROMPTS)
    space = feature_space("judge", pair.base)
    how: dict[str, Any] = {
        "cache": args.out / "cache",
        "batch_size": max(args.batch_size, len(args.seeds)),
    }
    found = measure_swaps(
        pair.base, pair.student, chosen, args.seeds, space=space, guided_scale=args.guidance, **how
    )
    curves, paired = measure_sensitivity(
        {name: found.arms[name] for name in PAIRED},
        chosen,
        list(args.seeds),
        curves=TRACED,
        reference="base",
        features=space.features,
        **how,
    )
    said = {"pair": args.pair, "student": pair.chosen}
    left = together({_named(arm, pair): curve for arm, curve in curves.items()})
    left = left.merge(
        paired.assign_coords(arm=[_named(arm, pair) for arm in paired["arm"].values.tolist()])
    )
    shown = zip(FIGURES, (found.matrix, found.controls, left), strict=True)
    for name, data in shown:
        save_data(data.assign_attrs(said), args.out, name)
    lines = statement(found.measured)
    write_results(args.out / "results.json", found, paired, lines, {**said, "prompts": chosen})
    redraw(FIGURES, run=args.out, out=args.out / "figures")
    for table in (found.matrix, found.controls):
        print(f"\n{table_text(table)}")
    print("\n".join(["", *lines, f"\nfigures: {args.out / 'figures'}"]))


def _named(arm: str, pair: Any) -> str:
    """The arm under the student's own name, which has its own colour."""
    return arm.replace("student", pair.chosen)


def write_results(
    path: Path, found: Any, paired: Any, lines: list[str], said: dict[str, Any]
) -> None:
    """Everything that is not a picture, as JSON."""
    from xhat.analysis.experiments.swaps_text import contrasts
    from xhat.hooks.describe import jsonable

    tables = {
        "swaps": found.matrix,
        "controls": found.controls,
        "contrasts": contrasts(found.measured),
        "pairing": paired,
    }
    tables["ledger"] = found.measured[
        [n for n, v in found.measured.data_vars.items() if v.dims == ("line",)]
    ]
    data = {**said, "statement": lines, "settings": found.measured.attrs}
    data |= {name: _columns(table) for name, table in tables.items()}
    path.write_text(json.dumps(jsonable(data), indent=1, ensure_ascii=False) + "\n")


def _columns(table: Any) -> dict[str, Any]:
    """The variables of one dimension, by name."""
    return {name: v.values.tolist() for name, v in table.variables.items() if v.ndim == 1}
