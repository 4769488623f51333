"""``xhat readout``"""

from __future__ import annotations

import argparse
from pathlib import Path

from xhat.commands.parse import positive, prompts, seeds

HELP = (
    "when an attribute of the final picture can be read: linear probes at every layer and noise "
    "level"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["20"],
        metavar="P",
        help="prompts, or a number: the first so many of the family's open prompts (default 20)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=range(40),
        metavar="0:40",
        help="a range, or a list 1,2,5: half of them teach, half are read (default 0:40)",
    )
    parser.add_argument(
        "--layer", default="h", metavar="POINT", help="the layer that is drawn (default h)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=24,
        metavar="B",
        help="samples at a time (default 24)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/readout"),
        metavar="RUN",
        help="folder for traces, results and figure; the same command goes on there (default "
        "runs/readout)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.readout import Readout, measure_readout
    from xhat.analysis.result import claim
    from xhat.figures.kit.registry import redraw
    from xhat.zoo.family.attributes import OPEN_PROMPTS

    config = Readout(
        pair=args.pair,
        prompts=prompts(args.prompts, OPEN_PROMPTS),
        seeds=args.seeds,
        layer=args.layer,
        batch_size=args.batch_size,
    )
    result = measure_readout(config, cache=claim(args.out, "readout"))
    result.save(args.out)
    redraw(["probe_curves"], run=args.out, out=args.out / "figures")
    print(f"\n{result}\n\nresults and figures: {args.out}")
