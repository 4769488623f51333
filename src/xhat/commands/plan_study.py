"""``xhat plan-study``"""

from __future__ import annotations

import argparse

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_prompts,
    add_seeds,
    add_space,
    finish,
    prompts_of,
    space_options,
)

HELP = "how many prompts and seeds, how long and how much disk a study takes, from a small pilot"
DESCRIPTION = f"""\
{HELP[0].upper()}{HELP[1:]}.

The pilot samples base, student and hybrid on a few prompts × seeds. How much prompts differ, how
much seeds differ, and what is left, say at which size an effect is told from zero in four studies
of five. Prompts and seeds both have to grow: all prompts are run under the same seeds, so what a
seed adds is not averaged away by more prompts. Then give the size to the command that does the
study, for example `xhat swaps --prompts 40 --seeds 0:32`."""
EXAMPLES = """examples:
  xhat plan-study demo/dmd                     enough to tell a quarter of the base's lead
  xhat plan-study demo/dmd --effect 0.3        a difference of 0.3 Vendi, hybrid less student
  xhat plan-study demo/lcm --contrast student base --measure attribute_entropy --effect 0.05
  xhat plan-study demo --prompts 4 --seeds 0:6 a pilot of half a minute
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "pair",
        metavar="PAIR",
        nargs="?",
        default="demo",
        help="demo, demo/<student>, or a published pair: `xhat models` lists them (default demo)",
    )
    parser.add_argument(
        "--effect",
        type=float,
        metavar="E",
        help="difference to be told from zero, in the measure's unit (default: a quarter of the "
        "base's lead over the student in the pilot)",
    )
    parser.add_argument(
        "--contrast",
        nargs=2,
        default=("hybrid", "student"),
        metavar=("MORE", "LESS"),
        help="what is compared: two of base, student, hybrid (default hybrid student)",
    )
    parser.add_argument(
        "--measure",
        default="vendi_q2",
        metavar="M",
        help="vendi_q2 (default), attribute_entropy, mean_pairwise_distance, fidelity",
    )
    add_prompts(parser, "eight open prompts of the family")
    add_seeds(parser, range(8))
    add_space(parser)
    add_batch_size(parser)
    add_out(parser, "plan-study")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.plan_study import PlanStudy, plan_study
    from xhat.analysis.result import claim

    config = PlanStudy(
        pair=args.pair,
        effect=args.effect,
        more=args.contrast[0],
        less=args.contrast[1],
        measure=args.measure,
        seeds=args.seeds,
        **space_options(args),
        batch_size=args.batch_size,
        **prompts_of(args),
    )
    out = claim(args.out, "plan-study")
    finish(plan_study(config, cache=out / "cache"), out, ())
