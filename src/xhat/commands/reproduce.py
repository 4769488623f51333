"""``xhat reproduce``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_reference,
    add_seeds,
    finish,
    space_options,
)

HELP = "the paper's tables on its own pairs with its own settings, beside what it prints"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}: 50 steps, 100 seeds, five prompts, DreamSim. --dry-run says what is missing and "
        "what it takes. A run that was stopped goes on when the same command is given again."
    )
    parser.add_argument(
        "--pair",
        default="sdxl/dmd2",
        metavar="PAIR",
        help="a published pair (default sdxl/dmd2), or one of the embedded family",
    )
    parser.add_argument("--base", metavar="PATH", help="its base, where it lies elsewhere")
    parser.add_argument("--student", metavar="PATH", help="its student, where it lies elsewhere")
    parser.add_argument(
        "--table",
        choices=("diversity", "swap", "cost", "transfer", "all"),
        default="all",
        help="which (default all; transfer only with --controls)",
    )
    parser.add_argument(
        "--controls", type=Path, metavar="DIR", help="LoRA files and controls.json, for transfer"
    )
    parser.add_argument("--suite", default="paper", metavar="NAME", help="prompts (default paper)")
    parser.add_argument(
        "--space", default="dreamsim", metavar="S", help="where pictures are compared"
    )
    parser.add_argument("--scores", nargs="+", metavar="SCORE", help="as in xhat swaps")
    add_reference(parser)
    parser.add_argument("--clip", metavar="PATH", help="the CLIP that reads controls")
    parser.add_argument("--base-steps", type=int, metavar="N", help="of the base (default 50)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda:0 … (default cpu)")
    parser.add_argument(
        "--share",
        metavar="I/N",
        help="sample the I-th of N parts of the prompts and stop: one process a GPU, all with the "
        "same --out; then the command without --share",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is missing, and time, disk and memory"
    )
    add_seeds(parser, range(100))
    add_batch_size(parser, 4)
    add_out(parser, "reproduce")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.reproduce import ARMS, Reproduction, reproduce, share
    from xhat.analysis.experiments.reproduce_plan import readiness
    from xhat.analysis.result import claim
    from xhat.zoo.suites import load_suite

    tables = [args.table]
    if args.table == "all":
        tables = [*ARMS, *(["transfer"] if args.controls else [])]
    config = Reproduction(
        pair=pair_of(args),
        prompts=load_suite(args.suite).prompts,
        seeds=args.seeds,
        **space_options(args),
        batch_size=args.batch_size,
        tables=tables,
        controls=args.controls,
        clip=args.clip,
    )
    if args.dry_run:
        print(readiness(config, cache=args.out / "cache" if args.out.is_dir() else None).text())
        return
    out = claim(args.out, "reproduce")
    if args.share:
        part, parts = share_of(args.share)
        count = share(config, part, parts, cache=out / "cache")
        print(f"{count} prompts sampled")
        return
    finish(reproduce(config, cache=out / "cache"), out, [])


def share_of(text: str) -> tuple[int, int]:
    """``2/4`` → (1, 4).

    >>> share_of("2/4")
    (1, 4)
    """
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit()) or not 1 <= int(part) <= int(parts):
        raise ValueError(f"--share {text!r}: expected I/N, I from 1 to N")
    return int(part) - 1, int(parts)


def pair_of(args: argparse.Namespace) -> Any:
    """The pair, each model from where it was said to lie, on the device."""
    import torch

    from xhat.hooks.model import set_defaults
    from xhat.zoo.load.checkpoints import load_checkpoint
    from xhat.zoo.pairs import Pair, load_pair

    dtype = getattr(torch, args.dtype)
    named = load_pair(args.pair, dtype=dtype)

    def base(pair: Any) -> Any:
        pipe = load_checkpoint(args.base, dtype=dtype) if args.base else named.base
        if args.base and named.defaults["base"]:
            set_defaults(pipe, **named.defaults["base"])
        if args.base_steps:
            set_defaults(pipe, num_inference_steps=args.base_steps)
        return pipe.to(args.device)

    def student(pair: Any) -> Any:
        if args.student is None:
            if args.base:
                raise ValueError("--base without --student: give the student's file or folder too")
            return named.student.to(args.device)
        return load_checkpoint(args.student, pair.base, like=args.pair, dtype=dtype).to(args.device)

    return Pair(named.name, {"base": base, named.chosen: student}, named.chosen, named.defaults)
