"""What traces say: similarity of representations, diversity by noise level, commitment. Names load
on first use.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Policy": "xhat.samplers.plans.policy",
    "fit_policy": "xhat.analysis.experiments.policy",
    "Result": "xhat.analysis.result",
    "Table": "xhat.analysis.table",
    "Arm": "xhat.analysis.sampling.arms",
    "measure_arms": "xhat.analysis.sampling.arms",
    "summarised": "xhat.analysis.sampling.arms",
    "against": "xhat.analysis.sampling.arms",
    "noise_ledger": "xhat.analysis.sampling.noise_ledger",
    "measure_swaps": "xhat.analysis.experiments.swaps",
    "demo": "xhat.analysis.experiments.collapse",
    "Demo": "xhat.analysis.experiments.collapse",
    "Swaps": "xhat.analysis.experiments.swaps",
    "measure_patching": "xhat.analysis.experiments.patch",
    "Patching": "xhat.analysis.experiments.patch",
    "measure_pareto": "xhat.analysis.experiments.pareto",
    "Pareto": "xhat.analysis.experiments.pareto",
    "MEASURES": "xhat.analysis.measures.registry",
    "identifiability": "xhat.analysis.sampling.sensitivity",
    "x0_gain": "xhat.analysis.sampling.sensitivity",
    "classification_accuracy": "xhat.analysis.measures.classification",
    "final_labels": "xhat.analysis.traces.attribute_labels",
    "untrained_trace": "xhat.analysis.sampling.untrained",
    "similarity_map": "xhat.analysis.traces.similarity_map",
    "diversity_by_noise": "xhat.analysis.traces.diversity",
    "final_diversity": "xhat.analysis.traces.diversity",
    "paired_difference": "xhat.analysis.measures.diversity",
    "vendi": "xhat.analysis.measures.diversity",
    "cka": "xhat.analysis.measures.similarity",
    "cka_matrix": "xhat.analysis.measures.similarity",
    "alignment_map": "xhat.analysis.traces.effect_alignment",
    "lora_cosine": "xhat.analysis.measures.alignment",
    "principal_angles": "xhat.analysis.measures.alignment",
    "dose_response": "xhat.analysis.sampling.dose_response",
    "retention": "xhat.analysis.sampling.dose_response",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
