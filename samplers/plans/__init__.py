"""Plans: which model makes which steps and how; making them, and choosing one."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Plan": "xhat.samplers.plans.plan",
    "Segment": "xhat.samplers.plans.plan",
    "hybrid_plan": "xhat.samplers.plans.recipe",
    "Recipe": "xhat.samplers.plans.recipe",
    "swap_plan": "xhat.samplers.plans.build",
    "skip_plan": "xhat.samplers.plans.build",
    "whole": "xhat.samplers.plans.build",
    "with_noise": "xhat.samplers.plans.build",
    "control_plans": "xhat.samplers.plans.build",
    "Policy": "xhat.samplers.plans.policy",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
