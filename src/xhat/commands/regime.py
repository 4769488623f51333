"""``xhat regime``"""

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

HELP = "at which noise level a student commits, and when its base's first step gives diversity back"
FIGURES = ("regime",)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_pair(parser)
    add_prompts(parser, "twelve open prompts of the family")
    add_seeds(parser, range(16))
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        metavar="N",
        help="sides of latents whose hand-over is matched (default 8 16 32 64 96)",
    )
    add_space(parser)
    add_batch_size(parser)
    add_out(parser, "regime")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.regime import Regime, measure_regime
    from xhat.analysis.result import claim

    sides = {} if args.sides is None else {"sides": args.sides}
    config = Regime(
        pair=args.pair,
        seeds=args.seeds,
        **space_options(args),
        batch_size=args.batch_size,
        **sides,
        **prompts_of(args),
    )
    out = claim(args.out, "regime")
    finish(measure_regime(config, cache=out / "cache"), out, FIGURES)
