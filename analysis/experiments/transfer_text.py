"""What a study of controls says: the retention table beside the paper's, and plain sentences, all
computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.transfer import Study
from xhat.analysis.experiments.transfer_data import base_controls, finite_mean, twins
from xhat.analysis.sampling.dose_response import retention

WEAK = 0.5
"""Retention below this is named."""


def table(data: xr.Dataset) -> str:
    """Retention of every control in every other model, with intervals, then the paper's means.
    ``data``: of the figure ``retention``."""
    models = [str(m) for m in data["model"].values]
    lines = [
        f"{'retention':18}{'trained on':>11}{'effect there':>22}"
        + "".join(f"{m:>24}" for m in models)
    ]
    for name in data["control"].values:
        row = data.sel(control=name)
        home = int(np.flatnonzero(np.isfinite(row["home"].values))[0])
        cells = "".join(f"{_cell(row.sel(model=m), 'retention'):>24}" for m in models)
        lines.append(
            f"{name!s:18}{str(row['trained_on'].values):>11}"
            f"{_cell(row.isel(model=home), 'home'):>22}{cells}"
        )
    pooled = "".join(f"{_cell(data.sel(model=m), 'pooled'):>24}" for m in models)
    lines.append(f"{'all, of the base':18}{'':>11}{'':>22}{pooled}")
    means = zip(data["published_student"].values, data["published"].values, strict=True)
    paper = ", ".join(f"{student} {mean:.2f}" for student, mean in means)
    lines.append(
        f"The paper, on SDXL, change of CLIP score, all nine controls: {paper} "
        f"({data.attrs['source']})."
    )
    lines.append(
        "Effect: change of the score from scale -1 to 1 (a style: 0 to 1). 95 % bootstraps over "
        f"prompts × {data.attrs['seeds']} seeds, of all over controls; '-' where the control has "
        "no effect in its own model."
    )
    return "\n".join(lines)


def _cell(row: xr.Dataset, name: str) -> str:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if not np.isfinite(value):
        return "-"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{value:.2f}"


def findings(study: Study, data: dict[str, xr.Dataset]) -> list[str]:
    """The study in sentences: transfer there and back, alignment beside its nulls, energy.
    ``data``: of the figures.
    """
    lines = _transfer(data["retention"]) + _small_scales(study)
    for student in study.alignment:
        lines += [*_alignment(data["alignment_map"].sel(model=student), student)]
        lines += [
            *_energy(
                data["energy"].sel(model=student), data["alignment_map"].sel(model=student), student
            )
        ]
    return lines + _twins(study) + _saturation(data["dose_response"])


def _transfer(data: xr.Dataset) -> list[str]:
    lines = []
    for model in data["model"].values:
        tried = data.sel(model=model)
        tried = tried.isel(control=np.flatnonzero(np.isfinite(tried["away"].values)))
        for origin in dict.fromkeys(tried["trained_on"].values.tolist()):
            part = tried.isel(control=np.flatnonzero(tried["trained_on"].values == origin))
            lines.append(_direction_of(part, str(origin), str(model)))
    return lines


def _direction_of(part: xr.Dataset, origin: str, model: str) -> str:
    """One sentence on all controls of a model in another."""
    retained, low = part["retention"].values, part["retention_low"].values
    works = np.isfinite(retained) & (low > 0)
    dead = [str(n) for n in part["control"].values[~np.isfinite(retained)]]
    lost = [str(n) for n in part["control"].values[np.isfinite(retained) & ~works]]
    weak = [str(n) for n in part["control"].values[works & (retained < WEAK)]]
    text = f"{origin} → {model}: {works.sum()} of {len(retained) - len(dead)} controls work"
    text += f", with a median retention of {np.median(retained[works]):.2f}" if works.any() else ""
    text += f"; not told from no effect: {', '.join(lost)}" if lost else ""
    text += f"; under half of it is left of {', '.join(weak)}" if weak else ""
    verb = "has" if len(dead) == 1 else "have"
    text += f"; {', '.join(dead)} {verb} no effect on {origin} itself" if dead else ""
    return text + "."


def _small_scales(study: Study) -> list[str]:
    """Retention at the smallest scale, where no effect is at its end: a sharper test than that at
    scale 1.
    """
    small = min(s for s in study.settings.scales if s > 0)
    if small == 1:
        return []
    found: dict[tuple[str, str], list[float]] = {}
    for control in study.controls:
        for model in (m for name, m in study.retention if name == control.name):
            home, away = (study.doses[control.name, m] for m in (control.trained_on, model))
            found.setdefault((control.trained_on, model), []).append(
                float(retention(home, away, scale=small)["retention"])
            )
    lines = []
    for (origin, model), values in found.items():
        known = [value for value in values if np.isfinite(value)]
        if known:
            spread = f"{np.median(known):.2f} ({min(known):.2f} to {max(known):.2f})"
            lines.append(
                f"{origin} → {model} at scale ±{small:g}: median retention of {len(known)} "
                f"controls {spread}."
            )
    return lines


def _alignment(data: xr.Dataset, student: str) -> list[str]:
    at = data.sel(point="x0", control=base_controls(data))
    own, other, random, same = (
        finite_mean(at[n].values) for n in ("cosine", "other", "random", "same_random")
    )
    p = data["p_map"].sel(point="x0").values
    unlike = [
        f"{name} {value:.2f}"
        for name, value in (("other controls", other), ("random LoRAs", random))
        if np.isfinite(value)
    ]
    unlike += [f"with controls exchanged p ≤ {np.nanmax(p):.2g}"] if np.isfinite(p).any() else []
    text = (
        f"{student}: given the same input, a control changes x̂₀ as it does in the base, with a "
        f"cosine of {own:.2f}"
    )
    text += f" ({', '.join(unlike)})" if unlike else ""
    if not np.isfinite(same):
        return [text + "."]
    low, high = (finite_mean(at[f"same_random_{end}"].values) for end in ("low", "high"))
    shared = (
        f"a random LoRA of equal norm changes x̂₀ alike in both with {same:.2f} ({low:.2f} to "
        f"{high:.2f})"
    )
    if own > high:
        return [f"{text}. Shared weights do not explain all of it: {shared}."]
    return [f"{text}. That is no more than shared weights give: {shared}."]


def _energy(data: xr.Dataset, aligned: xr.Dataset, student: str) -> list[str]:
    at = data.sel(point="x0", control=base_controls(data))
    lines = []
    for step in (0, at.sizes["step"] - 1):
        now = at.isel(step=step)
        less, more = (now["absolute_high"].values < 1), (now["absolute_low"].values > 1)
        variance, share = (
            float(np.exp(np.log(now[name]).mean())) for name in ("absolute", "ratio")
        )
        lines.append(
            f"{student}, σ = {float(now['sigma']):.3g}: of {now.sizes['control']} directions of "
            f"controls, its seeds vary less than the base's along {less.sum()}, more along "
            f"{more.sum()}; variance along them is {variance:.2f} of the base's, their share of "
            f"all variance {share:.2f} of it (geometric means)."
        )
    p = aligned["p"].sel(point="x0", control=at["control"]).max("step").values
    idle = (at["absolute_high"].isel(step=0).values < 1) & (p <= 0.05)
    names = [str(n) for n in at["control"].values[idle]]
    if names:
        verbs = ("exists", "is") if len(names) == 1 else ("exist", "are")
        lines.append(
            f"{student}: {', '.join(names)} {verbs[0]} there and {verbs[1]} less used than in the "
            "base."
        )
    return lines


def _twins(study: Study) -> list[str]:
    found = twins(study)
    if not found.sizes.get("pair"):
        return []
    names = ("weights", "left", "left_random", "effects")
    weights, left, chance, effects = (finite_mean(found[n].values) for n in names)
    text = (
        "Trained on base and student apart, sliders of one attribute have a weight cosine of "
        f"{weights:.2f} and share {left:.2f} of the space they write to (random: {chance:.2f}); "
        f"what they do to x̂₀ has cosine {effects:.2f}"
    )
    return [
        f"{text}: weights alone do not show that they do the same."
        if weights < effects / 2
        else f"{text}."
    ]


def _saturation(data: xr.Dataset) -> list[str]:
    worn = data["saturated"] == 1
    if not bool(worn.any()):
        return ["No scale that was tried saturates the pictures."]
    cells = worn.stack(cell=("control", "model", "scale"))
    named = [f"{c} at {s:g} on {m}" for c, m, s in cells["cell"].values[cells.values]]
    rest = f", and {len(named) - 6} more" if len(named) > 6 else ""
    return [f"Saturated pictures: {', '.join(named[:6])}{rest}."]


def as_json(study: Study, data: dict[str, xr.Dataset], lines: list[str]) -> dict[str, Any]:
    """The numbers of the table and the sentences, in JSON's own types."""
    kept = data["retention"]
    names = [f"{n}{end}" for n in ("home", "away", "retention") for end in ("", "_low", "_high")]
    rows: list[dict[str, Any]] = [
        {
            "control": str(c),
            "model": str(m),
            "trained_on": str(kept["trained_on"].sel(control=c).values),
        }
        | {n: float(kept[n].sel(control=c, model=m)) for n in names}
        for c in kept["control"].values
        for m in kept["model"].values
        if np.isfinite(kept["away"].sel(control=c, model=m))
    ]
    for row in rows:
        row |= {k: None for k in names if not np.isfinite(row[k])}
    published = dict(
        zip(
            kept["published_student"].values.tolist(),
            kept["published"].values.tolist(),
            strict=True,
        )
    )
    settings = dict(vars(study.settings).items())
    return {
        "rows": rows,
        "published": {"source": kept.attrs["source"], "mean_retention": published},
        "findings": lines,
        "settings": settings,
    }
