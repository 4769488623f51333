"""The numbers that the paper prints, kept apart from every number measured here.

Gandikota & Bau, *Distilling Diversity and Control in Diffusion Models*, arXiv 2503.10637v4 (WACV
2026). They belong to SDXL and its students on the authors' machine: nothing of the embedded family
may be compared with their size, only with their order and their ratios."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

CITATION = "Gandikota & Bau, arXiv 2503.10637v4"


@dataclass(frozen=True)
class PublishedTable:
    """A table as printed: ``rows[row]`` holds a value for each of ``columns``; NaN where the paper
    prints none.
    """

    caption: str
    unit: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]

    def to_array(self) -> xr.DataArray:
        """(row, column) values, with caption, unit and citation in the attributes."""
        attrs = {"caption": self.caption, "unit": self.unit, "source": CITATION}
        coords = {"row": list(self.rows), "column": list(self.columns)}
        return xr.DataArray(
            np.array(list(self.rows.values())), coords, ("row", "column"), "published", attrs
        )


STUDENTS = ("DMD2", "LCM", "Turbo", "Lightning")

TABLES = {
    "1": PublishedTable(
        "Control transfer: change of the CLIP score, original to edited",
        "% of the original score",
        ("base", *STUDENTS),
        {
            "age": (20.4, 17.8, 27.1, 19.0, 24.8),
            "smile": (19.7, 21.4, 19.5, 33.5, 14.0),
            "muscular": (34.6, 26.7, 33.8, 39.0, 33.2),
            "lego": (32.2, 26.8, 26.0, 30.3, 29.7),
            "watercolor": (34.3, 31.4, 29.6, 27.5, 39.2),
            "crayon": (32.7, 27.8, 24.7, 29.5, 32.5),
            "SliderSpace 1": (29.3, 28.1, 24.1, 27.7, 22.4),
            "SliderSpace 16": (32.9, 32.0, 33.4, 28.1, 29.9),
            "SliderSpace 32": (30.7, 28.9, 29.3, 30.5, 31.4),
        },
    ),
    "2": PublishedTable(
        "Diversity across 100 seeds of a prompt",
        "mean pairwise DreamSim distance",
        ("base", "DMD2", "hybrid"),
        {
            "sunset beach": (0.396, 0.271, 0.373),
            "cute puppy": (0.233, 0.199, 0.265),
            "futuristic city": (0.237, 0.198, 0.283),
            "person": (0.484, 0.347, 0.461),
            "Van Gogh art": (0.337, 0.305, 0.366),
            "mean": (0.337, 0.264, 0.350),
        },
    ),
    "3": PublishedTable(
        "COCO-30k: quality, alignment and time",
        "FID, Inception score, CLIP score, seconds an image",
        ("FID", "IS", "CLIP", "seconds"),
        {
            "base (50 steps)": (12.74, 24.74, 31.83, 9.22),
            "student (4 steps)": (15.52, 27.20, 31.69, 0.64),
            "hybrid (4 steps)": (10.79, 26.13, 32.12, 0.64),
            "first step skipped (3 steps)": (10.12, 24.69, 31.71, 0.53),
        },
    ),
    "D.1": PublishedTable(
        "Other backbones: 100 samples of one prompt, “image of a car”",
        "mean pairwise DreamSim distance; seconds an image",
        ("base", "student", "hybrid", "base seconds", "student seconds"),
        {
            "PixArt-α → PixArt-δ": (0.342, 0.198, 0.339, 4.1, 0.9),
            "SD 2.1 → SD-Turbo": (0.298, 0.171, 0.294, 3.2, 0.7),
        },
    ),
    "E.1": PublishedTable(
        "Causal swap: which of the student's steps the base replaces",
        "mean pairwise DreamSim distance; seconds an image",
        ("diversity", "seconds"),
        {
            "base": (0.357, np.nan),
            "student": (0.264, np.nan),
            "only the first step replaced": (0.350, 0.64),
            "only later steps replaced": (0.251, 6.61),
        },
    ),
}
"""Number of the paper's table → what it prints."""


def published_retention() -> dict[str, float]:
    """Student → its mean change over the nine controls of Table 1, over the base's: an inference,
    not printed there.

    >>> {name: round(share, 2) for name, share in published_retention().items()}
    {'DMD2': 0.9, 'LCM': 0.93, 'Turbo': 0.99, 'Lightning': 0.96}
    """
    means = TABLES["1"].to_array().mean("row")
    return {
        student: float(means.sel(column=student) / means.sel(column="base")) for student in STUDENTS
    }
