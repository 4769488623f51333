"""What the swaps and controls say, in plain sentences made from their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from xhat.analysis.sampling.arms import MEASURES, against

JUDGED = ("vendi_q2", "attribute_entropy")
"""The measures that sentences are made for, chosen before any run."""


@dataclass(frozen=True)
class Contrast:
    """A difference of two arms that tells one cause from the rest. ``asks``: what it means where it
    is above zero.
    """

    cause: str
    more: str
    less: str
    asks: str


CONTRASTS = (
    Contrast(
        "effect",
        "hybrid",
        "student",
        "one base step in place of the student's first raises diversity",
    ),
    Contrast(
        "skipped step", "skip", "student", "leaving the student's first step out raises diversity"
    ),
    Contrast("base's x̂₀", "hybrid", "skip", "the base's first step gives more than no first step"),
    Contrast(
        "base's x̂₀",
        "fresh",
        "student",
        "the base's x̂₀ for the student's, under the same noise, raises it",
    ),
    Contrast("base's x̂₀", "fresh", "fresh_mean", "that each seed has an x̂₀ of its own matters"),
    Contrast("base's x̂₀", "fresh", "fresh_zero", "that there is any x̂₀ matters"),
    Contrast("base's x̂₀", "fresh", "fresh_shuffle", "it matters that the x̂₀ is the seed's own"),
    Contrast(
        "noise",
        "student_own",
        "student",
        "the student keeps more without fresh noise between its steps",
    ),
    Contrast(
        "noise", "hybrid", "fresh", "the base's own noise carried on gives more than fresh noise"
    ),
    Contrast(
        "noise",
        "student",
        "student_shared",
        "noise that differs between seeds adds diversity to the student",
    ),
    Contrast(
        "guidance",
        "student",
        "student_guided",
        "guidance at the first step costs the student diversity",
    ),
    Contrast(
        "guidance", "hybrid", "hybrid_guided", "guidance at the base's first step costs diversity"
    ),
)
DECIDING = {
    "the skipped step": ("skip", "student"),
    "the base's x̂₀": ("fresh", "student"),
    "the noise": ("student_own", "student"),
}
"""Each cause alone against the student: no first step; the base's x̂₀ under the student's noise; no fresh noise."""


def contrasts(measured: xr.Dataset) -> xr.Dataset:
    """Each contrast (contrast): ``cause``, ``more``, ``less``, ``asks``, and mean and interval of
    every measure.
    """
    parts = [_contrast(measured, c.more, c.less) for c in CONTRASTS]
    found = xr.concat(parts, "contrast", combine_attrs="override")
    said = {
        n: ("contrast", [getattr(c, n) for c in CONTRASTS])
        for n in ("cause", "more", "less", "asks")
    }
    return found.assign(said)


def statement(measured: xr.Dataset) -> list[str]:
    """The answer in sentences: does one base step help, is it the first step, and which cause is
    behind it.

    "Above" and "below" are said only where the whole interval is; it holds one comparison, not all
    of them together."""
    lines = []
    for measure in JUDGED:
        if measure in measured:
            lines += [
                _gap(measured, measure),
                _first_or_later(measured, measure),
                _which(measured, measure),
            ]
    return lines


def _gap(measured: xr.Dataset, measure: str) -> str:
    lost = _difference(measured, "student", "base", measure)
    back = _difference(measured, "hybrid", "base", measure)
    return (
        f"{MEASURES[measure]}: against the base at its own steps and guidance the student {_moves(lost)}, and the "
        f"hybrid {_moves(back)}."
    )


def _first_or_later(measured: xr.Dataset, measure: str) -> str:
    first, rest = (
        _difference(measured, "hybrid", "student", measure),
        _difference(measured, *_later(measured), measure),
    )
    apart = _difference(measured, "hybrid", _later(measured)[0], measure)
    holds = first[1] > 0 and apart[1] > 0
    verdict = (
        "so the first step decides" if holds else "so it is not shown that the first step decides"
    )
    return (
        f"{MEASURES[measure]}: with the base at the first step alone the student {_moves(first)}; with the base at all "
        f"later steps it {_moves(rest)}; the first less the second is {_text(apart)}, {verdict}."
    )


def _which(measured: xr.Dataset, measure: str) -> str:
    found = {cause: _difference(measured, *pair, measure) for cause, pair in DECIDING.items()}
    shown = sorted(
        (cause for cause, value in found.items() if value[1] > 0),
        key=lambda cause: -found[cause][0],
    )
    alone = "; ".join(f"{cause} {_text(value)}" for cause, value in found.items())
    head = f"{MEASURES[measure]}: is it the base's x̂₀, the noise, or the skipped step? Each alone, against the student: "
    if not shown:
        return f"{head}{alone}. None is shown to raise diversity."
    beyond = _difference(measured, "hybrid", "skip", measure)
    rest = f"The hybrid less the skipped step is {_text(beyond)}{_verdict(beyond)}."
    return f"{head}{alone}. Shown to raise diversity: {', '.join(shown)} (largest first). {rest}"


def _later(measured: xr.Dataset) -> tuple[str, str]:
    """The arm in which the base makes all steps but the first, and the student."""
    names = [str(arm) for arm in measured["arm"].values]
    return next(n for n in names if n.startswith("sb") and set(n[1:]) == {"b"}), "student"


def _contrast(measured: xr.Dataset, more: str, less: str) -> xr.Dataset:
    return against(measured.sel(arm=[more, less]), less).isel(arm=0, drop=True)


def _difference(
    measured: xr.Dataset, more: str, less: str, measure: str
) -> tuple[float, float, float]:
    return _bounds(_contrast(measured[[measure]], more, less), measure)


def _text(value: tuple[float, float, float]) -> str:
    return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"


def _moves(value: tuple[float, float, float]) -> str:
    how = "gains" if value[1] > 0 else "loses" if value[2] < 0 else "is not shown to change,"
    return f"{how} {_text(value)}"


def _verdict(value: tuple[float, float, float]) -> str:
    if value[1] > 0:
        return ": the base's step gives more than leaving the step out does"
    if value[2] < 0:
        return ": leaving the step out gives more than the base's step does"
    return ": the base's step is not shown to give more than leaving the step out"


def table_text(table: xr.Dataset) -> str:
    """The rows of a swap matrix or of controls as text, each under its ``label``."""
    shown = [m for m in (*JUDGED, "fidelity") if f"{m}_mean" in table]
    wide = max(len(str(name)) for name in table["label"].values) + 2
    head = "".join(f"{MEASURES[m]:>24}" for m in shown) + f"{'less the student':>25}"
    lines = [f"{'':{wide}}{head}{'RMS':>7}{'evals':>7}{'s/image':>9}"]
    for i in range(table.sizes["arm"]):
        row = table.isel(arm=i)
        cells = "".join(f"{_cell(row, m):>24}" for m in shown)
        cells += (
            f"{_text(_bounds(row, f'{JUDGED[0]}_less_student')):>25}{float(row['rms_mean']):7.2f}"
        )
        lines.append(
            f"{row['label'].item():{wide}}{cells}{float(row['evaluations']):7.0f}{float(row['seconds']):9.3f}"
        )
    attrs = table.attrs
    lines.append(
        f"Means over {attrs['n']} prompts × {attrs['n_seeds']} seeds; {100 * attrs['level']:g} % {attrs['interval']}. "
        f"Less the student: {MEASURES[JUDGED[0]]}, paired over prompts."
    )
    return "\n".join(lines)


def _cell(row: xr.Dataset, name: str) -> str:
    mean, low, high = _bounds(row, name)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _bounds(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    mean, low, high = (float(found[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    return mean, low, high
