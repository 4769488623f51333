"""What the distillation trainers share: the timesteps, the run of one student, checkpoints and
figures along the way, the pipeline at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xhat.zoo.family.base import draw
from xhat.zoo.family.loop import ema, train_loop
from xhat.zoo.family.networks import follower_scheduler, save_pipeline, student_scheduler
from xhat.zoo.family.precision import bfloat16_is_faster
from xhat.zoo.family.progress import progress
from xhat.zoo.family.teacher import Teacher
from xhat.zoo.pairs import STUDENT_DEFAULTS, WEIGHTS

TIMESTEPS = (999, 390, 155, 60)
"""Where the students evaluate the network.

A 16 × 16 latent at noise level σ holds (128/16)² times less of its picture than SDXL's at the same
σ (2301.11093; 2403.03206). The first hand-over, 390, has a log-SNR of −0.2: what step one decided
is still seen by step two, as it is in SDXL."""

CHECK_EVERY = 200


@dataclass(frozen=True)
class Distillation:
    """One training of one student.

    ``decay`` is that of the running average of its weights, which is what is sampled and kept;
    ``renoise``: whether the student is noised anew between steps, or follows a trajectory."""

    name: str
    runs: Path
    steps: int
    seed: int = 0
    device: str = "cpu"
    timesteps: tuple[int, ...] = TIMESTEPS
    decay: float = 0.99
    renoise: bool = True

    @property
    def folder(self) -> Path:
        return self.runs / run_name(self.name, self.seed)

    @property
    def defaults(self) -> dict[str, Any]:
        """What belongs to a call of the student's pipeline."""
        steps = len(self.timesteps)
        return STUDENT_DEFAULTS | {
            "num_inference_steps": steps,
            "timesteps": list(self.timesteps),
        }


def run_name(name: str, seed: int) -> str:
    """``turbo`` for seed 0, ``turbo-2`` for seed 1, and so on."""
    return name if seed == 0 else f"{name}-{seed + 1}"


def distil(
    run: Distillation,
    teacher: Teacher,
    student: Any,
    parts: Mapping[str, Any],
    step: Callable[[int], Mapping[str, float]],
) -> Path:
    """Train, averaging the student's weights; every ``CHECK_EVERY`` steps keep a checkpoint in half
    precision and note how it does, as before the first. Returns the folder of the pipeline.
    """
    average = ema(student, run.decay)

    def step_and_average(i: int) -> Mapping[str, float]:
        losses = step(i)
        average.update_parameters(student)
        return losses

    def check(done: int) -> None:
        _keep_checkpoint(run.folder, average.module, done)
        _note(run, done, evaluate(run, teacher, average.module))
        if done == run.steps:
            _save(run, teacher, average.module)

    if not (run.folder / "training.json").exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        _note(run, 0, evaluate(run, teacher, average.module))
    train_loop(
        run.folder,
        {"student": student, "average": average, **parts},
        step_and_average,
        run.steps,
        save_every=50,
        look=check,
        look_every=CHECK_EVERY,
    )
    return run.folder / "pipeline"


def evaluate(run: Distillation, teacher: Teacher, unet: Any) -> dict[str, float]:
    """Figures of a student as it samples (see :func:`xhat.zoo.family.progress.progress`)."""

    def sampler(cond: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        if run.renoise:
            return teacher.renoised(unet, cond, run.timesteps, eps)
        return teacher.followed(unet, cond, run.timesteps, eps[0])

    return progress(teacher, sampler, len(run.timesteps))


def _keep_checkpoint(folder: Path, unet: Any, done: int) -> None:
    from safetensors.torch import save_file

    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    weights = {name: w.half().contiguous() for name, w in unet.state_dict().items()}
    save_file(weights, checkpoints / f"step_{done:05d}.safetensors")


def _note(run: Distillation, done: int, figures: Mapping[str, float]) -> None:
    """Add a row to ``training.json``; rows of later steps, of a run that was killed, go."""
    file = run.folder / "training.json"
    rows = json.loads(file.read_text())["progress"] if file.exists() else []
    rows = [row for row in rows if row["step"] < done] + [{"step": done, **figures}]
    precision = "bfloat16" if bfloat16_is_faster(run.device) else "float32"
    note = {
        "steps": done,
        "seed": run.seed,
        "timesteps": run.timesteps,
        "precision": precision,
        "progress": rows,
    }
    file.write_text(json.dumps(note, indent=1) + "\n")


def _save(run: Distillation, teacher: Teacher, unet: Any) -> None:
    folder = run.folder / "pipeline"
    save_pipeline(
        folder,
        vae=teacher.vae,
        tokenizer=teacher.tokenizer,
        text_encoder=teacher.text_encoder,
        unet=unet,
        scheduler=student_scheduler() if run.renoise else follower_scheduler(),
        defaults=run.defaults,
    )
    draw(folder, run.folder / "grid.png", **run.defaults)


def ship(run: Path, weights: Path = WEIGHTS) -> Path:
    """Copy the pipeline, grid and notes of a finished run to where the package takes them from."""
    to = weights / run.name
    shutil.copytree(run / "pipeline", to, dirs_exist_ok=True)
    for name in ("grid.png", "training.json"):
        shutil.copy(run / name, to / name)
    return to
