"""``xhat policy``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_pair,
    add_prompts,
    add_seeds,
    add_space,
    finish,
    prompts_of,
)
from xhat.commands.parse import above_zero, finite

HELP = "choose a plan from traces of base and student alone, and explain it"
FIT = (
    "Trace the base and the student alone, each on the same prompts and seeds, predict from these "
    "traces what every hybrid of them would give, and choose the most diverse one that the budget "
    "and the student's fidelity allow. No hybrid is sampled. RUN/policy.json is what "
    "xhat.hybrid(base, student, policy=xhat.Policy.load(path)) takes."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="fit|show", dest="action")
    fit = actions.add_parser("fit", help="fit one and save it", description=FIT)
    fitting(fit)
    add_prompts(fit, "twelve of the open prompts")
    add_seeds(fit, range(1000, 1016))
    add_batch_size(fit)
    add_out(fit, "policy")
    show = actions.add_parser(
        "show", help="explain a saved one", description="Why this plan, in words and numbers."
    )
    show.add_argument(
        "policy", type=Path, metavar="FILE", help="policy.json, or the folder it is in"
    )


def fitting(parser: argparse.ArgumentParser) -> None:
    """What a fit is asked for, also by ``xhat pareto``."""
    add_pair(parser)
    parser.add_argument(
        "--budget",
        type=above_zero,
        default=1.2,
        metavar="B",
        help="evaluations a picture may cost, in multiples of the student's (default 1.2)",
    )
    parser.add_argument(
        "--measure",
        default="vendi_q2",
        metavar="M",
        help="what diversity means: vendi_q2 (default), vendi_q1, attribute_entropy, "
        "mean_pairwise_distance",
    )
    add_space(parser)
    parser.add_argument(
        "--margin",
        type=finite,
        default=0.05,
        metavar="F",
        help="fidelity that may be lost against the student (default 0.05)",
    )


def fit_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`fitting` as keywords of the config."""
    names = ("pair", "budget", "measure", "space", "margin")
    return {name: getattr(args, name) for name in names}


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.policy import PolicyFit, measure_policy, policy_of
    from xhat.analysis.result import claim
    from xhat.samplers.plans.policy import Policy

    if args.action == "show":
        path = args.policy / "policy.json" if args.policy.is_dir() else args.policy
        print(Policy.load(path).explain())
        return
    config = PolicyFit(
        seeds=args.seeds, batch_size=args.batch_size, **fit_of(args), **prompts_of(args)
    )
    out = claim(args.out, "policy")
    result = measure_policy(config, traces=out / "traces")
    path = policy_of(result).save(out / "policy.json")
    finish(result, out, [])
    print(f"policy: {path}")
