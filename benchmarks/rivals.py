"""Time and memory of every way to more diversity, in one run.

    python benchmarks/rivals.py                     # the embedded pair
    python benchmarks/rivals.py --pair demo/lcm
    python benchmarks/rivals.py --quick

One call makes a set of pictures of one prompt. Each method's pipeline is made anew in each call, so
that what it prepares is in it; all are called in turns, and a ratio is of two times of one round.
Pictures are not decoded, but by a method that needs to see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from table import Row, arguments, mib, peak_above, publish, ratio, side_by_side

import xhat
from xhat.hooks.points.taps import quiet
from xhat.samplers.rivals.registry import RIVALS, InapplicableRival, rival

PROMPT, BATCH = "a planet", 8
QUICK = ("student", "hybrid", "embedding_noise")


def call(name: str, pair: Any, batch: int) -> Callable[[], Any]:
    """A function that makes ``batch`` pictures by a method, and gives its pipeline."""

    def made() -> Any:
        pipe = rival(name, pair)
        with quiet(pipe):
            pipe(
                PROMPT,
                num_images_per_prompt=batch,
                generator=[torch.Generator().manual_seed(seed) for seed in range(batch)],
                output_type="latent",
                **xhat.defaults(pipe),
            )
        return pipe

    return made


def applicable(names: Sequence[str], pair: Any, batch: int) -> dict[str, Callable[[], Any]]:
    """Name → call of the methods that change something of this pair's pictures."""
    calls = {}
    for name in names:
        try:
            rival(name, pair)
        except InapplicableRival:
            continue
        calls[name] = call(name, pair, batch)
    return calls


def measure(pair: Any, names: Sequence[str], batch: int, repeats: int) -> list[Row]:
    """A row a method, the student first."""
    calls = applicable(names, pair, batch)
    evaluations = {name: made().scheduler.run.evaluations for name, made in calls.items()}
    memory = {name: peak_above(made) for name, made in calls.items()}
    seconds = side_by_side(calls, repeats)
    return [
        {
            "method": name,
            "evaluations a picture": f"{evaluations[name]:g}",
            "ms a picture": f"{1e3 * sorted(seconds[name])[repeats // 2] / batch:.1f}",
            "time over the student's (quartiles)": ratio(seconds[name], seconds["student"]),
            "peak memory above rest, MiB": mib(memory[name]),
        }
        for name in calls
    ]


def bound(rows: list[Row]) -> str:
    """Which method takes most time for each of its evaluations."""
    key = "time over the student's (quartiles)"
    own = float(rows[0]["evaluations a picture"])
    each = {
        row["method"]: row[key].median * own / float(row["evaluations a picture"]) for row in rows
    }
    worst = max(each, key=lambda name: each[name])
    return (
        "evaluations of the network. Counted in the student's time for one evaluation, each of "
        f"{worst} takes {each[worst]:.2f}, the most of all."
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pair", default="demo", help="embedded pair (default demo)")
    parser.add_argument("--batch", type=int, default=BATCH, help="pictures a call (default 8)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    args = parser.parse_args()
    others = [name for name in RIVALS if name != "student"]
    names = QUICK if args.quick else ("student", *others)
    batch, repeats = (2, 1) if args.quick else (args.batch, args.repeats)
    rows = measure(xhat.load_pair(args.pair), names, batch, repeats)
    caption = f"{args.pair}, {batch} pictures of one prompt, {repeats} round{'s' * (repeats != 1)}"
    publish(args, "rivals", "Ways to more diversity", {caption: rows}, bound(rows))


if __name__ == "__main__":
    main()
