"""``xhat patch``"""

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

HELP = (
    "the base's activations of step one put into the student, layer by layer: how much diversity "
    "comes with them"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_pair(parser)
    add_prompts(parser, "eight open prompts of the family")
    add_seeds(parser, range(16))
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="POINT",
        help="points, globs or paths (default: every residual block and attention)",
    )
    add_space(parser)
    add_batch_size(parser, 48)
    add_out(parser, "patch")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.patch import Patching, measure_patching
    from xhat.analysis.result import claim

    config = Patching(
        pair=args.pair,
        seeds=args.seeds,
        layers=args.layers,
        **space_options(args),
        batch_size=args.batch_size,
        **prompts_of(args),
    )
    out = claim(args.out, "patch")
    finish(measure_patching(config, cache=out / "cache"), out, ["patching"])
