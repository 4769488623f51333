"""Plans, the pipelines that run them, and the rival ways to more diversity. Names are loaded on first use."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Plan": "xhat.samplers.plan",
    "Segment": "xhat.samplers.plan",
    "compose": "xhat.samplers.hybrid",
    "hybrid_plan": "xhat.samplers.plans",
    "swap_plan": "xhat.samplers.plans",
    "skip_plan": "xhat.samplers.plans",
    "whole": "xhat.samplers.plans",
    "with_noise": "xhat.samplers.plans",
    "control_plans": "xhat.samplers.plans",
    "Tap": "xhat.samplers.tap",
    "rival": "xhat.samplers.rivals",
    "RIVALS": "xhat.samplers.rivals",
    "extract_lora": "xhat.samplers.lowrank",
    "LowRank": "xhat.samplers.lowrank",
    "Adaptive": "xhat.samplers.adaptive",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
