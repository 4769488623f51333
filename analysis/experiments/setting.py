"""What every experiment is asked: which pair, which prompts, which seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from xhat.hooks.points.names import denoiser_of, named_points
from xhat.probes.features import FeatureSpace, feature_space
from xhat.probes.reference import SPACE as REFERENCE_SPACE
from xhat.probes.reference import with_reference
from xhat.probes.scores import with_scores
from xhat.zoo.family.attributes import OPEN_PROMPTS
from xhat.zoo.load.embedded import CONTROLS
from xhat.zoo.pairs import Pair, load_pair


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Models, prompts and seeds of an experiment.

    Parameters
    ----------
    pair
        A pair, or the name of one; anything with ``base``, ``student``, ``name`` and ``chosen``
        will do.
    prompts
        Different texts.
    seeds
        Different whole numbers, two or more: diversity is across seeds. Every arm gets the same.
    space
        Where pictures are compared: a space, or the name of one
        (:func:`xhat.probes.features.feature_space`).
    scores
        Names of scores of alignment and quality that are measured beside diversity
        (:func:`xhat.probes.scores.load_score`). Left out: those whose weights are on this machine,
        and none in the space of the embedded family's judge.
    reference, reference_space
        A folder of reference pictures that generated ones are held against, and the space in which:
        KID, FID, precision and recall are measured then (:mod:`xhat.analysis.measures.reference`).
    batch_size
        Samples at a time.

    Raises
    ------
    ValueError
        For prompts or seeds that are none, too few, repeated or of another type.
    """

    pair: Pair | str = "demo"
    prompts: Sequence[str] = OPEN_PROMPTS[:8]
    seeds: Sequence[int] = range(24)
    space: FeatureSpace | str = "judge"
    scores: Sequence[str] | None = None
    reference: Path | None = None
    reference_space: str = REFERENCE_SPACE
    batch_size: int = 24

    def __post_init__(self) -> None:
        prompts = _distinct("prompts", self.prompts, str, 1)
        seeds = _distinct("seeds", self.seeds, int, 2)
        if outside := [seed for seed in seeds if not 0 <= seed < 2**63]:
            raise ValueError(f"seeds are from 0 to 2⁶³−1, got {outside[0]}")
        check_whole_number("batch_size", self.batch_size)
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "seeds", seeds)

    @property
    def set_batch(self) -> int:
        """``batch_size`` in whole sets of a prompt's seeds, for methods in which they see each
        other.
        """
        return len(self.seeds) * max(1, self.batch_size // len(self.seeds))

    def models(self) -> Pair:
        """The pair, loaded where it was given by name."""
        return load_pair(self.pair) if isinstance(self.pair, str) else self.pair

    def features(self, pair: Pair) -> FeatureSpace:
        """The space, made with the pair's base and with the scores where it was given by name; the
        reference pictures beside it.
        """
        vae, space = pair.base.vae, self.space
        if isinstance(space, str):
            space = with_scores(feature_space(space, pair.base), vae, self.scores)
        return with_reference(space, vae, self.reference, self.reference_space)

    def settings(self) -> dict[str, Any]:
        """All that was asked, for :class:`~xhat.analysis.result.Result`."""
        pair = self.models()
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        space = self.space if isinstance(self.space, str) else self.space.name
        reference = None if self.reference is None else str(self.reference)
        named = {"pair": pair.name, "student": pair.chosen, "space": space}
        return asked | named | {"reference": reference}


def students_alike(pair: Any) -> list[str]:
    """Names of the students that have the base's layers and weights of their own: neither one of
    fewer layers, nor a control, whose weights are another student's.
    """
    layers = _layers(pair.base)
    own = [name for name in pair.students if name not in CONTROLS]
    return [name for name in own if _layers(pair.students[name]) == layers]


def _layers(pipe: Any) -> list[str]:
    return [point.alias for point in named_points(denoiser_of(pipe))]


def check_whole_number(name: str, value: Any) -> None:
    """Raises ValueError for what is no whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {value!r}")


def _distinct(name: str, values: Any, kind: type, least: int) -> tuple[Any, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"{name} must be a list, got {values!r}")
    values = tuple(v.item() if hasattr(v, "item") else v for v in values)
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if len(values) < least:
        raise ValueError(f"{least} or more {name} are needed, got {len(values)}")
    if repeated := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{name} must differ, got {repeated[0]!r} more than once")
    return values
