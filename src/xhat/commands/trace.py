"""``xhat trace``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from xhat.commands.parse import finite, positive, prompts_in, seeds, texts

HELP = "sample prompts × seeds and keep x̂₀ and readings of every step"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="demo/base, a diffusers folder, or a hub name"
    )
    parser.add_argument("--prompts", nargs="+", default=[], metavar="P", help="one or more prompts")
    parser.add_argument(
        "--prompts-file", type=Path, metavar="FILE", help="more prompts, one a line"
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=range(8),
        metavar="0:64",
        help="a range, or a list 1,2,5 (default 0:8)",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="inference steps (default: the checkpoint's own)",
    )
    parser.add_argument(
        "--guidance",
        type=finite,
        metavar="G",
        help="guidance scale (default: the checkpoint's own)",
    )
    parser.add_argument(
        "--hooks",
        nargs="*",
        default=[],
        metavar="POINT[=REDUCTION]",
        help='points by alias, glob or path, e.g. h, "up.*=project(256)"; reductions: mean, '
        "pool(n), project(dim), full, gram (default mean). `xhat points MODEL` lists them",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=8, metavar="B", help="samples at a time (default 8)"
    )
    parser.add_argument(
        "--device", metavar="D", help="cuda:1, cpu, … (default: this process's GPU, or the CPU)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of the weights",
    )
    parser.add_argument(
        "--store",
        required=True,
        metavar="PATH",
        help="Zarr store, a folder or a URL; a stopped run goes on there",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="sample in N processes of this machine, one a GPU where there are GPUs",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="sample on the workers of a Dask cluster: tcp://host:8786, or its scheduler file",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="read all of the store, and make again what of it is damaged",
    )


def run(args: argparse.Namespace) -> None:
    from xhat.hooks.trace import trace

    hooks = dict(part.split("=", 1) if "=" in part else (part, "mean") for part in args.hooks)
    call = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    given = {name: value for name, value in call.items() if value is not None}
    prompts, load = _prompts(args), partial(_load, args.model, args.device, args.dtype)
    with _client(args) as client:
        tree = trace(
            load(),
            prompts,
            seeds=args.seeds,
            hooks=hooks,
            store=args.store,
            batch_size=args.batch_size,
            repair=args.repair,
            client=client,
            load=load if client else None,
            **given,
        )
    print(_summary(tree, args.store))


def _summary(tree: Any, store: str) -> str:
    """What is there now, and how it is opened."""
    sizes, sigma = tree.sizes, tree["sigma"].values
    read = sorted(tree["activations"].children) if "activations" in tree.children else []
    readings = f"{len(read)} readings" if read else "no readings"
    shown = f"{', '.join(read[:4])}{', …' if len(read) > 4 else ''}"
    variables = [str(name) for name in tree.to_dataset().data_vars]
    return (
        f"{store}: {sizes['prompt']} prompts × {sizes['seed']} seeds × {sizes['step']} steps, "
        f"σ {sigma[0]:.3g} to {sigma[-1]:.3g}\n"
        f"  at every step: {', '.join(v for v in variables if 'step' in tree[v].dims)}\n"
        f"  at the end: {', '.join(v for v in variables if 'step' not in tree[v].dims)}\n"
        f"  {readings}{f': {shown}' if read else ''}\n"
        f"open it: xhat.open_trace({store!r}); then .xhat.curve('vendi_q2'), .xhat.images(), "
        "docs/saving.md"
    )


@contextmanager
def _client(args: argparse.Namespace) -> Iterator[Any]:
    """A client of the cluster that was asked for, with its dashboard's address said; or None."""
    if args.workers is None and args.scheduler is None:
        yield None
        return
    from xhat.hooks.cluster import connected, local

    with local(args.workers) if args.workers else connected(args.scheduler) as client:
        print(f"workers: {client.dashboard_link}", file=sys.stderr)
        yield client


def _prompts(args: argparse.Namespace) -> list[str]:
    listed = texts(args.prompts)
    if args.prompts_file is not None:
        listed += prompts_in(args.prompts_file)
    if not listed:
        raise ValueError(
            "no prompts: give some with --prompts, or a file of them with --prompts-file"
        )
    return listed


def _load(model: str, device: str | None, dtype: str) -> Any:
    """The pipeline where it is to run: on a GPU of this process's own, if there are several."""
    import torch

    from xhat.hooks.cluster import number_of_worker
    from xhat.zoo.pairs import load_model

    pipe = load_model(model)
    if device is None:
        gpus = torch.cuda.device_count()
        device = f"cuda:{number_of_worker() % gpus}" if gpus else "cpu"
    try:
        if torch.device(device).type == "meta":
            raise NotImplementedError("on it, tensors have no data")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} is not to be had here: {reason}") from None
    if dtype != "float32":
        pipe = pipe.to(getattr(torch, dtype))
    return pipe.to(device)
