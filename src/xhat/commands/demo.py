"""``xhat demo``"""

from __future__ import annotations

import argparse
from typing import Any

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_pair,
    add_prompts,
    add_seeds,
    finish,
    prompts_of,
)

HELP = "the main job on the embedded pair: trace, compare, report"
FIGURES = ("samples", "filmstrip", "diversity", "commitment", "schematic")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_pair(parser)
    add_prompts(parser, "eight open prompts of the family")
    add_seeds(parser, range(24))
    add_batch_size(parser)
    parser.add_argument(
        "--control",
        metavar="STUDENT",
        help="a student of the family that commits late, beside the other (default: the pair's)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="four prompts × eight seeds, under a minute"
    )
    add_out(parser, "demo")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.collapse import Demo, demo
    from xhat.analysis.result import claim
    from xhat.figures.report.page import write_report

    asked: dict[str, Any] = {"seeds": args.seeds, **prompts_of(args)}
    if args.quick:
        quick = Demo(pair=args.pair)
        asked = {"prompts": quick.prompts[:4], "seeds": range(8)}
    config = Demo(pair=args.pair, control=args.control, batch_size=args.batch_size, **asked)
    out = claim(args.out, "demo")
    finish(demo(config, traces=out / "traces"), out, FIGURES)
    print(f"report: {write_report(out)}")
