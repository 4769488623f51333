"""Every benchmark in turn, each in a process of its own, and the page that holds their tables.

python benchmarks/run.py                    # all: an hour on an idle machine
python benchmarks/run.py tracing memory     # some
python benchmarks/run.py --page             # only the page, of the tables that are there
python benchmarks/run.py --quick            # small sizes, to see that all of them run; writes
nothing
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from table import RESULTS

HERE = Path(__file__).parent
BENCHMARKS = (
    "tracing",
    "sampling",
    "hybrid",
    "rivals",
    "memory",
    "storage",
    "similarity",
    "recipe",
    "coverage",
    "misreading",
    "corruption",
    "mutations",
)
HEAD = """# Benchmarks

Made by `python benchmarks/run.py`, which runs each script and joins their tables; no number is
typed in. Peers run in the same process as what they are compared with, in turns, after it was
checked that they give the same numbers. A ratio is that of two times of the same round; its
quartiles over rounds stand beside it.
"""


def page() -> str:
    """The text of README.md: the tables that are there, and the names of those that are not."""
    files = [RESULTS / f"{n}{device}.md" for n in BENCHMARKS for device in ("", "-cuda")]
    there = [file for file in files if file.exists()]
    missing = [name for name in BENCHMARKS if not (RESULTS / f"{name}.md").exists()]
    parts = [HEAD, *(file.read_text() for file in there)]
    if missing:
        parts.append(
            "Not measured yet: "
            + ", ".join(f"`python benchmarks/run.py {name}`" for name in missing)
            + ".\n"
        )
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument(
        "--page", action="store_true", help="write README.md of the tables that are there"
    )
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is named {unknown[0]!r}: there are {', '.join(BENCHMARKS)}")
    failed = []
    for name in [] if args.page else args.names or BENCHMARKS:
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if args.quick else [])]
        if subprocess.run(command).returncode:
            failed.append(name)
    if not args.quick:
        (HERE / "README.md").write_text(page())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
