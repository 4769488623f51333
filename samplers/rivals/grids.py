"""The settings among which a contest picks each method's: as many for one as for another.

A method's own are declared in its file; those of plans, which have none, are here. Methods that are
not named have nothing to set."""

from __future__ import annotations

from typing import Any

from xhat.samplers.rivals import (
    cads,
    dispersal,
    embedding,
    entropy,
    feature_particles,
    group,
    modes,
    particles,
    spectrum,
    stride,
    teacher,
)

Grid = tuple[dict[str, Any], ...]

SETTINGS = 6
"""How many each method has."""

HYBRID: Grid = (
    {"base_evaluations": 1},
    {"base_evaluations": 1, "noise": "fresh"},
    {"base_evaluations": 2},
    {"base_evaluations": 3},
    {"base_evaluations": 5},
    {"base_steps": 2, "base_evaluations": 2},
)
COMBINED: Grid = tuple(
    {"noise_scale": scale, "base_evaluations": evaluations}
    for evaluations in (1, 2)
    for scale in (0.1, 0.2, 0.4)
)
STRENGTH: Grid = tuple({"strength": s} for s in (0.25, 0.4, 0.5, 0.6, 0.75, 0.9))
GUIDANCE_INTERVAL: Grid = tuple({"guidance_scale": g} for g in (1.5, 2.0, 2.5, 3.0, 4.0, 6.0))

GRIDS: dict[str, Grid] = {
    "hybrid": HYBRID,
    "hybrid_embedding_noise": COMBINED,
    "strength": STRENGTH,
    "guidance_interval": GUIDANCE_INTERVAL,
    "cads": cads.GRID,
    "particles": particles.GRID,
    "particles_features": feature_particles.GRID,
    "teacher": teacher.GRID,
    "modes": modes.GRID,
    "feature_dispersal": dispersal.GRID,
    "stride": stride.GRID,
    "group_inference": group.GRID,
    "spectral_noise": spectrum.GRID,
    "sparke": entropy.GRID,
    "embedding_noise": embedding.GRID,
}
