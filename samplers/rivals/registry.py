"""Every way to more diversity that is compared here, under one interface: ``rival(name, base,
student, **options)``.

A pair has ``base``, ``student`` and ``students``; what comes back is a pipeline, called like the
base. Each rival is a plan or a tap on one; options are those of the function that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from xhat.hooks.naming import nearest
from xhat.hooks.noise.levels import noise_levels
from xhat.hooks.points.names import slot_of
from xhat.samplers.composite.lowrank import extract_lora
from xhat.samplers.composite.pipeline import compose, hybrid
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.build import skip_plan, swap_plan, whole, with_noise
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.samplers.plans.schedule import scheduled
from xhat.samplers.rivals.cads import CADS
from xhat.samplers.rivals.dispersal import FeatureDispersal
from xhat.samplers.rivals.embedding import EmbeddingNoise
from xhat.samplers.rivals.ensemble import ensemble
from xhat.samplers.rivals.entropy import EntropyGuidance
from xhat.samplers.rivals.feature_particles import DecodedPixels, FeatureParticles, Features
from xhat.samplers.rivals.group import GroupInference
from xhat.samplers.rivals.modes import ModeGuidance
from xhat.samplers.rivals.particles import ParticleGuidance
from xhat.samplers.rivals.spectrum import SpectralNoise
from xhat.samplers.rivals.stride import ComponentNoise
from xhat.samplers.rivals.teacher import TeacherGuidance

Pair = Any


class InapplicableRival(ValueError):
    """A rival that would change nothing of a pair's pictures."""


def rival(name: str, pair: Pair, student: Any = None, **options: Any) -> Any:
    """The pipeline of a rival.

    Parameters
    ----------
    name
        One of :data:`RIVALS`; hyphens are read as underscores.
    pair
        A pair with ``base``, ``student`` and ``students``, as :func:`xhat.load_pair` gives it; or
        the base's pipeline, with the student's after it.
    student
        The student's pipeline, where the base's was given.
    **options
        Those of the function in :data:`RIVALS`.

    Returns
    -------
    pipe
        A pipeline of the base's class, called like it.

    Raises
    ------
    ValueError
        For any other name, with the nearest ones; and for a base without a student.

    Examples
    --------
    ``xhat.rival("feature-dispersal", base, student, weight=0.2)("a red planet")``
    """
    make = RIVALS.get(name.replace("-", "_"))
    if make is None:
        near = nearest(name, RIVALS, 2) or list(RIVALS)
        raise ValueError(
            f"no rival is named {name!r}; nearest: {', '.join(near)}. There are {', '.join(RIVALS)}"
        )
    return make(_pair_of(pair, student), **options)


def _pair_of(pair: Pair, student: Any) -> Pair:
    if student is not None:
        return SimpleNamespace(base=pair, student=student, students={"student": student})
    if not hasattr(pair, "base"):
        raise ValueError(
            f"a rival needs base and student, got {type(pair).__name__} alone: expected "
            "rival(name, base, student), or a pair of xhat.load_pair"
        )
    return pair


def _models(pair: Pair) -> dict[str, Any]:
    return {"base": pair.base, "student": pair.student}


def base(pair: Pair, **options: Any) -> Any:
    """The base alone, at its own steps and guidance."""
    return compose({"base": pair.base}, whole("base", pair.base, **options))


def base_few(pair: Pair, *, guidance_scale: float = 1.0) -> Any:
    """The base at the student's number of steps."""
    steps = range(default_steps(pair.student))
    return compose(
        _models(pair), swap_plan(pair.base, pair.student, steps, base_guidance_scale=guidance_scale)
    )


def student(pair: Pair, **options: Any) -> Any:
    """The student alone, at its own steps and guidance."""
    return _tapped(pair, None, **options)


def hybrid_of(pair: Pair, **options: Any) -> Any:
    """The hybrid: options of :func:`xhat.hybrid`."""
    return hybrid(pair.base, pair.student, **options)


def skip(pair: Pair, *, skipped: int = 1, **options: Any) -> Any:
    """The student without its first step: begun lower, with pure noise (arXiv 2503.10637,
    ablation).
    """
    return compose(_models(pair), skip_plan(pair.student, skipped=skipped, **options))


def own_noise(pair: Pair, **options: Any) -> Any:
    """The student with its own implied noise carried on between steps: x' = √ᾱ'·x̂₀ + √(1−ᾱ')·ε̂
    (arXiv 2010.02502, Eq. 12 with σ = 0), at the student's cost."""
    return _tapped(pair, None, noise="own", **options)


def hybrid_own_noise(pair: Pair, **options: Any) -> Any:
    """The hybrid with no fresh noise at all."""
    return compose(
        _models(pair), with_noise(hybrid_plan(pair.base, pair.student, **options), "own")
    )


def hybrid_embedding_noise(pair: Pair, *, noise_scale: float = 0.2, **options: Any) -> Any:
    """The hybrid under noise on the prompt's embeddings: two ways to more diversity at once.

    ``noise_scale``: of :class:`~xhat.samplers.rivals.embedding.EmbeddingNoise`; the other options
    are those of :func:`xhat.hybrid`."""
    plan = hybrid_plan(pair.base, pair.student, **options)
    return compose(_models(pair), plan, [EmbeddingNoise(scale=noise_scale)])


SDXL_INTERVAL = 0.28, 5.42
SDXL_SIDE = 128
"""σ_low and σ_high of the paper, and the side of the latents that they were found for."""


def guidance_interval(
    pair: Pair,
    *,
    sigma_low: float | None = None,
    sigma_high: float | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
) -> Any:
    """The base guided only where σ_low < σ ≤ σ_high, at scale 1 elsewhere (Kynkäänniemi et al.,
    arXiv 2404.07724, Sec. 3). An unguided step costs one evaluation.

    The limits are the paper's for SDXL, 0.28 and 5.42 at 128 × 128 latents, times the side of the
    base's latents over 128: so much less noise hides as much of a smaller picture (Hoogeboom et
    al., arXiv 2301.11093, Sec. 3.1). Raises :class:`InapplicableRival` where no step lies between
    them."""
    factor = latent_side(pair.base) / SDXL_SIDE
    limits = zip((sigma_low, sigma_high), SDXL_INTERVAL, strict=True)
    low, high = (paper * factor if given is None else given for given, paper in limits)
    steps = default_steps(pair.base) if num_inference_steps is None else num_inference_steps
    scale = default_guidance(pair.base) if guidance_scale is None else guidance_scale
    levels = noise_levels(scheduled(pair.base.scheduler, Segment("base", 0, steps, steps)))
    inside = [low < sigma <= high for sigma in levels.sigma]
    if not any(inside):
        raise InapplicableRival(
            f"no step lies in the guidance interval {low:.3g} < σ <= {high:.3g}: the base's are at "
            f"σ = {', '.join(f'{sigma:.3g}' for sigma in levels.sigma)}. Give sigma_low, sigma_high"
        )
    cuts = [0, *(i for i in range(1, steps) if inside[i] != inside[i - 1]), steps]
    segments = [
        Segment("base", a, b, steps, scale if inside[a] else 1.0)
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]
    return compose({"base": pair.base}, Plan(segments))


def guidance_interval_published(pair: Pair, **options: Any) -> Any:
    """The same with the paper's limits for SDXL as they are, whatever the base's latents."""
    low, high = SDXL_INTERVAL
    return guidance_interval(pair, sigma_low=low, sigma_high=high, **options)


def latent_side(pipe: Any) -> int:
    """Side of a pipeline's latents at its own size. Raises ValueError where it does not say one."""
    network = getattr(pipe, slot_of(pipe))
    side = getattr(pipe, "default_sample_size", None) or network.config.get("sample_size")
    if not isinstance(side, int):
        raise ValueError(
            f"{type(network).__name__} does not say how large its latents are: give sigma_low and "
            "sigma_high of the guidance interval"
        )
    return side


def cads(
    pair: Pair,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    **options: Any,
) -> Any:
    """The student under condition annealing: options of
    :class:`~xhat.samplers.rivals.cads.CADS`.
    """
    call = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    return _tapped(pair, CADS(**options), **call)


def cads_published(pair: Pair, **options: Any) -> Any:
    """The same with the schedule's values at the steps, as published for many of them."""
    return cads(pair, mean=False, **options)


def particles(pair: Pair, **options: Any) -> Any:
    """The student under particle guidance: options of
    :class:`~xhat.samplers.rivals.particles.ParticleGuidance`.
    """
    return _tapped(pair, ParticleGuidance(**options))


def particles_features(pair: Pair, *, features: Features | None = None, **options: Any) -> Any:
    """The student under particle guidance between features of its pictures: options of
    :class:`~xhat.samplers.rivals.feature_particles.FeatureParticles`. Without ``features``, the
    pictures' pixels averaged down.
    """
    seen = DecodedPixels(pair.base.vae) if features is None else features
    return _tapped(pair, FeatureParticles(embed=seen, **options))


def teacher(pair: Pair, *, guidance_scale: float | None = None, **options: Any) -> Any:
    """The student under its teacher's guidance: options of
    :class:`~xhat.samplers.rivals.teacher.TeacherGuidance`. The teacher is guided as the base is by
    default.
    """
    scale = default_guidance(pair.base) if guidance_scale is None else guidance_scale
    return _tapped(pair, TeacherGuidance(guidance_scale=scale, **options))


def modes(pair: Pair, **options: Any) -> Any:
    """The student drawn to modes of the base: options of
    :class:`~xhat.samplers.rivals.modes.ModeGuidance`.
    """
    return _tapped(pair, ModeGuidance(**options))


def students(pair: Pair, *, names: list[str] | None = None, **options: Any) -> Any:
    """An ensemble: each sample is one student's, drawn by its x_T. Options of
    :func:`xhat.samplers.plans.build.whole`.
    """
    chosen = _chosen(pair, names)
    return ensemble(chosen, whole("student", next(iter(chosen.values())), **options))


def one_to_many(pair: Pair, *, names: list[str] | None = None, base_steps: int = 0) -> Any:
    """A plan with several students, each over its own range of noise: the steps are dealt out
    evenly, in order, after ``base_steps`` of the base.

    Raises ValueError where there are more students than steps.
    """
    chosen = _chosen(pair, names)
    steps = default_steps(next(iter(chosen.values())))
    left = steps - base_steps
    if len(chosen) > left:
        raise ValueError(
            f"{len(chosen)} students for {left} steps: name fewer of {', '.join(chosen)}"
        )
    first = (
        []
        if base_steps == 0
        else [hybrid_plan(pair.base, pair.student, base_steps=base_steps).segments[0]]
    )
    cuts = [base_steps + round(i * left / len(chosen)) for i in range(len(chosen) + 1)]
    ranges = zip(chosen, cuts, cuts[1:], strict=False)
    plan = Plan(
        [*first, *(Segment(n, a, b, steps, default_guidance(chosen[n])) for n, a, b in ranges)]
    )
    return compose({"base": pair.base, **chosen}, plan)


def strength(pair: Pair, *, strength: float = 0.75, rank: int | None = None, **options: Any) -> Any:
    """The student at weights base + s·(student − base); with ``rank``, of the low-rank difference
    on one copy of the weights (LoRA, arXiv 2106.09685, whose scale is the dial)."""
    dialled = pair.student
    if rank is not None:
        dialled = extract_lora(pair.base, pair.student, rank).student(pair.base, pair.student)
    plan = whole("student", pair.student, strength=strength, **options)
    return compose({"base": pair.base, "student": dialled}, plan)


def _tapped(pair: Pair, tap: Tap | None, **options: Any) -> Any:
    plan = whole("student", pair.student, **options)
    return compose(_models(pair), plan, [] if tap is None else [tap])


def _chosen(pair: Pair, names: list[str] | None) -> Mapping[str, Any]:
    """The students asked for, all of the pair's without names."""
    known = dict(pair.students)
    for name in names or ():
        if name not in known:
            near = nearest(name, known) or list(known)
            raise ValueError(f"no student is named {name!r}; did you mean {near[0]!r}?")
    return {name: known[name] for name in names or known}


def _student_under(kind: Callable[..., Tap]) -> Callable[..., Any]:
    """The student under a tap of a kind, whose options are the tap's."""

    def made(pair: Pair, **options: Any) -> Any:
        return _tapped(pair, kind(**options))

    made.__doc__ = f"The student under {kind.__name__}, whose options it takes."
    return made


TAPS: dict[str, Callable[..., Tap]] = {
    "feature_dispersal": FeatureDispersal,
    "stride": ComponentNoise,
    "group_inference": GroupInference,
    "spectral_noise": SpectralNoise,
    "sparke": EntropyGuidance,
    "embedding_noise": EmbeddingNoise,
}

RIVALS: dict[str, Callable[..., Any]] = {
    "base": base,
    "base_few": base_few,
    "student": student,
    "hybrid": hybrid_of,
    "skip": skip,
    "own_noise": own_noise,
    "hybrid_own_noise": hybrid_own_noise,
    "hybrid_embedding_noise": hybrid_embedding_noise,
    "guidance_interval": guidance_interval,
    "guidance_interval_published": guidance_interval_published,
    "cads": cads,
    "cads_published": cads_published,
    "particles": particles,
    "particles_features": particles_features,
    "teacher": teacher,
    "modes": modes,
    **{name: _student_under(kind) for name, kind in TAPS.items()},
    "ensemble": students,
    "one_to_many": one_to_many,
    "strength": strength,
}
