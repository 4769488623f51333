"""Options that several commands share, each declared once, and what every experiment ends with."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xhat.commands.parse import positive, prompts, prompts_in, seeds

if TYPE_CHECKING:
    from xhat.analysis.result import Result


def add_pair(parser: argparse.ArgumentParser) -> None:
    """``--pair``"""
    parser.add_argument(
        "--pair",
        default="demo",
        metavar="PAIR",
        help="demo, demo/<student>, or a published pair: `xhat models` lists them (default demo)",
    )


def add_prompts(parser: argparse.ArgumentParser, default: str) -> None:
    """``--prompts`` and ``--prompts-file``, one of which is given; ``default`` in words."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--prompts",
        nargs="+",
        metavar="TEXT",
        help="prompts, as texts, or one number: so many of the family's open prompts "
        f"(default: {default})",
    )
    either.add_argument(
        "--prompts-file", type=Path, metavar="FILE", help="a text file with a prompt a line"
    )


def prompts_of(args: argparse.Namespace) -> dict[str, Any]:
    """The prompts that were asked for, as a keyword of a config; none where it was left to it."""
    if args.prompts_file is not None:
        return {"prompts": prompts_in(args.prompts_file)}
    if args.prompts is None:
        return {}
    from xhat.zoo.family.attributes import OPEN_PROMPTS

    return {"prompts": prompts(args.prompts, OPEN_PROMPTS)}


def add_seeds(parser: argparse.ArgumentParser, default: range) -> None:
    """``--seeds``, a range or a list, everywhere."""
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=default,
        metavar="A:B",
        help="a range, or a list 1,2,5; every arm gets the same noise "
        f"(default {default.start}:{default.stop})",
    )


def add_batch_size(parser: argparse.ArgumentParser, default: int = 24) -> None:
    """``--batch-size``"""
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=default,
        metavar="B",
        help=f"samples at a time (default {default})",
    )


def add_space(parser: argparse.ArgumentParser) -> None:
    """``--space``"""
    parser.add_argument(
        "--space",
        default="judge",
        metavar="S",
        help="where pictures are compared: judge (default, knows the family's prompts alone), "
        "latent, pixel, clip, siglip, dinov2, dinov3 or dreamsim",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        metavar="SCORE",
        help="alignment and quality beside diversity: clip_score, siglip_score, pickscore, each "
        "with :FOLDER for weights elsewhere (default: those whose weights are here)",
    )
    add_reference(parser)


def add_reference(parser: argparse.ArgumentParser) -> None:
    """``--reference`` and ``--reference-space``"""
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="a folder of reference pictures: KID, FID, precision and recall against it",
    )
    parser.add_argument(
        "--reference-space",
        default="inception",
        metavar="S",
        help="whose features these are made of: inception (default, as published values), clip, "
        "dinov2 or another encoder, or the embedded family's judge",
    )


def space_options(args: argparse.Namespace) -> dict[str, Any]:
    """Where pictures are compared, and what is measured beside it, as keywords of a config."""
    names = ("space", "scores", "reference", "reference_space")
    return {name: getattr(args, name) for name in names}


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """``--out``, where the same command goes on."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs") / name,
        metavar="RUN",
        help="folder for results, figures and samples; the same command goes on there "
        f"(default runs/{name})",
    )


def finish(result: Result, out: Path, figures: Iterable[str]) -> None:
    """Save the result, draw its figures, print the table and the sentences."""
    from xhat.figures.kit.registry import figures as figures_of
    from xhat.figures.kit.registry import redraw

    result.save(out)
    drawn = [name for name in figures if name in result.data]
    drawn = drawn or [entry.name for entry in figures_of(out) if entry.there]
    if drawn:
        redraw(drawn, run=out, out=out / "figures")
    print("\n".join(["", result.table.to_text(), "", *result.sentences]))
    print(f"\nresults: {out / 'results.json'}")
    if drawn:
        print(f"figures: {out / 'figures'}")
