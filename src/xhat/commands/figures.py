"""``xhat figures``"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "redraw figures from their data, without running a model"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="figures to draw (default: all whose data is there)",
    )
    parser.add_argument(
        "--from",
        dest="run_folder",
        type=Path,
        metavar="RUN",
        help="a run's folder (default: the embedded family's data, which is shipped)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for PDF and PNG (default RUN/figures, or runs/figures)"
    )
    parser.add_argument(
        "--venue",
        metavar="V",
        help="widths of icml (default), cvpr, neurips, iclr, acl, ieee, nature",
    )
    parser.add_argument(
        "--list", action="store_true", help="name the figures and say whose data is there"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.figures.kit.registry import figures, redraw

    if args.list:
        for entry in figures(args.run_folder):
            print(f"{entry.name:18}{'data' if entry.there else '—':6}{entry.title}")
        return
    out = args.out or (args.run_folder / "figures" if args.run_folder else Path("runs/figures"))
    for name, paths in redraw(args.names, run=args.run_folder, out=out, at=args.venue).items():
        print(f"{name}: {', '.join(str(path) for path in paths)}")
