"""What traces say: similarity of representations, diversity by noise level, commitment. Names load on first use."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Policy": "xhat.analysis.policy",
    "Arm": "xhat.analysis.arms",
    "measure_arms": "xhat.analysis.arms",
    "summarised": "xhat.analysis.arms",
    "against": "xhat.analysis.arms",
    "noise_ledger": "xhat.analysis.ledger",
    "measure_swaps": "xhat.analysis.swaps",
    "statement": "xhat.analysis.verdict",
    "identifiability": "xhat.analysis.sensitivity",
    "x0_gain": "xhat.analysis.sensitivity",
    "classification_accuracy": "xhat.analysis.classification",
    "final_labels": "xhat.analysis.probe_curves",
    "untrained_trace": "xhat.analysis.probe_curves",
    "similarity_map": "xhat.analysis.maps",
    "diversity_by_noise": "xhat.analysis.diversity",
    "final_diversity": "xhat.analysis.diversity",
    "paired_difference": "xhat.analysis.diversity",
    "vendi": "xhat.analysis.diversity",
    "cka": "xhat.analysis.similarity",
    "cka_matrix": "xhat.analysis.similarity",
    "alignment_map": "xhat.analysis.effect_alignment",
    "lora_cosine": "xhat.analysis.alignment",
    "principal_angles": "xhat.analysis.alignment",
    "dose_response": "xhat.analysis.transfer",
    "retention": "xhat.analysis.transfer",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
