"""``xhat probe``"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from xhat.commands.options import add_prompts, add_reference, finish, prompts_of, space_options
from xhat.commands.parse import finite, positive, seeds

HELP = (
    "a checkpoint nobody has looked at: does it collapse, where, what does it keep, which plan "
    "samples it best"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure a checkpoint beside the base it was distilled from, within a budget of time, and "
        "write a report with a recommended plan and its evidence. Without a base: what can be "
        "said of one model alone. A run that was stopped goes on when the same command is given "
        "again."
    )
    parser.add_argument(
        "checkpoints",
        metavar="CHECKPOINT",
        nargs="*",
        help="demo/dmd, a published name (sdxl/dmd2), "
        "a folder, a file of weights, a LoRA, a hub name (default: the student of --pair). Several "
        "are a lineage, each made of the one before it, the base first: what each stage loses",
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="what it was distilled from: the same forms, or a family (sdxl)",
    )
    parser.add_argument(
        "--pair",
        metavar="NAME",
        help="the base of this pair, demo or a published one: in place of --base",
    )
    parser.add_argument(
        "--like", metavar="NAME", help="run it as this published checkpoint: its scheduler and call"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="steps of the checkpoint (default: its own; 4 for bare weights)",
    )
    parser.add_argument(
        "--guidance",
        type=finite,
        metavar="G",
        help="guidance of the checkpoint (default: its own; none for bare weights)",
    )
    parser.add_argument(
        "--base-steps", type=positive, metavar="N", help="steps of the base (default: its own)"
    )
    add_prompts(parser, "eight that leave much open")
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="prompts of a suite: paper, parti, drawbench, coco, geneval, dimcim, each with :FILE; "
        "a CSV, TSV, JSON or JSONL file; owner/name/file of a data set on the hub",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        metavar="A:B",
        help="a range, or a list 1,2,5 (default 0:32; of a lineage 0:16)",
    )
    parser.add_argument(
        "--budget",
        type=budget,
        default=600.0,
        metavar="10m",
        help="time it may take: 90s, 10m, 2h; prompts and seeds are cut to fit (default 10m)",
    )
    parser.add_argument(
        "--space",
        metavar="S",
        help="where pictures are compared: judge, dinov2, clip, dreamsim, "
        "lpips, pixel, latent, denoiser (default: the best that is there)",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        metavar="SCORE",
        help="alignment and quality beside diversity: clip_score, siglip_score, pickscore, each "
        "with :FOLDER for weights elsewhere (default: those whose weights are here)",
    )
    add_reference(parser)
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="what is asked of the pictures, whose entropy is measured: a JSON list of "
        '{"attribute": "time", "choices": ["day", "night"], "text": "a street by {}", '
        '"concept": "street"}, a file of DIM-CIM, or the CSV of GRADE',
    )
    parser.add_argument(
        "--answers",
        default="siglip",
        metavar="NAME",
        help="who answers: siglip (default), clip or vqa (an image–text model of transformers), "
        "each with :FOLDER for weights elsewhere, or judge",
    )
    parser.add_argument(
        "--sliders", nargs="+", type=Path, default=[], metavar="FILE", help="LoRAs to try on both"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="precision (default float32)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=16,
        metavar="B",
        help="samples at a time (default 16)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the report and all else"
    )


def budget(text: str) -> float:
    """Seconds of ``90s``, ``10m`` or ``2h``.

    >>> budget("10m"), budget("1.5h")
    (600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected 90s, 10m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def run(args: argparse.Namespace) -> None:
    from xhat.analysis.experiments.probe import probe
    from xhat.figures.report.probe import write_probe_report
    from xhat.probes.questions import load_questions

    prompts = _asked(args)
    if len(args.checkpoints) > 1:
        _lineage(args, prompts)
        return
    questions = load_questions(args.questions) if args.questions else ()
    missing = [str(path) for path in args.sliders if not path.exists()]
    if missing:
        raise ValueError(f"no slider at {', '.join(missing)}: expected LoRA files")
    student, base, notes = load(args)
    result = probe(
        student,
        base,
        out=args.out,
        prompts=prompts,
        seeds=args.seeds or range(32),
        budget=args.budget,
        **space_options(args),
        questions=questions,
        answers=args.answers,
        sliders=args.sliders,
        batch_size=args.batch_size,
    )
    result.notes.extend(notes)
    report = write_probe_report(result, student.vae, args.out, _name(args) or args.pair)
    said = result.verdict
    print(
        "\n".join(
            [
                "",
                said.headline,
                said.recommendation,
                "",
                *said.evidence,
                *notes,
                f"\nreport: {report}",
            ]
        )
    )


def _name(args: argparse.Namespace) -> str | None:
    return args.checkpoints[0] if args.checkpoints else None


def _lineage(args: argparse.Namespace, prompts: list[str] | None) -> None:
    """What each stage of several checkpoints loses: a table, a figure, sentences."""
    from xhat.analysis.experiments.lineage import Lineage, lineage_of, measure_lineage
    from xhat.analysis.experiments.probe import PROMPTS, space_of
    from xhat.analysis.result import claim
    from xhat.zoo.family.attributes import OPEN_PROMPTS
    from xhat.zoo.pairs import load_model

    alone = ("base", "pair", "like", "steps", "guidance", "base_steps")
    if given := [f"--{n.replace('_', '-')}" for n in alone if getattr(args, n) is not None]:
        raise ValueError(
            f"{', '.join(given)} with several checkpoints: they are a lineage, the base first, "
            "each at its own steps and guidance"
        )
    names = list(args.checkpoints)
    if len(set(names)) < len(names):
        raise ValueError(f"a lineage of different checkpoints is expected, got {' '.join(names)}")
    base = load_model(names[0])
    models = {names[0]: base} | {name: load_model(name, base) for name in names[1:]}
    space = space_of(args.space, base, prompts)
    config = Lineage(
        pair=lineage_of(models),
        prompts=prompts or (OPEN_PROMPTS[:8] if space.name == "judge" else PROMPTS),
        seeds=args.seeds or range(16),
        space=args.space or space.name,
        scores=args.scores,
        reference=args.reference,
        reference_space=args.reference_space,
        batch_size=args.batch_size,
    )
    out = claim(args.out, "lineage")
    finish(measure_lineage(config, cache=out / "cache"), out, ("lineage",))


def _asked(args: argparse.Namespace) -> list[str] | None:
    """The prompts that were asked for, in words, in a file, or as a suite; None where none were."""
    if args.suite is not None and (args.prompts or args.prompts_file):
        raise ValueError("prompts and --suite were given: give one of them")
    if args.suite:
        return _suite(args.suite)
    found = prompts_of(args).get("prompts")
    if found is not None and not found:
        raise ValueError(f"{args.prompts_file} holds no prompt: expected one a line")
    return None if found is None else list(dict.fromkeys(found))


def _suite(name: str | None) -> list[str] | None:
    from xhat.zoo.suites import load_suite

    if name is None:
        return None
    suite = load_suite(name)
    print(suite.text())
    return list(suite.prompts)


def load(args: argparse.Namespace) -> tuple[Any, Any, list[str]]:
    """The checkpoint and its base (None without one), and what had to be assumed of them."""
    import torch

    from xhat.hooks.model import model_of
    from xhat.zoo.pairs import load_model, load_pair

    if args.base and args.pair:
        raise ValueError("--base and --pair were given: give one of them")
    if not _name(args) and not args.pair:
        raise ValueError("nothing to probe: give a CHECKPOINT, or a --pair whose student is meant")
    dtype = getattr(torch, args.dtype) if args.dtype else None
    pair = load_pair(args.pair, dtype=dtype) if args.pair else None
    base = pair.base if pair else load_model(args.base, dtype=dtype) if args.base else None
    notes: list[str] = []
    checkpoint = _name(args)
    if not checkpoint:
        assert pair is not None
        student = pair.student
    else:
        student = load_model(
            checkpoint, base, dtype=dtype, **({"like": args.like} if args.like else {})
        )
        if not args.like and model_of(student).origin == "base":
            notes = _assume(student)
    _set(student, args.steps, args.guidance)
    if base is not None:
        _set(base, args.base_steps, None)
    return student, base, notes


def _assume(student: Any) -> list[str]:
    """Weights without a word on how they are run: four steps without guidance, as most students
    are.
    """
    from diffusers import LCMScheduler

    from xhat.hooks.model import set_defaults
    from xhat.hooks.noise.levels import space

    set_defaults(student, num_inference_steps=4, guidance_scale=1.0)
    if space(student.scheduler) != "flow":
        student.scheduler = LCMScheduler.from_config(
            student.scheduler.config, original_inference_steps=4
        )
    return [
        "The file does not say how it is to be run. It was run in 4 steps of "
        f"{type(student.scheduler).__name__} without guidance, as most such students are: say "
        "otherwise with --like, --steps and --guidance."
    ]


def _set(pipe: Any, steps: int | None, guidance: float | None) -> None:
    from xhat.hooks.model import set_defaults

    given = {"num_inference_steps": steps, "guidance_scale": guidance}
    set_defaults(pipe, **{k: v for k, v in given.items() if v is not None})
