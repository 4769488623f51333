"""Which of diffusers' pipelines can be traced, and used in hybrids: the table of docs/pipelines.md.

python benchmarks/pipelines.py                 # every class: some minutes; writes the page
python benchmarks/pipelines.py FluxPipeline    # these rows again, and the page

Every class is built small, with random weights, of the parts of the pipelines that the tests use.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from small_pipelines import ROOT, STEPS, Built, build, classes, one_line, parameters

import xhat
from xhat.hooks.families import family_of_class
from xhat.hooks.noise.levels import space, step_index
from xhat.hooks.points.names import denoisers_of, named_points, slot_of
from xhat.samplers.composite.denoiser import takes_guidance
from xhat.samplers.composite.guidance import call_for, rule_of
from xhat.samplers.plans.plan import Plan, Segment

PAGE = ROOT / "docs" / "pipelines.md"
ROWS = ROOT / "benchmarks" / "results" / "pipelines.json"
CLOSE = 2e-3  # of x̂₀ in single precision, where noise is largest
WORKS = "yes"
COLUMNS = ("traces", "same to the bit", "x̂₀ against an oracle", "points", "hybrid")
HEAD = f"""# Which pipelines work

Made by `python benchmarks/pipelines.py` with diffusers {diffusers.__version__}: every pipeline that
can be built of the small random networks of the tests is called, {STEPS} steps, two prompts.

- **traces**: a call under `xhat.Tracer` ends with x̂₀ of every step, all finite.
- **same to the bit**: the call returns what it returns without the tracer.
- **x̂₀ against an oracle**: a denoiser whose every answer points at a known picture, by the
  scheduler's own formula, is recorded as this picture at every step.
- **points**: a reading of a block in the middle is taken at every step; or it is left out with a
  warning, and the rest is kept.
- **hybrid**: a plan of the base alone returns what the base does, to the bit.

A cell that is not *{WORKS}* holds the message that a user sees. *fails* is a fault of this library.
"""


def cell(check: Callable[[], str]) -> str:
    """What a check says; a ValueError is a refusal, any other error a fault."""
    try:
        return check()
    except ValueError as error:
        text = " ".join(str(error).split()).replace("|", "\\|")
        return f"refused: {text.partition('. Plans run in')[0]}"
    except Exception as error:
        return f"fails: {one_line(error)}"


def row(kind_: type) -> dict[str, str] | str:
    """The cells of a class by column, or why there are none."""
    built, reason = build(kind_)
    if built is None:
        return reason
    traced = cell(lambda: traces(built))
    cells = {"traces": traced}
    if traced == WORKS:
        cells |= {"same to the bit": cell(lambda: same(built)), "points": cell(lambda: read(built))}
        cells["x̂₀ against an oracle"] = cell(lambda: points_at(built))
    cells["hybrid"] = cell(lambda: hybrid(built))
    return {name: cells.get(name, "–") for name in COLUMNS}


def traces(built: Built) -> str:
    with xhat.Tracer(built.base) as tracer:
        built.draw(built.base)
    x0 = tracer.trace["pred_x0"].values
    assert np.isfinite(x0).all(), "x̂₀ is not finite"
    return WORKS


def same(built: Built) -> str:
    plain = built.draw(built.base)
    with xhat.Tracer(built.base, hooks=[middle(built.base)]):
        traced = built.draw(built.base)
    return WORKS if torch.equal(plain, traced) else "fails: another result"


def middle(pipe: Any) -> str:
    """The path of a block in the middle of the denoiser."""
    points = [p for p in named_points(denoisers_of(pipe)) if "Block" in p.kind]
    return points[len(points) // 2].path


def read(built: Built) -> str:
    point = middle(built.base)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with xhat.Tracer(built.base, hooks=[point]) as tracer:
            built.draw(built.base)
        tree = tracer.trace
    if "activations" not in tree.children:
        (text,) = [str(w.message) for w in told if "left out" in str(w.message)]
        return f"warns: {text}"
    (reading,) = tree["activations"].children.values()
    assert np.isfinite(reading["value"].values).all(), "a reading is not finite"
    return WORKS


def points_at(built: Built) -> str:
    """A denoiser that points at a known picture is recorded as this picture."""
    scheduler = built.base.scheduler
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    with xhat.Tracer(built.base) as tracer:
        step = scheduler.step

        def oracle(output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            known = torch.randn(sample.shape, generator=torch.Generator().manual_seed(len(pairs)))
            pairs.append((sample.numpy().copy(), known.numpy()))
            answer = pointing(scheduler, timestep, sample.double(), known.double())
            return step(answer.to(output.dtype), timestep, sample, *args, **kwargs)

        scheduler.step = oracle
        try:
            built.draw(built.base)
        finally:
            scheduler.step = step
    latents, x0 = tracer.trace["latents"].values, tracer.trace["pred_x0"].values
    for i, (sample, known) in enumerate(pairs):
        order, theirs = np.argsort(latents[:, i], axis=None), np.argsort(sample, axis=None)
        off = np.abs(x0[:, i].ravel()[order] - known.ravel()[theirs]).max()
        if not off < CLOSE:
            return f"fails: off by {off:.2g} at step {i + 1}"
    return WORKS


def pointing(scheduler: Any, timestep: Any, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """What a denoiser answers that takes the picture to be ``known``: the formulas by which
    diffusers trains, in its schedulers' own terms.
    """
    asked = getattr(scheduler.config, "prediction_type", "epsilon")
    if space(scheduler) == "flow":
        sigma = scheduler.sigmas[step_index(scheduler, timestep)].double()
        return (x - known) / sigma
    if asked == "sample":
        return known
    if space(scheduler) == "sigma":  # x = x₀ + σ·ε
        sigma = scheduler.sigmas[step_index(scheduler, timestep)].double()
        noise = (x - known) / sigma
        return (
            noise
            if asked == "epsilon"
            else (x / (sigma**2 + 1) - known) / (-sigma / (sigma**2 + 1) ** 0.5)
        )
    alpha = scheduler.alphas_cumprod[int(timestep)].double()
    noise = (x - alpha**0.5 * known) / (1 - alpha) ** 0.5
    return noise if asked == "epsilon" else alpha**0.5 * noise - (1 - alpha) ** 0.5 * known


def hybrid(built: Built) -> str:
    """A plan of one model is this model; guided too, where the family's guidance is known."""
    network = getattr(built.base, slot_of(built.base))
    scales = (1.0, 3.0) if family_of_class(type(built.base)).guidance else (1.0,)
    for scale in scales:
        if takes_guidance(network):  # as an input of the network, which does not guide beside it
            guided = {"guidance_scale": scale}
        else:
            guided = call_for(built.base, rule_of(built.base), scale)
        if any("embeds" in name for name in built.call):
            guided.pop("negative_prompt", None)
        guided = {n: v for n, v in guided.items() if n in parameters(built.base.__call__)}
        plan = Plan([Segment("base", 0, STEPS, STEPS, scale)])
        pipe = xhat.hybrid(built.base, built.other, plan=plan)
        pipe.set_progress_bar_config(disable=True)
        if not torch.equal(built.draw(built.base, **guided), built.draw(pipe, **guided)):
            return f"fails: another result at guidance {scale:g}"
    return WORKS


def page(rows: Mapping[str, dict[str, str] | str]) -> str:
    """The text of docs/pipelines.md."""
    tried = {name: cells for name, cells in sorted(rows.items()) if isinstance(cells, dict)}
    lines = ["| pipeline | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells.values())} |" for name, cells in tried.items()]
    count = {c: sum(cells[c] == WORKS for cells in tried.values()) for c in COLUMNS}
    total = f"Of {len(tried)}: " + ", ".join(f"{c} {n}" for c, n in count.items()) + "."
    reasons: dict[str, list[str]] = {}
    for name, reason in sorted(rows.items()):
        if isinstance(reason, str):
            reasons.setdefault(reason.partition(":")[0], []).append(name)
    rest = [f"Not tried ({why}): {', '.join(names)}." for why, names in reasons.items()]
    return "\n".join([HEAD, *lines, "", total, "", "## Not tried", "", "\n\n".join(rest), ""])


def prepare() -> None:
    """One thread, and no warnings of networks that are small and random on purpose."""
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="CLASS", help="(default: all)")
    names = parser.parse_args().names
    prepare()
    rows = json.loads(ROWS.read_text()) if names and ROWS.exists() else {}
    for kind_ in classes():
        if not names or kind_.__name__ in names:
            rows[kind_.__name__] = row(kind_)
            print(kind_.__name__, rows[kind_.__name__], flush=True)
            ROWS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(rows), encoding="utf-8")
    return int(any("fails" in c for r in rows.values() if isinstance(r, dict) for c in r.values()))


if __name__ == "__main__":
    sys.exit(main())
