"""``xhat transfer``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.commands.parse import finite, positive

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
        "--seeds",
        type=positive,
        default=8,
        metavar="N",
        help="seeds a prompt and scale (default 8)",
    )
    parser.add_argument(
        "--scales", type=finite, nargs="+", metavar="S", help="scales (default -2 -1 0 1 2)"
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
    from xhat.analysis.experiments.setting import students_alike
    from xhat.analysis.experiments.transfer import Transfer, measure_transfer
    from xhat.analysis.result import claim
    from xhat.analysis.sampling.shipped_controls import family_controls
    from xhat.figures.kit.registry import redraw
    from xhat.probes.features import JudgeSpace, feature_space
    from xhat.zoo.pairs import load_pair

    extent, out = _extent(args), claim(args.out, "transfer")
    pair = load_pair(args.pair)
    names = [pair.chosen] if "/" in args.pair else students_alike(pair)
    students = {name: pair.students[name] for name in names}
    space = JudgeSpace(pair.base.vae)
    clip = feature_space(f"clip:{args.clip}", pair.base) if args.clip else None
    config = Transfer(
        models={"base": pair.base, **students},
        controls=family_controls(space, args.sliders, args.folder, clip),
        space=space,
        extent=extent,
    )
    result = measure_transfer(config, cache=out / "cache")
    result.save(out)
    redraw([name for name in result.data if name != "twins"], run=out, out=out / "figures")
    print(f"\n{result}\n\nresults and figures: {out}")


def _extent(args: argparse.Namespace) -> Any:
    """How much is measured, an :class:`~xhat.analysis.sampling.control_jobs.Extent`."""
    from xhat.analysis.sampling.control_jobs import Extent

    if args.quick:
        return Extent(seeds=2, scales=(-1.0, 0.0, 1.0), free=4, states=2, randoms=3)
    scales = tuple(args.scales) if args.scales else Extent.scales
    return Extent(seeds=args.seeds, free=max(Extent.free, args.seeds), scales=scales)
