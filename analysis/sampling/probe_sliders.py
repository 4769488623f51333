"""Whether a slider does to a checkpoint what it does to its base, without anything that reads its
meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xhat.analysis import stats
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.effects import effect, free_runs
from xhat.analysis.traces.layers import NoSharedLevel
from xhat.analysis.traces.readings import X0
from xhat.hooks.points.names import denoiser_of
from xhat.probes.features import middle_point
from xhat.zoo.lora.loading import UnusableLora


def slider_transfer(
    path: Path,
    base: Any,
    student: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    batch_size: int = 16,
) -> dict[str, Any]:
    """Cosine between the changes that a slider makes to x̂₀ of both networks, on the very same
    inputs, and their sizes.

    The inputs are the checkpoint's own x_t at all its noise levels. Keys ``file``, ``cosine``
    (mean, low, high over prompts), ``size`` (RMS of the change in the checkpoint over that in the
    base), ``said``; or ``said`` alone with the reason, where the two schedules do not meet or the
    file does not load."""
    control, points = Control(path.stem, path), (middle_point(denoiser_of(base)),)
    try:
        states = free_runs(student, prompts, seeds, points=points, batch_size=batch_size)
        moves = [
            effect(pipe, control, states, points=points, batch_size=batch_size)[X0]
            for pipe in (base, student)
        ]
    except (NoSharedLevel, UnusableLora) as error:
        return {"file": str(path), "said": f"Slider {path.stem} was not tried: {error}"}
    ours, theirs = (
        m.transpose("prompt", "seed", "step", "latent").values.astype(np.float64) for m in moves
    )
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    if not lengths.min() > 0:
        return {
            "file": str(path),
            "said": f"Slider {path.stem} moves nothing in one of the two networks.",
        }
    cosines = ((ours * theirs).sum(-1) / lengths).mean((1, 2))
    interval = stats.bootstrap_mean(cosines)
    cosine = [float(v) for v in (interval.estimate, interval.low, interval.high)]
    size = float(np.sqrt((theirs**2).mean() / (ours**2).mean()))
    said = (
        f"Slider {path.stem}: on the same inputs it moves x̂₀ of the checkpoint in the direction "
        f"in which it moves the base's at cosine {cosine[0]:.2f} [{cosine[1]:.2f}, "
        f"{cosine[2]:.2f}], {size:.2f} times as far."
    )
    return {"file": str(path), "cosine": cosine, "size": size, "said": said}
