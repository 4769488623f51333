"""``xhat swaps``"""

from __future__ import annotations

import argparse

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_pair,
    add_prompts,
    add_seeds,
    add_space,
    finish,
    prompts_of,
    space_options,
)
from xhat.commands.parse import finite

HELP = (
    "which step decides: the base's steps put into the student's run, with the controls that tell "
    "causes apart"
)
FIGURES = ("swap_matrix", "controls", "sensitivity")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_pair(parser)
    add_prompts(parser, "eight open prompts of the family")
    add_seeds(parser, range(12))
    parser.add_argument(
        "--guidance", type=finite, metavar="G", help="of the base's guided steps (default: its own)"
    )
    add_space(parser)
    add_batch_size(parser)
    add_out(parser, "swaps")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.swaps import Swaps, measure_swaps
    from xhat.analysis.result import claim

    config = Swaps(
        pair=args.pair,
        seeds=args.seeds,
        guided_scale=args.guidance,
        **space_options(args),
        batch_size=args.batch_size,
        **prompts_of(args),
    )
    out = claim(args.out, "swaps")
    finish(measure_swaps(config, cache=out / "cache"), out, FIGURES)
