"""``xhat slider train|list|apply``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.commands.parse import finite, positive, seeds

HELP = "train sliders, list those that come with the family, apply one at several scales"
_MODEL = "demo/base, a diffusers folder, or a hub name"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="train|list|apply")
    _train_arguments(
        verbs.add_parser("train", help="train a slider between two prompts, on any model")
    )
    listing = verbs.add_parser(
        "list", help="sliders and styles of the embedded family, and what they were trained on"
    )
    listing.set_defaults(verb=list_sliders)
    _apply_arguments(verbs.add_parser("apply", help="a grid: models × scales, from the same seeds"))


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a Concept Slider: a LoRA that at scale 1 moves pictures of TARGET from NEGATIVE "
        "towards POSITIVE, and "
        "at scale -1 the other way. A stopped training goes on when the same command is run again."
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=_MODEL)
    parser.add_argument(
        "--all",
        action="store_true",
        help="retrain the sliders, directions and styles of the embedded family",
    )
    parser.add_argument(
        "--target", nargs="+", metavar="P", help='what the slider is for: "a critter"'
    )
    parser.add_argument(
        "--positive", nargs="+", metavar="P", help='where scale 1 leads: "a critter with horns"'
    )
    parser.add_argument(
        "--negative", nargs="+", metavar="P", help='where scale -1 leads: "a critter with no horns"'
    )
    parser.add_argument("--rank", type=positive, metavar="R", help="rank of the LoRA (default 4)")
    parser.add_argument(
        "--eta",
        type=finite,
        metavar="E",
        help="how far scale 1 goes, in differences of the two predictions",
    )
    parser.add_argument(
        "--layers", choices=("attention", "all"), help="layers that it adapts (default attention)"
    )
    parser.add_argument("--steps", type=positive, metavar="N", help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: where the model is)")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="where to write it (default runs/slider/slider.safetensors)",
        default=Path("runs/slider/slider.safetensors"),
    )
    parser.set_defaults(verb=train)


def _apply_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", help=f"one or more: {_MODEL}")
    parser.add_argument(
        "--slider",
        required=True,
        metavar="S",
        help="name of `xhat slider list`, or a LoRA file: "
        "diffusers, PEFT or Kohya keys, .safetensors or .pt",
    )
    parser.add_argument(
        "--prompt", metavar="P", help="default: the prompt that the slider was trained for"
    )
    parser.add_argument(
        "--scales",
        type=finite,
        nargs="+",
        default=[-2, -1, 0, 1, 2],
        metavar="X",
        help="signed scales (default -2 -1 0 1 2)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=[0, 1],
        metavar="0:2",
        help="a range, or a list (default 0:2)",
    )
    parser.add_argument(
        "--hybrid", action="store_true", help="add the hybrid of the first model and the second"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/slider"), metavar="RUN", help="default runs/slider"
    )
    parser.set_defaults(verb=apply)


def run(args: argparse.Namespace) -> None:
    args.verb(args)


def train(args: argparse.Namespace) -> None:
    """``xhat slider train``"""
    from xhat.zoo.lora.recipes import slider_notes
    from xhat.zoo.lora.slider import save_lora, train_slider

    if args.all:
        train_all(args)
        return
    prompts = {name: getattr(args, name) for name in ("target", "positive", "negative")}
    missing = [f"--{name}" for name, given in prompts.items() if not given]
    if args.model is None or missing:
        wanted = ", ".join(missing) or "MODEL"
        raise ValueError(
            f"train needs {wanted}: a model and a target, a positive and a negative prompt, or "
            "--all"
        )
    pipe = _load(args.model)
    given = {name: getattr(args, name) for name in ("rank", "eta", "layers", "steps")}
    settings = {name: value for name, value in given.items() if value is not None} | {
        "seed": args.seed
    }
    state = train_slider(
        pipe, **prompts, **settings, device=args.device, run=args.to.parent / "training"
    )
    save_lora(args.to, state, slider_notes(pipe, args.model, *prompts.values(), **settings))
    print(f"slider: {args.to}\nlook at it: xhat slider apply {args.model} --slider {args.to}")


def train_all(args: argparse.Namespace) -> None:
    """Retrain what ships with the family, at the settings of its tables."""
    from xhat.zoo.lora.recipes import train_sliders
    from xhat.zoo.lora.sliderspace import train_directions
    from xhat.zoo.lora.styles import train_styles

    own = [
        name
        for name in ("model", "target", "positive", "negative", "rank", "eta", "layers", "steps")
        if getattr(args, name) is not None
    ]
    if own:
        raise ValueError(
            "--all trains what ships with the family, at its own settings: leave out "
            f"{', '.join(own)}"
        )
    runs = Path("runs/zoo")
    train_sliders(runs, seed=args.seed)
    train_directions(runs, seed=args.seed)
    train_styles(runs, seed=args.seed)


def list_sliders(args: argparse.Namespace) -> None:
    """``xhat slider list``"""
    from xhat.hooks.describe import fingerprint
    from xhat.zoo.lora.shipped import notes, shipped
    from xhat.zoo.pairs import load_model

    now: dict[str, str] = {}
    print(f"{'name':14} {'trained on':10} {'scale 1':42} {'scale -1':38} rank  steps")
    for name, path in shipped().items():
        said = notes(path)
        model = said["model"]
        if model not in now:
            now[model] = fingerprint(load_model(model))
        old = (
            ""
            if said["weights"] == now[model]
            else "  (trained on other weights than those now in place)"
        )
        found = (
            f"{said['target']}: {said['share']:.0%} of its variance"
            if "share" in said
            else said["target"]
        )
        up, down = _text(said.get("positive", found)), _text(said.get("negative", ""))
        print(f"{name:14} {model:10} {up:42} {down:38} {said['rank']:4} {said['steps']:6}{old}")


def apply(args: argparse.Namespace) -> None:
    """``xhat slider apply``"""
    from xhat.analysis.sampling.slider_grid import slider_grid
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.samplers.composite.pipeline import hybrid
    from xhat.zoo.family.judge import load_judge
    from xhat.zoo.lora.shipped import find_slider

    path, prompt = find_slider(args.slider, args.prompt)
    pipes = {name.removeprefix("demo/"): _load(name) for name in args.models}
    if args.hybrid:
        if len(pipes) < 2:
            raise ValueError(f"--hybrid is made of two models, base and student; got {len(pipes)}")
        base, student = list(pipes.values())[:2]
        pipes["hybrid"] = hybrid(base, student)
    data = slider_grid(pipes, path, prompt, args.scales, args.seeds, load_judge())
    save_data(data, args.out, "slider_grid")
    redraw(["slider_grid"], run=args.out, out=args.out / "figures")
    for model in data["model"].values:
        bad = [
            f"{s:+g}"
            for s in data["scale"].values
            if bool(data["saturated"].sel(model=model, scale=s))
        ]
        if bad:
            print(
                f"{model}: pictures saturate at scale {', '.join(bad)}: nearer to 0 they may be "
                "sound"
            )
    print(f"grid: {args.out / 'figures' / 'slider_grid.png'}")


def _text(prompts: str | list[str]) -> str:
    return prompts if isinstance(prompts, str) else ", ".join(prompts)


def _load(name: str) -> Any:
    from xhat.zoo.pairs import load_model

    return load_model(name)
