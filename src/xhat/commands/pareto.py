"""``xhat pareto``"""

from __future__ import annotations

import argparse
from typing import Any

from xhat.commands.options import (
    add_batch_size,
    add_out,
    add_prompts,
    add_seeds,
    finish,
    prompts_of,
    space_options,
)
from xhat.commands.parse import positive
from xhat.commands.policy import fit_of, fitting

HELP = "every way to more diversity against what it costs: hybrids, rivals, and the policy's plan"
FIT_SEEDS = 1000  # added to the seeds: the policy is fitted on others than all are measured on


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. The policy is fitted on open prompts, from traces of base and student alone; "
        "then all methods are measured on other prompts and other seeds, the same for all. --quick "
        "takes about a minute."
    )
    fitting(parser)
    add_prompts(parser, "twelve open prompts that the policy is not fitted on")
    add_seeds(parser, range(16))
    add_batch_size(parser)
    parser.add_argument(
        "--fit-prompts",
        type=positive,
        metavar="N",
        help="prompts that the policy is fitted on, and settings picked on: as many as are "
        "measured by default, 4 at least and 12 at most",
    )
    parser.add_argument(
        "--rank",
        type=positive,
        default=32,
        metavar="R",
        help="of the low-rank student (default 32)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="pick every rival's settings first, from six each, on the prompts of the policy",
    )
    parser.add_argument("--quick", action="store_true", help="4 prompts × 6 seeds for each half")
    add_out(parser, "pareto")


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.pareto import JUDGE_PROMPTS, Pareto, measure_pareto
    from xhat.analysis.experiments.policy import (
        PolicyFit,
        fit_prompts,
        measure_policy,
        policy_of,
    )
    from xhat.analysis.experiments.tuning import Tuning, measure_tuning, options_of
    from xhat.analysis.result import claim

    few = 4 if args.quick else None
    seeds = range(6) if args.quick else args.seeds
    judge: dict[str, Any] = {"seeds": seeds, "prompts": JUDGE_PROMPTS[:few], **prompts_of(args)}
    fit_config = PolicyFit(
        prompts=fit_prompts(judge["prompts"], args.fit_prompts),
        seeds=[FIT_SEEDS + seed for seed in seeds],
        batch_size=args.batch_size,
        **fit_of(args),
    )
    out = claim(args.out, "pareto")
    fitted = measure_policy(fit_config, traces=out / "traces")
    policy = policy_of(fitted)
    policy.save(out / "policy.json")
    print(f"{policy.explain()}\n", flush=True)
    tuned = {}
    if args.tune:
        tuning = measure_tuning(
            Tuning(
                pair=args.pair,
                **space_options(args),
                prompts=fit_config.prompts,
                seeds=fit_config.seeds,
                batch_size=args.batch_size,
                measure=policy.measure,
            ),
            cache=out / "cache",
        )
        tuning.save(out / "tuning")
        print(f"{tuning}\n", flush=True)
        tuned = options_of(tuning.data["tuning"])
    config = Pareto(
        pair=args.pair,
        **space_options(args),
        batch_size=args.batch_size,
        rank=args.rank,
        policy=policy,
        tuned=tuned,
        **judge,
    )
    finish(measure_pareto(config, cache=out / "cache"), out, ["pareto"])
