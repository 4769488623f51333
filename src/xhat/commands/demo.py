"""``xhat demo``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "the main job on the embedded pair: trace, compare, report"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder for results (default runs/demo)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="four prompts × eight seeds, under a minute"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.collapse import demo
    from xhat.figures.kit.registry import redraw
    from xhat.figures.report.collect import save_demo_data
    from xhat.figures.report.page import write_report
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair = load_pair(args.pair)
    sizes: dict[str, Any] = {"prompts": OPEN_PROMPTS[:4], "seeds": range(8)} if args.quick else {}
    args.out.mkdir(parents=True, exist_ok=True)
    result = demo(pair, args.out, **sizes)
    save_demo_data(result, pair, args.out)
    redraw(run=args.out, out=args.out / "figures")
    report = write_report(args.out)
    print(f"\n{result.table()}\n\nreport: {report}")
