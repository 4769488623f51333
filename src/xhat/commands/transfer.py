"""``xhat transfer``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = (
    "do sliders work in the models they were not trained on: effect, retention, alignment, energy"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair",
        default="demo",
        help="demo (every student), or demo/STUDENT for one (default demo)",
    )
    parser.add_argument(
        "--sliders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names of shipped sliders (default: all); `xhat slider list` shows them",
    )
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="take the LoRA files of this folder, written by xhat, in place of the shipped ones",
    )
    parser.add_argument(
        "--clip",
        metavar="SOURCE",
        nargs="?",
        const="openai/clip-vit-base-patch32",
        help="read effects as CLIP scores, as the paper does, with weights in SOURCE: a folder, or "
        "a hub name in the cache; default: by the family's judge",
    )
    parser.add_argument(
        "--seeds", type=int, default=8, metavar="N", help="seeds a prompt and scale (default 8)"
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", metavar="S", help="scales (default -2 -1 0 1 2)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two seeds, scales -1 0 1: a look, not a measurement"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/transfer"),
        help="folder for results, figures and caches; a stopped run goes on there (default "
        "runs/transfer)",
    )


def run(args: argparse.Namespace) -> None:
    import json

    from xhat.analysis.experiments.transfer import study
    from xhat.analysis.experiments.transfer_data import figure_data
    from xhat.analysis.experiments.transfer_text import as_json, findings, table
    from xhat.analysis.sampling.shipped_controls import family_controls
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.probes.features import JudgeSpace, feature_space
    from xhat.zoo.pairs import load_pair

    settings = _settings(args)
    pair = load_pair(args.pair)
    students = {pair.chosen: pair.student} if "/" in args.pair else pair.students
    space = JudgeSpace(pair.base.vae)
    clip = feature_space(f"clip:{args.clip}", pair.base) if args.clip else None
    controls = family_controls(space, args.sliders, args.folder, clip)
    found = study({"base": pair.base, **students}, controls, space, args.out, settings)
    data = figure_data(found)
    lines = findings(found, data)
    for name, dataset in data.items():
        save_data(dataset, args.out, name)
    redraw(list(data), run=args.out, out=args.out / "figures")
    (args.out / "results.json").write_text(
        json.dumps(as_json(found, data, lines), indent=2, ensure_ascii=False) + "\n"
    )
    print(
        "\n".join(["", table(data["retention"]), "", *lines, "", f"figures and data: {args.out}"])
    )


def _settings(args: argparse.Namespace) -> Any:
    """How much is measured, of :class:`~xhat.analysis.experiments.transfer_bench.Settings`."""
    from xhat.analysis.experiments.transfer_bench import Settings

    if args.seeds < 2:
        raise ValueError(f"--seeds {args.seeds}: at least 2 are needed to say anything of seeds")
    if args.quick:
        return Settings(seeds=2, scales=(-1.0, 0.0, 1.0), free=4, states=2, randoms=3)
    given: dict[str, Any] = {"scales": tuple(args.scales)} if args.scales else {}
    if args.scales and not {-1.0, 1.0} <= set(args.scales):
        raise ValueError(
            f"--scales {' '.join(f'{s:g}' for s in args.scales)}: -1 and 1 must be among them"
        )
    return Settings(seeds=args.seeds, free=max(Settings.free, args.seeds), **given)
