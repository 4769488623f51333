"""``xhat pareto``"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "every way to more diversity against what it costs: hybrids, rivals, and the policy's plan"


def arguments(parser: argparse.ArgumentParser) -> None:
    from xhat.commands.policy import fitting

    parser.description = (
        f"{HELP}. The policy is fitted on half of the open prompts, from traces of base and "
        "student alone; then all "
        "methods are measured on the other half, on other seeds, the same for all. About four "
        "minutes; --quick, one."
    )
    fitting(parser)
    parser.add_argument(
        "--rank", type=int, default=32, metavar="R", help="of the low-rank student (default 32)"
    )
    parser.add_argument("--quick", action="store_true", help="4 prompts × 6 seeds for each half")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/pareto"),
        metavar="RUN",
        help="folder for results, "
        "figure and samples; the same command goes on there (default runs/pareto)",
    )


def run(args: argparse.Namespace) -> None:
    import json

    from xhat.analysis.experiments.pareto import figure_data, measure_pareto, predicted
    from xhat.analysis.experiments.pareto_text import table, to_results
    from xhat.analysis.experiments.policy import fit_policy
    from xhat.analysis.traces.policy_traces import trace_alone
    from xhat.figures.kit.data import save_data
    from xhat.figures.kit.registry import redraw
    from xhat.probes.features import feature_space
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_pair

    pair = load_pair(args.pair)
    out = args.out
    space, fit, judge = feature_space(args.space, pair.base), OPEN_PROMPTS[::2], OPEN_PROMPTS[1::2]
    seeds = range(16)
    if args.quick:
        fit, judge, seeds = fit[:4], judge[:4], range(6)
    traces = trace_alone(pair, fit, [1000 + seed for seed in seeds], out / "traces")
    policy = fit_policy(traces, args.budget, space=space, measure=args.measure, margin=args.margin)
    policy.save(out / "policy.json")
    print(f"{policy.explain()}\n", flush=True)
    measured = measure_pareto(
        pair, policy, judge, seeds, space=space, cache=out / "finals", rank=args.rank
    )
    expected = predicted(policy, measured)
    results = to_results(measured, policy, expected)
    results = {"pair": args.pair, "student": pair.chosen, "fitted_on": list(fit), **results}
    said = {"student": pair.chosen, "sentences": "\n".join(results["sentences"])}
    save_data(figure_data(measured).assign_attrs(said), out, "pareto")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    redraw(["pareto"], run=out, out=out / "figures")
    print(
        "\n".join(
            ["", table(measured), "", *results["sentences"], "", f"results: {out / 'results.json'}"]
        )
    )
