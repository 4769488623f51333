"""The hybrid's default, chosen: evaluations of the base, its guidance and whose noise crosses the
hand-over, over every student of the embedded family.

    python benchmarks/recipe.py            # 40 minutes on two idle cores; goes on where it stopped
    python benchmarks/recipe.py --quick

On prompts and seeds that neither the demo nor the experiments use. The rule, fixed before it was
run, is that of ``xhat pareto --tune``, over all students at once: of the recipes that cost at most
twice the student and lose at most 0.05 of its fidelity, the most diverse. The base stands in for
the student's first step in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from table import Row, arguments, publish

import xhat
from xhat.analysis.crossed import crossed_mean
from xhat.analysis.experiments.tuning import LOSS
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.sampling.arms import Arm, kinds_of, measure_arms, paired_values
from xhat.analysis.stats import Interval
from xhat.probes.features import feature_space
from xhat.samplers.plans.recipe import BASE_EVALUATIONS, Recipe
from xhat.zoo.family.attributes import OPEN_PROMPTS
from xhat.zoo.load.embedded import CONTROLS, embedded
from xhat.zoo.load.pipelines import BASE_DEFAULTS
from xhat.zoo.pairs import load_pair

PROMPTS, SEEDS, BUDGET = OPEN_PROMPTS[24:40], range(2000, 2016), 2.0
CACHE = Path("runs/recipe")
MEASURES = ("vendi_q2", "attribute_entropy", "fidelity")
RECIPES: dict[str, dict[str, Any]] = {
    f"{steps} {'guided' if guidance > 1 else 'unguided'}, {noise} noise": {
        "base_evaluations": steps,
        "base_guidance_scale": guidance,
        "noise": noise,
    }
    for steps, guidance, noise in product(
        (1, 2, 3, 5, 8), (1.0, BASE_DEFAULTS["guidance_scale"]), ("own", "fresh")
    )
}
DEFAULT = f"{BASE_EVALUATIONS} unguided, {Recipe().noise} noise"


def measure(student: str, prompts: Sequence[str], seeds: Sequence[int], cache: Path) -> xr.Dataset:
    """The student and a hybrid of each recipe, on the same prompts, seeds and noise."""
    pair = load_pair(f"demo/{student}")
    arms = {"student": Arm(pair.student)}
    arms |= {
        name: Arm(xhat.hybrid(pair.base, pair.student, **options))
        for name, options in RECIPES.items()
    }
    return measure_arms(
        arms, prompts, seeds, space=feature_space("judge", pair.base), cache=cache, batch_size=16
    )


def gains(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """(measure, recipe, student, prompt, seed): each hybrid less its student."""
    values = [
        [
            [paired_values(one, recipe, "student", measure) for one in found.values()]
            for recipe in RECIPES
        ]
        for measure in MEASURES
    ]
    some = next(iter(found.values()))
    return xr.Dataset(
        {"gain": (("measure", "recipe", "student", "prompt", "seed"), np.array(values))},
        {
            "measure": list(MEASURES),
            "recipe": list(RECIPES),
            "student": list(found),
            "prompt": some["prompt"].values,
        },
    ).assign(cost=("recipe", _cost(found)))


def _cost(found: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Evaluations of a picture over the student's, the mean of all students."""
    ratios = [
        one["evaluations"].sel(arm=list(RECIPES)).values
        / float(one["evaluations"].sel(arm="student"))
        for one in found.values()
    ]
    return np.mean(ratios, axis=0)


def pick(found: xr.Dataset) -> str:
    """The recipe that the rule picks."""
    mean = found["gain"].mean(("student", "prompt", "seed"))
    keeps = (found["cost"] <= BUDGET + 1e-9) & (mean.sel(measure="fidelity") >= -LOSS)
    if not keeps.any():
        raise ValueError("no recipe keeps the rule")
    return str(mean.sel(measure="vendi_q2").where(keeps, -np.inf).idxmax("recipe").item())


def rows(found: xr.Dataset) -> list[Row]:
    """A row a recipe: cost, and gains over the student, the mean over students with its interval
    for new prompts and seeds.
    """
    strata, table = kinds_of(found["prompt"].values), []
    for recipe in RECIPES:
        gain = found["gain"].sel(recipe=recipe)
        intervals = {
            measure: crossed_mean(gain.sel(measure=measure).mean("student").values, strata=strata)
            for measure in MEASURES
        }
        each = gain.sel(measure="vendi_q2").mean(("prompt", "seed"))
        table.append(
            {
                "recipe": recipe + (" (default)" if recipe == DEFAULT else ""),
                "evaluations / student's": f"{float(found['cost'].sel(recipe=recipe)):.2f}",
                **{measure_label(name): _said(found) for name, found in intervals.items()},
                "Vendi by student": ", ".join(f"{value:+.2f}" for value in each.values),
            }
        )
    return table


def _said(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def verdict(found: xr.Dataset) -> str:
    """What the rule picks, and how it and the default differ."""
    picked = pick(found)
    if picked == DEFAULT:
        return f"the rule picks {picked}, which is the default."
    gain = found["gain"].sel(measure="vendi_q2").mean("student")
    more = (gain.sel(recipe=picked) - gain.sel(recipe=DEFAULT)).values
    interval = crossed_mean(more, strata=kinds_of(found["prompt"].values))
    return f"the rule picks {picked}; over the default it gives {_said(interval)} Vendi."


def main() -> None:
    args = arguments(__doc__).parse_args()
    prompts, seeds = (PROMPTS[:2], SEEDS[:4]) if args.quick else (PROMPTS, SEEDS)
    students = [n for n in embedded() if n != "base" and n not in CONTROLS]
    found = gains(
        {
            name: measure(name, prompts, seeds, CACHE / name)
            for name in (students[:1] if args.quick else students)
        }
    )
    size = f"{len(prompts)} prompts × {len(seeds)} seeds"
    caption = (
        f"Each hybrid less its student, {size}, students {', '.join(found['student'].values)}. "
        "95 % intervals of the mean over these students, for new prompts and seeds."
    )
    tables = {caption: rows(found)}
    publish(args, "recipe", "The hybrid's default", tables, verdict(found), lead="Chosen")


if __name__ == "__main__":
    main()
