"""The command line. Each command is a thin client of the public functions."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """Where a distilled diffusion model loses the diversity of its base, and how to give it back.

MODEL is an embedded name (demo/base, demo/dmd, …), a diffusers folder, or a hub name."""

EXAMPLES = """examples:
  xhat demo                                  trace the embedded pair, print the table, write the report
  xhat models                                the embedded family
  xhat points demo/base                      what can be hooked
  xhat trace demo/dmd --prompts "a planet" "a critter" --seeds 0:64 --hooks h "up.*" --store runs/dmd.zarr
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. A user's mistake is one line on stderr and status 2."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors that are not used
    try:
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f"xhat: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xhat: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="xhat", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the main job on the embedded pair: trace, compare, report")
    demo.add_argument("--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for results (default runs/demo)")
    demo.add_argument("--quick", action="store_true", help="four prompts × eight seeds, under a minute")
    demo.set_defaults(run=_demo)

    models = commands.add_parser("models", help="list the embedded family")
    models.set_defaults(run=_models)

    points = commands.add_parser("points", help="list the hook points of a model")
    points.add_argument("model", metavar="MODEL", help="demo/base, a diffusers folder, or a hub name")
    points.set_defaults(run=_points)

    trace = commands.add_parser("trace", help="sample prompts × seeds and keep x̂₀ and readings of every step")
    trace.add_argument("model", metavar="MODEL", help="demo/base, a diffusers folder, or a hub name")
    trace.add_argument("--prompts", nargs="+", required=True, metavar="P", help="one or more prompts")
    trace.add_argument(
        "--seeds", type=_range, default=range(8), metavar="0:64", help="a range, or a list 1,2,5 (default 0:8)"
    )
    trace.add_argument("--steps", type=int, metavar="N", help="inference steps (default: the checkpoint's own)")
    trace.add_argument("--guidance", type=float, metavar="G", help="guidance scale (default: the checkpoint's own)")
    trace.add_argument(
        "--hooks", nargs="*", default=[], metavar="POINT[=REDUCTION]",
        help='points by alias, glob or path, e.g. h, "up.*=project(256)"; reductions: mean, pool(n), project(dim), '
        "full, gram (default mean). `xhat points MODEL` lists them",
    )  # fmt: skip
    trace.add_argument("--batch-size", type=int, default=8, metavar="B", help="samples at a time (default 8)")
    trace.add_argument(
        "--store", type=Path, required=True, metavar="PATH", help="Zarr store; a stopped run goes on there"
    )
    trace.set_defaults(run=_trace)
    return parser


def _range(text: str) -> list[int]:
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            return list(range(start, stop))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds; expected 0:64 or 1,2,5") from None


def _demo(args: argparse.Namespace) -> None:
    from xhat.analysis.demo import demo
    from xhat.figures.report import draw_figures, write_report
    from xhat.zoo.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair = load_pair(args.pair)
    sizes: dict[str, Any] = {"prompts": OPEN_PROMPTS[:4], "seeds": range(8)} if args.quick else {}
    args.out.mkdir(parents=True, exist_ok=True)
    result = demo(pair, args.out, **sizes)
    pngs = draw_figures(result, pair.base.vae, args.out / "figures")
    write_report(result, pair.base.vae, pngs, args.out / "report.html")
    print(f"\n{result.table()}\n\nreport: {args.out / 'report.html'}")


def _models(args: argparse.Namespace) -> None:
    from xhat import zoo

    zoo.list()


def _points(args: argparse.Namespace) -> None:
    from xhat.hooks.points import points
    from xhat.zoo.pairs import load_model

    print(points(load_model(args.model)))


def _trace(args: argparse.Namespace) -> None:
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
