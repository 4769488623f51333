"""Train the embedded family: ``python -m xhat.zoo.train NAME``.

Each run is seeded, shows a progress line, draws sample grids, and goes on where it was stopped. The
students stay under ``--runs`` until ``--ship`` copies them into the package."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

STUDENTS = {
    "turbo": "an adversary and the base's guided x̂₀, six in seven parameters frozen (ADD)",
    "dmd": "distribution matching and an adversary (DMD2)",
    "dmd-even": "dmd with the base's own guidance, the control that covers modes",
    "lcm": "consistency along the base's guided trajectories (LCM)",
    "lightning": "the base's guided trajectories in four steps, and an adversary (SDXL-Lightning)",
    "em": "maximum likelihood by Langevin steps (EM distillation)",
    "pruned": "fewer layers, matched to dmd's layer by layer; needs dmd",
}
"""Students of the base, by their trainers."""

TRAINERS = {
    "vae": ("xhat.zoo.family.vae", "train_vae", "the autoencoder; first"),
    "base": ("xhat.zoo.family.base", "train_base", "the many-step base model; needs the vae"),
    **{
        name: (
            f"xhat.zoo.family.{name.partition('-')[0]}",
            f"train_{name.replace('-', '_')}",
            f"student: {what}",
        )
        for name, what in STUDENTS.items()
    },
    "judge": ("xhat.zoo.family.judge", "train_judge", "the attribute judge; needs the vae"),
    "sliders": (
        "xhat.zoo.lora.recipes",
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


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    lines = "\n".join(f"  {name:11}{what}" for name, (_, _, what) in TRAINERS.items())
    options = argparse.ArgumentParser(
        prog="python -m xhat.zoo.train",
        description=f"{__doc__}\n\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("name", choices=TRAINERS, help="what to train")
    options.add_argument(
        "--runs", type=Path, default=Path("runs/zoo"), help="where runs are kept (default runs/zoo)"
    )
    options.add_argument(
        "--steps", type=int, help="optimizer steps (default: those of the shipped weights)"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="of the training; with 1, turbo is kept as turbo-2"
    )
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument(
        "--warm", action="store_true", help="base only: start from the shipped weights"
    )
    options.add_argument(
        "--ship", action="store_true", help="students only: copy the result into the package"
    )
    return options


def main(argv: list[str] | None = None) -> None:
    import diffusers
    import torch

    torch.set_float32_matmul_precision("high")  # a GPU's faster products
    diffusers.utils.logging.set_verbosity_error()
    options = parser()
    args = options.parse_args(argv)
    if args.warm and args.name != "base":
        options.error(f"--warm is for base alone, not {args.name}")
    if args.ship and args.name not in STUDENTS:
        options.error(f"--ship is for a student ({', '.join(STUDENTS)}), not {args.name}")
    module, function, _ = TRAINERS[args.name]
    given = {
        "steps": args.steps,
        "device": args.device if args.device != "cpu" else None,
        "warm": args.warm or None,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    pipeline = getattr(import_module(module), function)(args.runs, seed=args.seed, **settings)
    if args.ship:
        from xhat.zoo.family.distil import ship

        print(f"copied to {ship(pipeline.parent)}")


if __name__ == "__main__":
    main()
