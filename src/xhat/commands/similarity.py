"""``xhat similarity``"""

from __future__ import annotations

import argparse
from pathlib import Path

from xhat.commands.parse import positive, prompts, seeds

HELP = "where, along depth and noise, students' representations leave the base's"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair",
        default="demo",
        help="embedded pair (default demo: every student of it); demo/<student> for one",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/similarity"), help="folder (default runs/similarity)"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["8"],
        metavar="P",
        help="two or more prompts, or a number: the first so many of the family's open prompts "
        "(default 8)",
    )
    parser.add_argument(
        "--seeds", type=seeds, default=range(16), metavar="0:16", help="seeds (default 0:16)"
    )
    parser.add_argument(
        "--hooks",
        nargs="*",
        default=[],
        metavar="POINT",
        help="points to compare (default: blocks and attentions "
        "along the depth). `xhat points MODEL` lists them",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=16,
        metavar="B",
        help="samples at a time (default 16)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.similarity import Similarity, measure_similarity
    from xhat.analysis.result import claim
    from xhat.figures.kit.registry import redraw
    from xhat.zoo.family.attributes import OPEN_PROMPTS

    config = Similarity(
        pair=args.pair,
        students=[args.pair.partition("/")[2]] if "/" in args.pair else (),
        prompts=prompts(args.prompts, OPEN_PROMPTS),
        seeds=args.seeds,
        hooks=args.hooks,
        batch_size=args.batch_size,
    )
    result = measure_similarity(config, cache=claim(args.out, "similarity"))
    result.save(args.out)
    redraw(["similarity_map"], run=args.out, out=args.out / "figures")
    print(f"\n{result}\n\nresults and figures: {args.out}")
