"""``xhat readout``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.commands.parse import prompts, seeds

HELP = (
    "when an attribute of the final picture can be read: linear probes at every layer and noise "
    "level"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="demo", help="embedded pair: demo, or demo/<student> (default demo)"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["20"],
        metavar="P",
        help="prompts, or a number: the first so "
        "many of the twenty open prompts of the family (default 20)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=range(40),
        metavar="0:40",
        help="a range, or a list 1,2,5: half of them teach, half are read (default 0:40)",
    )
    parser.add_argument(
        "--layer", default="h", metavar="POINT", help="the layer that is drawn (default h)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=24, metavar="B", help="samples at a time (default 24)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/readout"),
        metavar="RUN",
        help="folder for traces, "
        "results and figure; the same command goes on there (default runs/readout)",
    )


def run(args: argparse.Namespace) -> None:
    import json

    from xhat.analysis.experiments.readout import ATTRIBUTES_SHOWN, measure_readout, statement
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair, chosen = load_pair(args.pair), prompts(args.prompts, OPEN_PROMPTS)
    found = measure_readout(
        pair.base,
        pair.student,
        chosen,
        args.seeds,
        layer=args.layer,
        out=args.out,
        batch_size=args.batch_size,
    )
    shown = [n for n in ATTRIBUTES_SHOWN if n in found["attribute"].values]
    save_data(
        found.sel(attribute=shown).assign_attrs(student=pair.chosen), args.out, "probe_curves"
    )
    redraw(["probe_curves"], run=args.out, out=args.out / "figures")
    lines = statement(found)
    results: dict[str, Any] = {
        "student": pair.chosen,
        "prompts": chosen,
        "seeds": list(args.seeds),
        "sentences": lines,
    }
    results["decided_sigma"] = {
        str(m): {
            str(a): _or_none(float(found["decided_sigma"].sel(model=m, attribute=a)))
            for a in found["attribute"].values
        }
        for m in found["model"].values
    }
    (args.out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(
        "\n".join(
            [
                "",
                *lines,
                f"\nfigures: {args.out / 'figures'}",
                f"results: {args.out / 'results.json'}",
            ]
        )
    )


def _or_none(sigma: float) -> float | None:
    """NaN, where an attribute is never decided, is no JSON."""
    return sigma if sigma == sigma else None
