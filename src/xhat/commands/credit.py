"""``xhat credit``"""

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

HELP = "which step decides, in one number a step: Shapley values over all patterns of the steps"
FIGURES = ("credit",)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_pair(parser)
    add_prompts(parser, "eight open prompts of the family")
    add_seeds(parser, range(12))
    add_space(parser)
    add_batch_size(parser)
    add_out(parser, "credit")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.credit import Credit, measure_credit
    from xhat.analysis.result import claim

    config = Credit(
        pair=args.pair,
        seeds=args.seeds,
        **space_options(args),
        batch_size=args.batch_size,
        **prompts_of(args),
    )
    out = claim(args.out, "credit")
    finish(measure_credit(config, cache=out / "cache"), out, FIGURES)
