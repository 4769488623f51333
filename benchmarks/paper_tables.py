"""The paper's diversity tables (2, D.1, E.1) measured anew on the published models, where their
weights are present.

Nothing is downloaded: a table whose models or encoder are not in the local Hugging Face cache is
left out, and what it lacks is named. Prompts, seeds and measure are the paper's (arXiv 2503.10637):
100 seeds a prompt, mean pairwise DreamSim distance; the base at its published guidance, in the
hybrid without. Table 1 (sliders) is `xhat transfer`'s; Table 3 (FID over COCO-30k) needs the COCO
pictures and is not made here.

    python benchmarks/paper_tables.py --seeds 100 --out runs/paper
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.zoo.load.catalogue import find_published

PROMPTS = ("sunset beach", "cute puppy", "futuristic city", "person", "Van Gogh art")
CAR = ("image of a car",)
PAIRS = {
    "2": (("sdxl/dmd2",), PROMPTS),
    "D.1": (("pixart/delta", "sd21/turbo"), CAR),
    "E.1": (("sdxl/dmd2",), PROMPTS),
}
"""Table → the pairs it needs, and its prompts, as the paper names them."""


def missing(pair: str) -> list[str]:
    """What of a published pair is not in the local cache: repository and file."""
    from xhat.zoo.load.hub import cached

    entry = find_published(pair)
    wanted = ((entry.base.repo, None), (entry.repo, entry.file))
    return [f"{repo} {file or ''}".strip() for repo, file in wanted if not cached(repo, file)]


def plans(table: str, base: Any, student: Any) -> dict[str, Any]:
    """The arms of a table, as plans on the student's schedule; the base itself is an arm of its
    own.
    """
    from xhat.samplers.plans.build import swap_plan, whole
    from xhat.samplers.plans.defaults import default_steps
    from xhat.samplers.plans.recipe import hybrid_plan

    found = {"student": whole("student", student), "hybrid": hybrid_plan(base, student, "paper")}
    if table == "E.1":
        found["only later steps replaced"] = swap_plan(
            base, student, range(1, default_steps(student))
        )
    return found


def measure(
    table: str, pair_name: str, prompts: tuple[str, ...], seeds: int, out: Path, device: str
) -> Path:
    """Measure the arms of a table on one pair, and keep them as CSV: arm, prompt, distance,
    seconds.
    """
    import torch

    from xhat.analysis.sampling.arms import Arm, measure_arms
    from xhat.probes.features import feature_space
    from xhat.samplers.composite.pipeline import hybrid
    from xhat.zoo.pairs import load_pair

    pair = load_pair(pair_name, dtype=torch.float16 if device == "cuda" else None)
    base, student = pair.base.to(device), pair.student.to(device)
    arms = {"base": Arm(base)}
    arms |= {
        name: Arm(hybrid(base, student, plan=plan))
        for name, plan in plans(table, base, student).items()
    }
    stem = f"table_{table.replace('.', '')}_{pair_name.replace('/', '_')}"
    found = measure_arms(
        arms,
        prompts,
        range(seeds),
        space=feature_space("dreamsim", base),
        cache=out / stem,
        batch_size=1,
    )
    frame = found[["mean_pairwise_distance", "seconds"]].to_dataframe().reset_index()
    frame["source"] = f"published weights ({pair_name}), measured here"
    path = out / f"{stem}.csv"
    frame.to_csv(path, index=False)
    return path


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"{', '.join(PAIRS)} (default: all)"
    )
    parser.add_argument(
        "--seeds", type=int, default=100, help="seeds a prompt (default 100, the paper's)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    for table in args.tables or PAIRS:
        if table not in PAIRS:
            parser.error(f"no table {table!r}; there are {', '.join(PAIRS)}")
        pairs, prompts = PAIRS[table]
        for pair in pairs:
            if lacking := missing(pair):
                print(f"Table {table}, {pair}: not in the local cache: {'; '.join(lacking)}")
                continue
            try:
                print(
                    f"Table {table}, {pair}: "
                    f"{measure(table, pair, prompts, args.seeds, args.out, device)}"
                )
            except ValueError as error:  # the encoder's weights, say
                print(f"Table {table}, {pair}: {error}")


if __name__ == "__main__":
    main()
