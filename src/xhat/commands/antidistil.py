"""``xhat antidistil``"""

from __future__ import annotations

import argparse

from xhat.commands.options import add_out, finish
from xhat.commands.parse import above_zero, positive

HELP = "samples of the embedded base that look as good and teach less: do their students do worse"
NUMBERS = {
    "captions": (160, "captions under which students are taught"),
    "seeds": (3, "samples of each caption"),
    "steps": (150, "training steps of a student"),
    "students": (3, "students of each kind of samples"),
    "held-out": (160, "captions on which students are judged"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    for name, (default, text) in NUMBERS.items():
        parser.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar="N",
            help=f"{text} (default {default})",
        )
    parser.add_argument(
        "--weight",
        type=above_zero,
        default=0.1,
        metavar="L",
        help="how far x̂₀ is moved at each step, as a share of its size (default 0.1)",
    )
    add_out(parser, "antidistillation")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.antidistillation import (
        AntidistillationStudy,
        measure_antidistillation,
    )
    from xhat.analysis.result import claim

    config = AntidistillationStudy(
        weight=args.weight, **{n: getattr(args, n) for n in (x.replace("-", "_") for x in NUMBERS)}
    )
    out = claim(args.out, "antidistillation")
    finish(measure_antidistillation(config, cache=out / "cache"), out, ())
