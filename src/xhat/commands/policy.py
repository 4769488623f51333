"""``xhat policy``"""

from __future__ import annotations

import argparse
from pathlib import Path

from xhat.commands.parse import seeds

HELP = "choose a plan from traces of base and student alone, and explain it"
FIT = (
    "Trace the base and the student alone, each on the same prompts and seeds, predict from "
    "these traces what every "
    "hybrid of them would give, and choose the most diverse one that the budget and the "
    "student's fidelity allow. "
    "No hybrid is sampled. RUN/policy.json is what xhat.hybrid(base, student, "
    "policy=xhat.Policy.load(path)) takes."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="fit|show", dest="action")
    fit = actions.add_parser("fit", help="fit one and save it", description=FIT)
    fitting(fit)
    fit.add_argument(
        "--prompts",
        nargs="+",
        metavar="P",
        help="prompts to fit on (default: half of the open prompts)",
    )
    fit.add_argument(
        "--seeds",
        type=seeds,
        default=range(1000, 1016),
        metavar="0:16",
        help="a range, or a list (default 1000:1016)",
    )
    fit.add_argument(
        "--out",
        type=Path,
        default=Path("runs/policy"),
        metavar="RUN",
        help="folder for traces and policy.json (default runs/policy)",
    )
    show = actions.add_parser(
        "show", help="explain a saved one", description="Why this plan, in words and numbers."
    )
    show.add_argument(
        "policy", type=Path, metavar="FILE", help="policy.json, or the folder it is in"
    )


def fitting(parser: argparse.ArgumentParser) -> None:
    """What a fit is asked for, also by ``xhat pareto``."""
    parser.add_argument(
        "--pair", default="demo", help="demo, demo/<student>, or a published pair (default demo)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=1.2,
        metavar="B",
        help="evaluations a picture may cost, in multiples of the student's (default 1.2)",
    )
    parser.add_argument(
        "--measure",
        default="vendi_q2",
        metavar="M",
        help="what diversity means: vendi_q2 (default), "
        "vendi_q1, attribute_entropy, mean_pairwise_distance",
    )
    parser.add_argument(
        "--space",
        default="judge",
        metavar="S",
        help="where pictures are compared: judge (default, "
        "knows the family's prompts alone), latent, pixel, clip, dinov2 or dreamsim",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.05,
        metavar="F",
        help="fidelity that may be lost against the student (default 0.05)",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.policy import fit_policy
    from xhat.samplers.plans.policy import Policy

    if args.action == "show":
        path = args.policy / "policy.json" if args.policy.is_dir() else args.policy
        print(Policy.load(path).explain())
        return
    from xhat.analysis.traces.policy_traces import trace_alone
    from xhat.probes.features import feature_space
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair = load_pair(args.pair)
    prompts = args.prompts or OPEN_PROMPTS[::2]
    traces = trace_alone(pair, prompts, args.seeds, args.out / "traces")
    policy = fit_policy(
        traces,
        args.budget,
        space=feature_space(args.space, pair.base),
        measure=args.measure,
        margin=args.margin,
    )
    path = policy.save(args.out / "policy.json")
    print(f"{policy.explain()}\n\npolicy: {path}")
