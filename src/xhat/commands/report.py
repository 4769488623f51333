"""``xhat report``"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write the report of a run: one HTML file that opens offline"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="run_folder",
        type=Path,
        metavar="RUN",
        help="a run's folder (default: the embedded family's data, which is shipped)",
    )
    parser.add_argument(
        "--out", type=Path, help="file to write (default RUN/report.html, or report.html)"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.figures.report.page import write_report

    print(f"report: {write_report(args.run_folder, args.out)}")
