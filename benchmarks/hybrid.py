"""What the machinery of a hybrid costs: the time of its denoising over its models' own forward
passes.

    python benchmarks/hybrid.py                     # the embedded pair
    python benchmarks/hybrid.py --pair demo/lcm
    python benchmarks/hybrid.py --quick

Its networks are called alone on the very inputs that they had in the hybrid's call, in turns with
it. The plain student at as many evaluations is measured in the same way beside it: what a diffusers
pipeline costs above its forward passes is in both. Encoding the prompt is left out of both,
measured by itself; pictures are not decoded. The goal is 1.03."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from table import Row, arguments, publish, ratio, side_by_side

import xhat
from xhat.hooks.points.taps import quiet

GOAL = 1.03
OWN, PLAIN = "hybrid / its forward passes (quartiles)", "student / its forward passes"


def forwards(networks: Any, call: Callable[[], Any]) -> Callable[[], None]:
    """A function that makes every forward pass of ``call()`` again: the same networks on the same
    arguments.
    """
    found: list[Callable[[], Any]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(lambda: module(*args, **kwargs))

    handles = [network.register_forward_pre_hook(note, with_kwargs=True) for network in networks]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()

    def again() -> None:
        for one in found:
            one()

    return again


@torch.no_grad()
def measure(pair: Any, batch: int, repeats: int) -> Row:
    """A row of the table: ratios of the times of each round."""
    hybrid = xhat.hybrid(pair.base, pair.student)
    shared = {"num_images_per_prompt": batch, "output_type": "latent"}

    def call(pipe: Any) -> Callable[[], Any]:
        own = xhat.defaults(pipe)
        return lambda: pipe("a planet", generator=torch.Generator().manual_seed(0), **shared, **own)

    with quiet(hybrid), quiet(pair.student):
        ways = {"hybrid": call(hybrid), "student": call(pair.student)}
        ways["passes"] = forwards(hybrid.unet.networks(), ways["hybrid"])
        ways["student's passes"] = forwards([pair.student.unet], ways["student"])
        ways["encoding"] = lambda: pair.base.encode_prompt("a planet", "cpu", batch, False)
        seconds = side_by_side(ways, repeats)
    encoding = seconds["encoding"]
    return {
        "batch": batch,
        "ms of its forward passes": f"{1e3 * sorted(seconds['passes'])[repeats // 2]:.1f}",
        OWN: ratio(seconds["hybrid"] - encoding, seconds["passes"]),
        PLAIN: ratio(seconds["student"] - encoding, seconds["student's passes"]),
        "hybrid / student": ratio(seconds["hybrid"], seconds["student"]),
    }


def bound(rows: list[Row]) -> str:
    worst = max(rows, key=lambda row: row[OWN].median)
    return (
        "some milliseconds a call, whatever the network and the batch. The largest ratio, at a "
        "batch of "
        f"{worst['batch']}, is {worst[OWN].median:.3f} where the plain student's is "
        f"{worst[PLAIN].median:.3f}; "
        f"the goal is {GOAL:g}."
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pair", default="demo", help="embedded pair (default demo)")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8, 24], help="pictures a call (default 1 8 24)"
    )
    parser.add_argument("--repeats", type=int, default=40, help="rounds (default 40)")
    args = parser.parse_args()
    batches, repeats = ([4], 3) if args.quick else (args.batch, args.repeats)
    pair = xhat.load_pair(args.pair)
    rows = [measure(pair, batch, repeats) for batch in batches]
    publish(
        args, "hybrid", "What a hybrid costs", {f"{args.pair}, {repeats} rounds": rows}, bound(rows)
    )


if __name__ == "__main__":
    main()
