"""Images a second of a base-then-student hybrid: the loop that the paper's authors use, and
``xhat.hybrid`` in batches.

    python benchmarks/sampling.py                 # the embedded pair
    python benchmarks/sampling.py --compile       # torch.compile too: minutes of compiling first
    python benchmarks/sampling.py --quick

Their loop (arXiv 2503.10637, released code) makes one image at a time in two pipeline calls: the
base until its first step is made, then the student from these latents on; each call encodes the
prompt anew. Both arms make the same steps, which is checked by counting the rows that the networks
see, and decode their images. The second table has the options of torch on the base alone, with how
far they move the pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from table import arguments, publish, ratio, side_by_side

import xhat
from xhat.hooks.record.encode import encoded_once

PROMPTS = ("a planet", "a critter", "a face", "a robot")
Images = Callable[[], np.ndarray]


class Rows:
    """Counts the rows that networks are given."""

    def __init__(self, *networks: torch.nn.Module) -> None:
        self.count = 0
        for network in networks:
            network.register_forward_pre_hook(self._seen, with_kwargs=True)

    def _seen(self, module: Any, args: Any, kwargs: Any) -> None:
        self.count += len(args[0] if args else kwargs["sample"])

    def of(self, call: Callable[[], Any]) -> int:
        before = self.count
        call()
        return self.count - before


def one_at_a_time(pair: Any, prompts: list[str], seeds: range) -> np.ndarray:
    """The authors' loop, in the terms of diffusers' own calls."""
    timesteps = student_timesteps(pair.student)

    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return kwargs

    images = []
    for prompt in prompts:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            same = {"prompt": prompt, "generator": generator, "guidance_scale": 1.0}
            latents = pair.base(
                num_inference_steps=len(timesteps),
                output_type="latent",
                callback_on_step_end=stop,
                **same,
            ).images
            images.append(
                pair.student(
                    latents=latents, timesteps=timesteps[1:], output_type="np", **same
                ).images[0]
            )
    return np.stack(images)


def _furthest(one: np.ndarray, other: np.ndarray) -> str:
    return f"{255 * float(np.abs(one - other).max()):.3g}"


def student_timesteps(student: Any) -> list[int]:
    student.scheduler.set_timesteps(xhat.defaults(student)["num_inference_steps"])
    return [int(t) for t in student.scheduler.timesteps]


def in_batches(pipe: Any, prompts: list[str], seeds: range, batch: int, **call: Any) -> np.ndarray:
    """Prompts × seeds of any pipeline, in batches across prompts, each prompt encoded once."""
    pairs = [(p, s) for p in prompts for s in seeds]
    images = []
    with encoded_once(pipe):
        for i in range(0, len(pairs), batch):
            texts, numbers = zip(*pairs[i : i + batch], strict=True)
            generators = [torch.Generator().manual_seed(s) for s in numbers]
            images.append(pipe(list(texts), generator=generators, output_type="np", **call).images)
    return np.concatenate(images)


def rows_of(
    arms: dict[str, Images], repeats: int, count: int, wait: Callable[[], None]
) -> list[dict[str, Any]]:
    first = next(iter(arms))
    made = {name: arm() for name, arm in arms.items()}
    seconds = side_by_side(arms, repeats, wait)
    return [
        {
            "arm": name,
            "images a second": f"{count / float(np.median(seconds[name])):.2f}",
            f"speed over {first} (quartiles)": ratio(seconds[first], seconds[name]),
            "largest difference of a pixel, of 255": _furthest(made[name], made[first]),
        }
        for name in arms
    ]


def hybrids(args: argparse.Namespace, wait: Callable[[], None]) -> tuple[str, list[dict[str, Any]]]:
    pair = xhat.load_pair("demo")
    for pipe in (pair.base, pair.student):
        pipe.to(args.device)
    prompts, seeds = list(PROMPTS[: args.prompts]), range(args.seeds)
    pipe = xhat.hybrid(pair.base, pair.student, recipe="paper")
    arms: dict[str, Images] = {
        "one image at a time, two calls": lambda: one_at_a_time(pair, prompts, seeds),
        "xhat.hybrid, one at a time": lambda: in_batches(pipe, prompts, seeds, 1),
        f"xhat.hybrid, batches of {args.batch}": lambda: in_batches(
            pipe, prompts, seeds, args.batch
        ),
    }
    rows, count = Rows(pair.base.unet, pair.student.unet), len(prompts) * len(seeds)
    seen = {name: rows.of(arm) / count for name, arm in arms.items()}
    if len(set(seen.values())) > 1:
        raise SystemExit(f"the arms do not make the same number of evaluations an image: {seen}")
    steps = next(iter(seen.values()))
    caption = (
        f"{pair.name}: {count} images of {len(prompts)} prompts, {steps:g} evaluations an image"
    )
    found = rows_of(arms, args.repeats, count, wait)
    for row in found:  # the loop's generator draws on where the hybrid's begins: not the same noise
        row.pop("largest difference of a pixel, of 255")
    return caption, found


def options(args: argparse.Namespace, wait: Callable[[], None]) -> tuple[str, list[dict[str, Any]]]:
    count = args.batch * 2
    call = {**xhat.defaults(xhat.load_pair("demo").base), "num_inference_steps": args.steps}
    arms: dict[str, Images] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name in ("plain", "channels_last", *(["torch.compile"] if args.compile else [])):
            pipe = xhat.load_pair("demo").base.to(args.device)
            if name == "channels_last":
                pipe.unet.to(memory_format=torch.channels_last)
            if name == "torch.compile":
                pipe.unet = torch.compile(pipe.unet)
            arms[name] = lambda p=pipe: in_batches(
                p, ["a planet"], range(count), args.batch, **call
            )  # type: ignore[misc]
        caption = f"the base alone, {args.steps} steps with guidance, batches of {args.batch}"
        return caption, rows_of(arms, args.repeats, count, wait)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--steps", type=int, default=10, help="of the base alone, in the second table"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.seeds, args.batch, args.steps, args.repeats = 2, 2, 4, 2, 1
    from diffusers.utils import logging

    # LCM's scheduler warns at each of the loop's calls that it begins in the middle
    logging.set_verbosity_error()
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    tables = dict([hybrids(args, wait), options(args, wait)])
    bound = (
        "the network's own arithmetic: batches pay as far as they fill the processor, which one "
        "CPU core is with few "
        "samples; what is saved beside it is the second call, its encoding and its decoding."
    )
    publish(args, "sampling", "Sampling", tables, bound, args.device)


if __name__ == "__main__":
    main()
