"""Plans, the pipelines that run them, and the rival ways to more diversity. Names are loaded on
first use.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Plan": "xhat.samplers.plans.plan",
    "Segment": "xhat.samplers.plans.plan",
    "compose": "xhat.samplers.composite.pipeline",
    "hybrid_plan": "xhat.samplers.plans.recipe",
    "Recipe": "xhat.samplers.plans.recipe",
    "swap_plan": "xhat.samplers.plans.build",
    "skip_plan": "xhat.samplers.plans.build",
    "whole": "xhat.samplers.plans.build",
    "with_noise": "xhat.samplers.plans.build",
    "control_plans": "xhat.samplers.plans.build",
    "Tap": "xhat.samplers.composite.tap",
    "rival": "xhat.samplers.rivals.registry",
    "RIVALS": "xhat.samplers.rivals.registry",
    "extract_lora": "xhat.samplers.composite.lowrank",
    "LowRank": "xhat.samplers.composite.lowrank",
    "Adaptive": "xhat.samplers.rivals.adaptive",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
