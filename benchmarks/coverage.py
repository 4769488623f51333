"""Do the intervals hold what they say? Coverage of every kind of interval that is printed, and the
error rates of verdicts, on simulated prompts × seeds whose truth is known.

    python benchmarks/coverage.py [--runs 600] [--quick]

Pictures are draws of six modes. A prompt's shares of modes are uneven (Dirichlet), the student's
collapse on a prompt's commonest mode by a skewed amount (Beta(0.6, 1.2)), and all prompts see the
same seeds, which pull every prompt towards the same modes. The truth is that of new prompts and of
very many seeds. ``before`` is what the same rows gave with bootstraps over prompts of plug-in
values, with pooled pictures (retention), and with a jackknife over prompts alone (CKA)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from xhat.analysis import stats
from xhat.analysis.crossed import (
    UndefinedRatio,
    crossed_jackknife,
    crossed_log_ratio,
    crossed_mean,
    crossed_ratio,
    simultaneous,
)
from xhat.analysis.measures.by_seed import (
    entropy_by_seed,
    pairs_by_seed,
    variance_by_seed,
    vendi_q2_by_seed,
)
from xhat.analysis.measures.similarity import cka
from xhat.analysis.verdicts import best_of, verdict

RESULTS = Path(__file__).parent / "results"
SIZES = ((8, 12), (8, 24), (20, 24))
MODES, OTHER, SHARED = 6, 0.3, 0.6
"""Modes, cosine between pictures of two of them, and how far a seed pulls all prompts alike."""
Rng = np.random.Generator


@dataclass(frozen=True)
class Arms:
    """Labels (prompt, seed) of base and student under the same seeds."""

    base: np.ndarray
    student: np.ndarray

    @classmethod
    def draw(cls, rng: Rng, prompts: int, seeds: int, collapse: bool = True) -> Arms:
        base = rng.dirichlet(np.full(MODES, 2.0), size=prompts)
        student = collapsed(rng, base) if collapse else base
        seed = rng.normal(size=seeds)
        return cls(*(labels(rng, share, seed) for share in (base, student)))


def collapsed(rng: Rng, share: np.ndarray) -> np.ndarray:
    """Shares of modes of which a skewed part has gone to the commonest."""
    lost = rng.beta(0.6, 1.2, size=(len(share), 1))
    commonest = np.eye(MODES)[share.argmax(1)]
    return (1 - lost) * share + lost * commonest


def labels(rng: Rng, share: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """(prompt, seed) modes: each prompt's own law, and shared by seeds across prompts."""
    own = rng.normal(size=(len(share), len(seed)))
    u = norm.cdf(SHARED * seed + np.sqrt(1 - SHARED**2) * own)
    return (u[..., None] > share.cumsum(1)[:, None, :-1]).sum(-1)


def kernel(modes: np.ndarray) -> np.ndarray:
    return np.where(modes[..., :, None] == modes[..., None, :], 1.0, OTHER)


def plug_in(modes: np.ndarray) -> np.ndarray:
    """(prompt,) n²/‖K‖²."""
    return modes.shape[1] ** 2 / np.square(kernel(modes)).sum((1, 2))


def plug_in_entropy(modes: np.ndarray) -> np.ndarray:
    return entropy((modes[..., None] == np.arange(MODES)).mean(1))


def vendi_by_seed(modes: np.ndarray) -> np.ndarray:
    return vendi_q2_by_seed(kernel(modes))


def distance(modes: np.ndarray) -> np.ndarray:
    """(prompt,) mean over pairs of 1 − cosine."""
    return distances_by_seed(modes).mean(1)


def distances_by_seed(modes: np.ndarray) -> np.ndarray:
    return 1 - pairs_by_seed(kernel(modes))


def entropies_by_seed(modes: np.ndarray) -> np.ndarray:
    return entropy_by_seed(modes, MODES)


def entropy(share: np.ndarray) -> np.ndarray:
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return -(share * logs).sum(1) / np.log(MODES)


def truth() -> dict[str, float]:
    """Mean over very many prompts of each measure of the law itself."""
    rng = np.random.default_rng(12345)
    base = rng.dirichlet(np.full(MODES, 2.0), size=200_000)
    student = collapsed(rng, base)

    def of(share: np.ndarray) -> float:
        return float((1 / (OTHER**2 + (1 - OTHER**2) * np.square(share).sum(1))).mean())

    known = {"vendi base": of(base), "vendi student": of(student)}
    known |= {"entropy base": float(entropy(base).mean())}
    known |= {"entropy student": float(entropy(student).mean())}
    for arm, share in (("base", base), ("student", student)):
        apart = 1 - np.square(share).sum(1)
        known[f"pairwise distance {arm}"] = float((1 - OTHER) * apart.mean())
    return known


def holds(interval: stats.Interval, value: float) -> bool:
    return bool(interval.low <= value <= interval.high)


def flagged(interval: stats.Interval) -> bool:
    return bool((interval.low > 0).any() or (interval.high < 0).any())


def diversity_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Name → (before, after): whether the interval held the truth."""
    arms, rows = Arms.draw(rng, prompts, seeds), {}
    for name, old, new in (
        ("vendi", plug_in, vendi_by_seed),
        ("entropy", plug_in_entropy, entropies_by_seed),
        ("pairwise distance", distance, distances_by_seed),
    ):
        values = [(old(x), new(x)) for x in (arms.base, arms.student)]
        for arm, (before, after) in zip(("base", "student"), values, strict=True):
            known = TRUTH[f"{name} {arm}"]
            rows[f"{name}, {arm}"] = (
                holds(stats.bootstrap_mean(before, resamples=500), known),
                holds(crossed_mean(after), known),
            )
        known = TRUTH[f"{name} student"] - TRUTH[f"{name} base"]
        rows[f"{name}, student − base"] = (
            holds(stats.bootstrap_mean(values[1][0] - values[0][0], resamples=500), known),
            holds(crossed_mean(values[1][1] - values[0][1]), known),
        )
    return rows


def kinds_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """A gain that differs between four kinds of prompts, of which there are equally many."""
    kinds = np.arange(prompts) % 4
    gain = np.array([-1.0, -0.2, 0.4, 0.8])[kinds][:, None]
    shapes = (prompts, 1), (1, seeds), (prompts, seeds)
    values = gain + sum(
        a * rng.normal(size=s) for a, s in zip((0.2, 0.2, 0.5), shapes, strict=True)
    )
    before, after = crossed_mean(values), crossed_mean(values, strata=kinds)
    return {"difference, kinds as strata": (holds(before, 0.0), holds(after, 0.0))}


def share_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """A share of runs: yes or no of each, Beta(2, 1) by prompt, pulled alike by seeds."""
    chance = rng.beta(2, 1, size=(prompts, 1))
    pulled = SHARED * rng.normal(size=seeds) + np.sqrt(1 - SHARED**2) * rng.normal(
        size=(prompts, seeds)
    )
    yes = (norm.cdf(pulled) < chance).astype(float)
    before = stats.bootstrap_mean(yes.mean(1), resamples=500)
    name = "share of runs: fidelity, committed, identified"
    return {name: (holds(before, 2 / 3), holds(crossed_mean(yes), 2 / 3))}


def variance_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Variance across seeds along a direction, student's over base's: 0.5, both by the same
    noise.
    """
    noise = rng.normal(size=(2, 1, seeds)) + rng.normal(size=(2, prompts, seeds))
    size = rng.gamma(4, 0.25, size=(prompts, 1))
    base = np.sqrt(size) * noise[0]
    student = np.sqrt(0.5 * size * rng.gamma(9, 1 / 9, size=(prompts, 1)))
    student = student * (0.8 * noise[0] + 0.6 * noise[1])
    each = [variance_by_seed(x) for x in (base, student)]
    before = stats.paired_ratio(*(x.mean(1) for x in each), resamples=500)
    after = crossed_log_ratio(*each)
    return {"ratio of variances (energy)": (holds(before, 0.5), holds(after, 0.5))}


def pooled_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Retention of all controls, as many as there are prompts: a bootstrap over controls."""
    home = rng.gamma(4, 0.25, size=prompts)
    away = home * rng.beta(3, 2, size=prompts) + 0.05 * rng.normal(size=prompts)
    interval = stats.paired_ratio(home, away, resamples=500)
    return {"retention of all controls": (holds(interval, 0.6), holds(interval, 0.6))}


def prompts_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """A skewed number of each prompt, at the seeds that were run: a bootstrap over prompts."""
    interval = stats.bootstrap_mean(rng.gamma(2, 0.5, size=prompts), resamples=500)
    held = holds(interval, 1.0)
    return {"mean over prompts, at these seeds": (held, held)}


def retention_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Effects 1 and 0.6, skewed over prompts, moved together by seeds."""
    prompt, seed = rng.gamma(4, 0.25, size=(prompts, 1)), rng.normal(size=(1, seeds))
    noise = rng.normal(size=(2, prompts, seeds))
    home = prompt + 0.25 * seed + 0.5 * noise[0]
    away = 0.6 * prompt * rng.gamma(9, 1 / 9, size=(prompts, 1)) + 0.25 * seed + 0.5 * noise[1]
    before = stats.paired_ratio(home.reshape(-1), away.reshape(-1), resamples=500)
    try:
        after = holds(crossed_ratio(home, away), 0.6)
    except UndefinedRatio:
        after = True
    return {"retention": (holds(before, 0.6), after)}


def cka_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Linear CKA of x and 0.8·x + 0.6·w for independent w of x's own law: 0.64."""
    size = np.exp(-np.arange(12) / 4)

    def drawn() -> np.ndarray:
        shapes = (prompts, 1), (1, seeds), (prompts, seeds)
        return size * sum(
            a * rng.normal(size=(*s, len(size)))
            for a, s in zip((0.8, 0.4, 0.6), shapes, strict=True)
        )

    x = drawn()
    y = 0.8 * x + 0.6 * drawn()

    def similar(a: np.ndarray, b: np.ndarray) -> float:
        return cka(a.reshape(-1, len(size)), b.reshape(-1, len(size)))

    left_out = [
        [similar(np.delete(x, i, axis), np.delete(y, i, axis)) for i in range(x.shape[axis])]
        for axis in (0, 1)
    ]
    value = similar(x, y)
    before = stats.jackknife(value, left_out[0])
    return {"CKA": (holds(before, 0.64), holds(crossed_jackknife(value, *left_out), 0.64))}


def error_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """How often something is said that is not so; no effect means two arms of one law."""
    arms = Arms.draw(rng, prompts, seeds, collapse=False)
    old = plug_in(arms.student) - plug_in(arms.base)
    new = vendi_by_seed(arms.student) - vendi_by_seed(arms.base)
    said = verdict(new, 0.2).kind in ("yes", "opposite")
    rows = {"yes or opposite, no effect": (flagged(stats.bootstrap_mean(old, resamples=500)), said)}
    real = Arms.draw(rng, prompts, seeds)
    lost = vendi_by_seed(real.student) - vendi_by_seed(real.base)
    margin = TRUTH["vendi base"] - TRUTH["vendi student"]
    rows["equivalent, effect as large as the margin"] = (
        False,
        verdict(lost, margin).kind == "equivalent",
    )
    return rows


def many_rows(rng: Rng, prompts: int, seeds: int) -> dict[str, tuple[bool, bool]]:
    """Eighteen arms of the reference's own law: is any told from it, and the best one?"""
    share, seed = rng.dirichlet(np.full(MODES, 2.0), size=prompts), rng.normal(size=seeds)
    reference, *others = (labels(rng, share, seed) for _ in range(19))
    old = np.stack([plug_in(x) - plug_in(reference) for x in others], -1)
    new = np.stack([vendi_by_seed(x) - vendi_by_seed(reference) for x in others])
    before = stats.bootstrap_mean(old, resamples=500)
    _, best = best_of(new)
    return {
        "any of 18 arms told apart, no effect": (flagged(before), flagged(simultaneous(new))),
        "best of 18 arms better, no effect": (
            bool(before.low[int(before.estimate.argmax())] > 0),
            best.kind == "yes",
        ),
    }


KINDS: tuple[tuple[Callable[..., dict[str, tuple[bool, bool]]], float], ...] = (
    (diversity_rows, 1.0),
    (kinds_rows, 1.0),
    (share_rows, 1.0),
    (retention_rows, 1.0),
    (pooled_rows, 1.0),
    (variance_rows, 1.0),
    (prompts_rows, 1.0),
    (cka_rows, 0.5),
    (error_rows, 1.0),
    (many_rows, 0.5),
)
"""What is simulated, and on what share of the runs."""
TRUTH = truth()


def simulate(size: tuple[int, int], runs: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Name → share of runs (before, after) at a size of prompts × seeds."""
    result: dict[str, tuple[float, float]] = {}
    for kind, share in KINDS:
        rng = np.random.default_rng([seed, *size])
        rows = [kind(rng, *size) for _ in range(max(int(runs * share), 1))]
        for name in rows[0]:
            before, after = np.mean([row[name] for row in rows], axis=0)
            result[name] = (float(before), float(after))
    return result


def table(found: dict[str, dict[str, tuple[float, float]]]) -> str:
    """The rows as Markdown, before → after at each size."""
    sizes = list(found)
    lines = ["| | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for name in found[sizes[0]]:
        cells = (f"{found[s][name][0]:.3f} → {found[s][name][1]:.3f}" for s in sizes)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


HEAD = """## Coverage of intervals, and errors of verdicts

Share of {runs} simulated runs (CKA and many arms: {half}) in which a nominal 95 % interval held the
truth, and of runs in which something was said that is not so; **before → after**, at prompts ×
seeds. Before: bootstraps over prompts of plug-in values, pooled pictures (retention), a jackknife
over prompts (CKA), no strata, each arm on its own. The chance error of a share near .95 is
{error:.3f}.
"""


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="20 runs at 8 × 12; writes nothing")
    args = parser.parse_args(None if argv is None else list(argv))
    found, runs = {}, 20 if args.quick else args.runs
    for size in SIZES[:1] if args.quick else SIZES:
        found[f"{size[0]} × {size[1]}"] = simulate(size, runs)
    print(table(found))
    if not args.quick:
        error = float(np.sqrt(0.95 * 0.05 / runs))
        head = HEAD.format(runs=runs, half=runs // 2, error=error)
        (RESULTS / "coverage.md").write_text(f"{head}\n{table(found)}\n")
        content: dict[str, Any] = {"runs": runs, "truth": TRUTH, "rows": found}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (RESULTS / "coverage.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
