"""``xhat explore``"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the seed wall: every seed of every model at one noise level, in a page that opens offline"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_folder",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="a folder of `xhat demo` or `xhat probe` (default: the embedded family's data, "
        "which is shipped)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write, with blind.html beside it (default RUN/explore.html, or explore.html)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.figures.report.wall import write_wall

    default = Path("explore.html")
    folder = args.run_folder
    out = args.out or (default if folder is None else folder / default)
    page, *blind = write_wall(folder, out)
    print(f"seed wall: {page}")
    for path in blind:
        print(f"which set varies more, without names: {path}")
