"""Whether samples can be as good and teach less: students of plain, antidistilled and reversed
samples of the embedded base.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange, repeat
from tqdm.auto import tqdm

from xhat.analysis.experiments.setting import check_whole_number
from xhat.analysis.result import Result
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import verdict
from xhat.hooks.trace import trace
from xhat.samplers.antidistillation import antidistilled
from xhat.zoo.family.attributes import KINDS, caption, sample_scene
from xhat.zoo.family.distil import TIMESTEPS
from xhat.zoo.family.imitation import degraded, imitate
from xhat.zoo.family.judge import load_judge
from xhat.zoo.family.progress import decode_pictures
from xhat.zoo.family.teacher import SHAPE, Teacher, load_teacher
from xhat.zoo.pairs import load_model

PLAIN, ANTI, REVERSED = "plain", "antidistilled", "reversed"
MARGIN = 0.05
"""Of obedience: as fidelity's in the other experiments."""
BATCH, LEARNED_FROM = 40, 256


@dataclass(frozen=True, kw_only=True)
class AntidistillationStudy:
    """What :func:`measure_antidistillation` is asked.

    Parameters
    ----------
    captions, seeds
        Numbers of full captions, and of samples under each, of which students learn.
    weight
        λ of :class:`~xhat.samplers.antidistillation.Antidistillation`: of the antidistilled
        samples; the reversed ones have −λ.
    degradation
        ‖εg‖/‖θ‖ of the degraded proxy.
    steps, students
        Training steps of a student, and how many are trained of each arm, in batches of their own.
    held_out
        Captions that no student learned, on which they are judged.
    """

    captions: int = 160
    seeds: int = 3
    weight: float = 0.1
    degradation: float = 0.0005
    steps: int = 150
    students: int = 3
    held_out: int = 160

    def __post_init__(self) -> None:
        for name in ("captions", "seeds", "steps", "students", "held_out"):
            check_whole_number(name, getattr(self, name))
        if not 0 < self.weight < 1 or not 0 < self.degradation < 1:
            raise ValueError(
                "weight and degradation are shares between 0 and 1, got "
                f"{self.weight} and {self.degradation}"
            )


def measure_antidistillation(config: AntidistillationStudy, *, cache: Path) -> Result:
    """Samples of the embedded base, plain and moved within a budget towards what teaches less, or
    more; students taught by each; and both judged on obedience to full captions.

    Parameters
    ----------
    cache
        Folder of the samples and of what students do; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data["antidistillation"]``: ``sample`` (arm, caption, seed) and ``student`` (arm,
        held_out, run) obedience, ``moved`` (arm), the root mean square by which samples differ
        from the plain ones, over theirs.

    References
    ----------
    Savani et al., arXiv 2504.13146, on language models.
    """
    teacher = load_teacher()
    taught, held_out = _captions(config)
    samples = _samples(config, teacher, taught, cache)
    known = Cache(cache / "students")
    data = xr.Dataset(
        {
            "sample": _stacked(
                {n: _obeyed_samples(teacher, x, taught) for n, x in samples.items()}
            ),
            "student": _stacked(
                {n: _students(n, x, config, teacher, known, held_out) for n, x in samples.items()}
            ),
            "moved": ("arm", [_moved(x, samples[PLAIN]) for x in samples.values()]),
        },
        {"arm": list(samples)},
        {"weight": config.weight, "margin": MARGIN},
    )
    return Result(
        "antidistillation",
        {"antidistillation": data},
        antidistillation_table(data),
        sentences(data),
        asdict(config),
    )


def _captions(config: AntidistillationStudy) -> tuple[list[str], list[str]]:
    """Captions that are taught, and others that are held out."""
    rng, found = random.Random(0), dict[str, None]()
    while len(found) < config.captions + config.held_out:
        found[caption(sample_scene(rng.choice(KINDS), rng))] = None
    listed = list(found)
    return listed[: config.captions], listed[config.captions :]


def _samples(
    config: AntidistillationStudy, teacher: Teacher, captions: Sequence[str], cache: Path
) -> dict[str, np.ndarray]:
    """Arm → latents (caption, seed, channel, y, x)."""
    base = load_model("demo/base")

    def drawn(name: str, pipe: Any) -> np.ndarray:
        tree = trace(
            pipe,
            captions,
            seeds=range(config.seeds),
            store=cache / "traces" / f"{name}.zarr",
            batch_size=BATCH,
            output_type="latent",
        )
        return np.asarray(tree["final"].values)

    plain = drawn(PLAIN, base)
    some, cond = _rows(teacher, plain, captions)
    worse = degraded(teacher, some[:LEARNED_FROM], cond[:LEARNED_FROM], config.degradation)
    proxies = [_with(base, network) for network in (copy.deepcopy(teacher.unet), worse)]
    return {PLAIN: plain} | {
        name: drawn(name, antidistilled(base, *proxies, weight=weight))
        for name, weight in ((ANTI, config.weight), (REVERSED, -config.weight))
    }


def _with(base: Any, unet: Any) -> Any:
    pipe = copy.copy(base)
    pipe.register_modules(unet=unet)
    return pipe


def _rows(
    teacher: Teacher, latents: np.ndarray, captions: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, …) latents, and the embeddings of their captions."""
    cond = repeat(teacher.condition(captions), "n t w -> (n s) t w", s=latents.shape[1])
    return rearrange(torch.from_numpy(latents), "n s c y x -> (n s) c y x"), cond


def _students(
    arm: str,
    latents: np.ndarray,
    config: AntidistillationStudy,
    teacher: Teacher,
    cache: Cache,
    held_out: Sequence[str],
) -> xr.DataArray:
    """(held_out, run) obedience of students that learned from an arm's samples."""
    x0, cond = _rows(teacher, latents, [*_captions(config)[0]])

    def one(run: int) -> Callable[[], xr.Dataset]:
        def made() -> xr.Dataset:
            student = imitate(teacher, x0, cond, config.steps, run)
            return xr.Dataset({"obeyed": ("held_out", _obeyed(teacher, student, held_out, run))})

        return made

    runs = [
        cache.get(f"{arm}-{run}", asdict(config) | {"arm": arm, "run": run}, one(run))["obeyed"]
        for run in tqdm(range(config.students), desc=f"students of {arm} samples")
    ]
    return xr.concat(runs, "run").transpose("held_out", "run")


@torch.no_grad()
def _obeyed(teacher: Teacher, unet: Any, captions: Sequence[str], run: int) -> np.ndarray:
    """Obedience to each caption, of one picture in the student's few steps."""
    shown = []
    for start in range(0, len(captions), BATCH):
        part = list(captions[start : start + BATCH])
        seeds = range(run * 100_000 + start, run * 100_000 + start + len(part))
        eps = [
            torch.randn(len(TIMESTEPS), *SHAPE, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        x0 = teacher.renoised(unet, teacher.condition(part), TIMESTEPS, torch.stack(eps, 1))
        shown.append(_judged(teacher, x0, part))
    return np.concatenate(shown)


@torch.no_grad()
def _judged(teacher: Teacher, latents: torch.Tensor, captions: Sequence[str]) -> np.ndarray:
    judge, pictures = load_judge(), decode_pictures(teacher.vae, latents)
    return np.array(
        [judge.obedience(p[None], c)[0] for p, c in zip(pictures, captions, strict=True)]
    )


def _obeyed_samples(teacher: Teacher, latents: np.ndarray, captions: Sequence[str]) -> xr.DataArray:
    """(caption, seed) obedience of an arm's samples."""
    by_seed = [_judged(teacher, torch.from_numpy(x), captions) for x in latents.swapaxes(0, 1)]
    return xr.DataArray(np.stack(by_seed, 1), dims=("caption", "seed"))


def _stacked(arms: Mapping[str, xr.DataArray]) -> xr.DataArray:
    return xr.concat(list(arms.values()), "arm").drop_vars("arm", errors="ignore")


def _moved(latents: np.ndarray, plain: np.ndarray) -> float:
    return float(np.sqrt(np.square(latents - plain).mean() / np.square(plain).mean()))


def antidistillation_table(data: xr.Dataset) -> Table:
    """A row an arm: how far its samples were moved, their obedience, and that of their students."""
    rows = [
        [
            str(arm),
            *(float(data[n].sel(arm=arm).mean()) for n in ("moved", "sample", "student")),
        ]
        for arm in data["arm"].values
    ]
    titles = ("samples", "moved by", "obedience of samples", "obedience of students")
    return Table(
        [Column(t, decimals=3) for t in titles],
        rows,
        "Antidistillation sampling",
        (
            "Moved by: root mean square of the change of latents over theirs. Reversed: moved as "
            "far, the other way.",
        ),
    )


def sentences(data: xr.Dataset) -> tuple[str, ...]:
    """Whether samples are as good, and whether their students do worse."""
    lines = []
    for arm in (ANTI, REVERSED):
        for what, name, unit in (
            ("student", f"a student of {arm} samples", "caption"),
            ("sample", f"{arm} sampling", "caption"),
        ):
            values = data[what].sel(arm=arm).values - data[what].sel(arm=PLAIN).values
            judged = verdict(values, MARGIN, unit=unit)
            other = "one of plain samples" if what == "student" else "plain sampling"
            lines.append(judged.sentence(name, other, "obedience to full captions"))
    return tuple(lines)
