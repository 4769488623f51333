"""Train the embedded family: ``python -m xhat.zoo.train
vae|base|dmd|lcm|turbo|paired|judge|sliders|styles``.

Each run is seeded, shows a progress line, draws sample grids, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

TRAINERS = {
    "vae": ("xhat.zoo.family.vae", "train_vae", "the autoencoder; first"),
    "base": ("xhat.zoo.family.base", "train_base", "the many-step base model; needs the vae"),
    "dmd": ("xhat.zoo.family.dmd", "train_dmd", "student by distribution matching; needs the base"),
    "lcm": ("xhat.zoo.family.lcm", "train_lcm", "student by consistency; needs the base"),
    "turbo": (
        "xhat.zoo.family.turbo",
        "train_turbo",
        "student by an adversary, mostly frozen; needs the base",
    ),
    "paired": (
        "xhat.zoo.family.paired",
        "train_paired",
        "student by regression on the base's own pairs; needs the base",
    ),
    "judge": ("xhat.zoo.family.judge", "train_judge", "the attribute judge; needs the vae"),
    "sliders": (
        "xhat.zoo.lora.shipped",
        "train_sliders",
        "sliders on the base, and some on dmd; needs both",
    ),
    "directions": (
        "xhat.zoo.lora.sliderspace",
        "train_directions",
        "sliders of the base's own directions; needs the base",
    ),
    "styles": (
        "xhat.zoo.lora.styles",
        "train_styles",
        "LoRAs of the styles kept out; needs the base",
    ),
}


def main(argv: list[str] | None = None) -> None:
    lines = "\n".join(f"  {name:8}{what}" for name, (_, _, what) in TRAINERS.items())
    parser = argparse.ArgumentParser(
        prog="python -m xhat.zoo.train",
        description=f"{__doc__}\n\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    parser.add_argument("name", choices=TRAINERS, help="what to train")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/zoo"), help="where runs are kept (default runs/zoo)"
    )
    parser.add_argument(
        "--steps", type=int, help="optimizer steps (default: those of the shipped weights)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--warm", action="store_true", help="base only: start from the shipped weights"
    )
    args = parser.parse_args(argv)
    module, function, _ = TRAINERS[args.name]
    given = {
        "steps": args.steps,
        "device": args.device if args.device != "cpu" else None,
        "warm": args.warm or None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    getattr(import_module(module), function)(args.runs, seed=args.seed, **options)


if __name__ == "__main__":
    main()
