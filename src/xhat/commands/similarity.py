"""``xhat similarity``"""

from __future__ import annotations

import argparse
from pathlib import Path

from xhat.commands.parse import seeds

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
        type=int,
        default=8,
        metavar="N",
        help="open prompts to use (default 8, up to 20)",
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


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.similarity import student_similarity
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair = load_pair(args.pair)
    students = [pair.chosen] if "/" in args.pair else list(pair.students)
    if not 2 <= args.prompts <= len(OPEN_PROMPTS):
        raise ValueError(
            f"--prompts is from 2 to {len(OPEN_PROMPTS)}, got {args.prompts}: intervals are over "
            "prompts"
        )
    found = student_similarity(
        pair,
        args.out,
        students=students,
        prompts=OPEN_PROMPTS[: args.prompts],
        seeds=args.seeds,
        hooks=args.hooks,
    )
    data = save_data(found, args.out, "similarity_map")
    (drawn,) = redraw(["similarity_map"], run=args.out, out=args.out / "figures").values()
    print(f"\n{found.attrs['finding']}\n\n{data}\n{drawn[0]}")
