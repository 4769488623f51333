"""``xhat tables``"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = (
    "the paper's Tables 1–3, D.1 and E.1 as LaTeX and CSV: this project's numbers beside the "
    "published ones"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="TABLE", help="1, 2, 3, D.1, E.1 (default: all)"
    )
    parser.add_argument(
        "--from",
        dest="runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of demo, "
        "swaps and transfer (default: the embedded family's data, which is shipped)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tables"), help="folder (default runs/tables)"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.figures.report.tables import tables, write_tables

    paths = write_tables(args.out, args.runs, args.names)
    for name, table in tables(args.runs).items():
        if table.missing and (not args.names or name in args.names):
            print(f"Table {name}: {table.missing}")
    print("\n".join(str(path) for path in paths))
