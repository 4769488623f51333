"""``xhat trace``"""

from __future__ import annotations

import argparse
from pathlib import Path

from xhat.commands.parse import seeds

HELP = "sample prompts × seeds and keep x̂₀ and readings of every step"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="demo/base, a diffusers folder, or a hub name")
    parser.add_argument("--prompts", nargs="+", required=True, metavar="P", help="one or more prompts")
    parser.add_argument(
        "--seeds", type=seeds, default=range(8), metavar="0:64", help="a range, or a list 1,2,5 (default 0:8)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="inference steps (default: the checkpoint's own)")
    parser.add_argument("--guidance", type=float, metavar="G", help="guidance scale (default: the checkpoint's own)")
    parser.add_argument(
        "--hooks", nargs="*", default=[], metavar="POINT[=REDUCTION]",
        help='points by alias, glob or path, e.g. h, "up.*=project(256)"; reductions: mean, pool(n), project(dim), '
        "full, gram (default mean). `xhat points MODEL` lists them",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=8, metavar="B", help="samples at a time (default 8)")
    parser.add_argument(
        "--store", type=Path, required=True, metavar="PATH", help="Zarr store; a stopped run goes on there"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.hooks.trace import trace
    from xhat.zoo.pairs import load_model

    hooks = dict(part.split("=", 1) if "=" in part else (part, "mean") for part in args.hooks)
    call = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    given = {name: value for name, value in call.items() if value is not None}
    pipe = load_model(args.model)
    tree = trace(
        pipe, args.prompts, seeds=args.seeds, hooks=hooks, store=args.store, batch_size=args.batch_size, **given
    )
    print(tree)
