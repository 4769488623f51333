"""``xhat policy``"""

from __future__ import annotations

import argparse
import json
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


EXPORT = (
    "Write the plan of a policy for those who do not have this package. A script draws the very "
    "pictures; ComfyUI draws its noise otherwise, so that its pictures of a seed are others."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="fit|show|export", dest="action")
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

    _export_arguments(
        actions.add_parser(
            "export",
            help="write its plan as a workflow of ComfyUI, or as a script of diffusers",
            description=EXPORT,
        )
    )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "policy", type=Path, metavar="FILE", help="policy.json, or the folder it is in"
    )
    add_pair(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--comfyui", action="store_true", help="a workflow in ComfyUI's API format")
    what.add_argument(
        "--script", action="store_true", help="a Python script of diffusers alone, to the bit"
    )
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what is drawn")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument(
        "--files",
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="of a workflow: the files as ComfyUI lists them, base=sdxl.safetensors "
        "student=unet:dmd2.safetensors (or lora:…)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: plan.json or plan.py beside the policy"
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

    if args.action != "fit":
        path = args.policy / "policy.json" if args.policy.is_dir() else args.policy
        policy = Policy.load(path)
        print(policy.explain() if args.action == "show" else _export(args, policy, path))
        return
    config = PolicyFit(
        seeds=args.seeds, batch_size=args.batch_size, **fit_of(args), **prompts_of(args)
    )
    out = claim(args.out, "policy")
    result = measure_policy(config, traces=out / "traces")
    path = policy_of(result).save(out / "policy.json")
    finish(result, out, [])
    print(f"policy: {path}")


def _export(args: argparse.Namespace, policy: Any, path: Path) -> str:
    """Write a policy's plan for a pair; gives where."""
    from xhat.analysis.files import write_text
    from xhat.samplers.composite.pipeline import hybrid
    from xhat.zoo.pairs import load_pair

    files = dict(part.partition("=")[::2] for part in args.files)
    if args.script and files:
        raise ValueError("--files are those of a workflow: give --comfyui")
    pair = load_pair(args.pair)
    pipe = hybrid(pair.base, pair.student, policy=policy)
    if args.script:
        text = policy.plan.to_script(pipe, args.prompt, seeds=[args.seed])
    else:
        graph = policy.plan.to_comfyui(pipe, args.prompt, files=files, seed=args.seed)
        text = json.dumps(graph, indent=1) + "\n"
    out = args.out or path.with_name("plan.py" if args.script else "plan.json")
    write_text(out, text)
    return f"{'script' if args.script else 'workflow'}: {out}"
