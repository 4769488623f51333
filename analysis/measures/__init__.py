"""Measures: arrays in, numbers out."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "cka": "xhat.analysis.measures.similarity",
    "cka_matrix": "xhat.analysis.measures.similarity",
    "minibatch_cka": "xhat.analysis.measures.similarity",
    "mutual_knn": "xhat.analysis.measures.similarity",
    "rsa": "xhat.analysis.measures.similarity",
    "svcca": "xhat.analysis.measures.similarity",
    "pwcca": "xhat.analysis.measures.similarity",
    "procrustes": "xhat.analysis.measures.similarity",
    "vendi": "xhat.analysis.measures.diversity",
    "mean_pairwise_distance": "xhat.analysis.measures.diversity",
    "prdc": "xhat.analysis.measures.diversity",
    "lora_cosine": "xhat.analysis.measures.alignment",
    "principal_angles": "xhat.analysis.measures.alignment",
    "classification_accuracy": "xhat.analysis.measures.classification",
    "on_front": "xhat.analysis.measures.pareto_front",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
