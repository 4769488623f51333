"""``xhat patch``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xhat.commands.parse import prompts, seeds

HELP = "the base's activations of step one put into the student, layer by layer: how much diversity comes with them"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["6"],
        metavar="P",
        help="prompts, or a number: the first so "
        "many of the twenty open prompts of the family (default 6)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=range(16),
        metavar="0:32",
        help="a range, or a list 1,2,5 (default 0:16)",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="POINT",
        help="points, globs or paths (default: every residual block and attention)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=48, metavar="B", help="samples at a time (default 48)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/patch"),
        metavar="RUN",
        help="folder for results, "
        "samples and figure; the same command goes on there (default runs/patch)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.patch import patching, statement
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.probes.features import feature_space
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair, chosen = load_pair(args.pair), prompts(args.prompts, OPEN_PROMPTS)
    found = patching(
        pair.base,
        pair.student,
        chosen,
        args.seeds,
        space=feature_space("judge", pair.base),
        layers=args.layers,
        cache=args.out / "cache",
        batch_size=args.batch_size,
    )
    found = found.assign_attrs(pair=args.pair, student=pair.chosen)
    save_data(found, args.out, "patching")
    lines = statement(found)
    results = {"statement": lines, "prompts": chosen, "attrs": found.attrs}
    results |= {str(n): v.values.tolist() for n, v in found.variables.items()}
    (args.out / "results.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False, default=str) + "\n"
    )
    redraw(["patching"], run=args.out, out=args.out / "figures")
    print("\n".join(["", *lines, f"\nfigures: {args.out / 'figures'}"]))
