"""Mistakes put into the source one at a time: which of them do the tests catch?

python benchmarks/mutations.py               # all, some twenty minutes on one core
python benchmarks/mutations.py --only store  # those in files whose path holds the text

Each row of mutation_list.py is one line changed in a copy of the source; the tests named there are
run on it, and one must fail. Ends with 1 where more than one survives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mutation_list import MUTATIONS, Mutation
from table import arguments, publish

ROOT = Path(__file__).parents[1]
COPIED = ("analysis", "figures", "hooks", "probes", "samplers", "src", "zoo", "pyproject.toml")
LINKED = ("tests", "benchmarks", "docs", "notebooks", "README.md", "CHANGELOG.md", "zoo/weights")


def copy_source(to: Path) -> None:
    """The source, with its links; what no mutation changes is linked, not copied."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            away = shutil.ignore_patterns("weights", "__pycache__")
            shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=away)
        else:
            shutil.copy(ROOT / name, to / name)
    for name in LINKED:
        (to / name).symlink_to(ROOT / name)


def mutated(root: Path, mutation: Mutation) -> bool:
    """Whether the tests pass all the same. Raises SystemExit where the line is not there, once."""
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.file}: expected {mutation.old!r} once, found it {text.count(mutation.old)} "
            "times: bring benchmarks/mutation_list.py up to date"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        return passes(root, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")


def passes(root: Path, tests: tuple[str, ...]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    here = {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=root, env=os.environ | here, capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(tests)} could not be run:\n{run.stdout}{run.stderr}")
    return run.returncode == 0


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="in the path of the file")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if args.only in m.file]
    if args.quick:
        chosen = chosen[:2]
    if args.list:
        print("\n".join(f"{m.file}: {m.old.strip()}  →  {m.new.strip()}" for m in chosen))
        return 0
    rows, survived = [], 0
    with TemporaryDirectory() as folder:
        root = Path(folder)
        copy_source(root)
        for mutation in chosen:
            alive = mutated(root, mutation)
            survived += alive
            row = {
                "file": mutation.file,
                "what stood there": f"`{_line(mutation.old)}`",
                "what stands there": f"`{_line(mutation.new)}`",
                "": "SURVIVED" if alive else "caught",
            }
            rows.append(row)
            print(" | ".join(row.values()), flush=True)
    caption = f"{len(rows) - survived} of {len(rows)} are caught by the tests named for them"
    if not args.only:
        publish(args, "mutations", "Mutations", {caption: rows}, "the tests' own time")
    return int(survived > 1)


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
