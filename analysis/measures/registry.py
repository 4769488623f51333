"""The measures of a set of pictures, one entry each: tables, figures, commands and the probe take
theirs from here.

A new measure is one more entry in ``ENTRIES``: it is then measured in every arm and at every noise
level where what it needs is there, and has its label and its sentence everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xhat.analysis.measures.by_seed import entropy_by_seed, pairs_by_seed, vendi_q2_by_seed
from xhat.analysis.measures.diversity import attribute_entropy, similarities, vendi


@dataclass(frozen=True)
class Samples:
    """Pictures of one prompt under n seeds, as measures see them.

    Parameters
    ----------
    latents
        (n, channel, y, x), in the VAE's units.
    features
        (n, d), where pictures are compared.
    labels
        Attribute → ((n,) integer labels, number of values), of what the prompt leaves open.
    fidelity
        (n,) how far each picture shows what the prompt asks, 0 to 1.
    scores
        Name of a score (:data:`xhat.probes.scores.SCORES`) → (n,) of each picture under the prompt;
        ``kid`` and ``precision`` too, of each among all of its arm, against reference pictures
        (:mod:`xhat.analysis.sampling.reference`).
    """

    latents: np.ndarray
    features: np.ndarray
    labels: Mapping[str, tuple[np.ndarray, int]] | None = None
    fidelity: np.ndarray | None = None
    scores: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Measure:
    """A number of a set of pictures.

    Parameters
    ----------
    name, label
        Of the variable, and in words.
    range
        What values it takes, with its unit.
    says
        What a higher value means: more diversity, more of what the prompt asks (fidelity,
        alignment), better pictures (quality), pictures further from the reference (distance);
        "scale" is a check of the latents and of no picture.
    needs
        The part of :class:`Samples` that it looks at: where that is None, it is not measured.
    of
        (n,) values by seed, whose mean is the measure (:mod:`xhat.analysis.measures.by_seed`), or
        a number where there are none, as of a plug-in: its intervals are over prompts alone.
    headline
        Whether it is among those that tables and sentences are made for, fixed before any run.
    """

    name: str
    label: str
    range: str
    says: Literal["diversity", "fidelity", "alignment", "quality", "distance", "scale"]
    needs: Literal["latents", "features", "labels", "fidelity", "scores"]
    of: Callable[[Samples], np.ndarray | float]
    headline: bool = False


def _entropy(samples: Samples) -> np.ndarray:
    assert samples.labels is not None
    return np.mean([entropy_by_seed(*read) for read in samples.labels.values()], axis=0)


def _plug_in_entropy(samples: Samples) -> float:
    assert samples.labels is not None
    return float(np.mean([attribute_entropy(*read) for read in samples.labels.values()]))


def _fidelity(samples: Samples) -> np.ndarray:
    assert samples.fidelity is not None
    return np.asarray(samples.fidelity, dtype=np.float64)


def _score(name: str) -> Callable[[Samples], np.ndarray]:
    def of(samples: Samples) -> np.ndarray:
        assert samples.scores is not None
        return np.asarray(samples.scores[name], dtype=np.float64)

    return of


def _rms(samples: Samples) -> np.ndarray:
    """The root mean square of all, and what each sample adds to it, to first order."""
    squares = np.square(samples.latents, dtype=np.float64).reshape(len(samples.latents), -1)
    each, rms = squares.mean(1), np.sqrt(squares.mean())
    return rms + (each - rms**2) / (2 * rms) if rms > 0 else np.zeros(len(each))


# fmt: off
ENTRIES = (
    Measure("vendi_q2", "Vendi (q = 2)", "from 1, pictures", "diversity", "features",
            lambda s: vendi_q2_by_seed(similarities(s.features)), headline=True),
    Measure("attribute_entropy", "attribute entropy", "0 to 1", "diversity", "labels",
            _entropy, headline=True),
    Measure("mean_pairwise_distance", "mean pairwise distance", "0 to 2, cosine", "diversity",
            "features", lambda s: 1 - pairs_by_seed(similarities(s.features))),
    Measure("vendi_q2_plugin", "Vendi (q = 2, plug-in: too small at few seeds)", "1 to n pictures",
            "diversity", "features", lambda s: vendi(s.features, q=2)),
    Measure("vendi_q1", "Vendi (q = 1, plug-in: too small at few seeds)", "1 to n pictures",
            "diversity", "features", lambda s: vendi(s.features, q=1)),
    Measure("attribute_entropy_plugin", "attribute entropy (plug-in: too small at few seeds)",
            "0 to 1", "diversity", "labels", _plug_in_entropy),
    Measure("fidelity", "fidelity", "0 to 1", "fidelity", "fidelity",
            _fidelity, headline=True),
    Measure("clip_score", "CLIP score", "−100 to 100, 100 × cosine", "alignment", "scores",
            _score("clip_score"), headline=True),
    Measure("siglip_score", "SigLIP score", "−100 to 100, 100 × cosine", "alignment", "scores",
            _score("siglip_score"), headline=True),
    Measure("pickscore", "PickScore", "a logit, about 15 to 25", "quality", "scores",
            _score("pickscore"), headline=True),
    Measure("kid", "KID × 1000", "about 0 for pictures as the reference's", "distance", "scores",
            _score("kid"), headline=True),
    Measure("precision", "precision", "0 to 1", "quality", "scores",
            _score("precision"), headline=True),
    Measure("rms", "latent RMS", "above 0, the VAE's units", "scale", "latents", _rms),
)
# fmt: on
SECOND = "_second_judge"
"""Ending of a headline measure as a second judge has it (``analysis/sampling/second_judge.py``)."""
DISAGREEMENT, ENTROPY_BOUND = "judges_disagree", "entropy_bound"
MEASURES: dict[str, Measure] = {measure.name: measure for measure in ENTRIES}
HEADLINES: tuple[str, ...] = tuple(m.name for m in ENTRIES if m.headline)
DIVERSITY: tuple[str, ...] = tuple(m.name for m in ENTRIES if m.says == "diversity")


def measure_samples(samples: Samples) -> dict[str, np.ndarray | float]:
    """Every measure that what there is allows, by name: values by seed, or a number."""
    return {m.name: m.of(samples) for m in ENTRIES if _measurable(samples, m)}


def _measurable(samples: Samples, measure: Measure) -> bool:
    part = getattr(samples, measure.needs)
    return part is not None and (measure.needs != "scores" or measure.name in part)


def measure_label(name: str) -> str:
    """A measure in words; a name that is none stays as it is."""
    if name.endswith(SECOND):
        return f"{measure_label(name.removesuffix(SECOND))}, second judge"
    return MEASURES[name].label if name in MEASURES else name


def headlines(names: Iterable[object]) -> list[str]:
    """The headline measures among ``names``, in the order of the registry."""
    there = set(map(str, names))
    return [name for name in HEADLINES if name in there]
