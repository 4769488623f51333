"""A hybrid that looks at a prompt first: the student's first x̂₀ tell whether the base is
needed.
"""

from __future__ import annotations

from typing import Any

import torch

from xhat.samplers.composite.pipeline import compose
from xhat.samplers.plans.look import first_step
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.policy import Policy


class Adaptive:
    """Two pipelines and a policy that says which of them a prompt gets.

    Called as a pipeline is, with one prompt and two or more pictures of it. The look costs one
    evaluation of the student, which is the first of its own steps where the prompt is left to it.
    Raises ValueError for a policy without a look, and for a single picture."""

    def __init__(self, base: Any, student: Any, policy: Policy) -> None:
        if policy.look is None:
            raise ValueError(
                "this policy has one plan for all prompts: use xhat.hybrid(base, student, "
                "policy=policy)"
            )
        models = {"base": base, "student": student}
        self.policy = policy
        own = policy.option("student").plan
        self._looking = compose(models, first_step(own))
        self._pipes = {plan: compose(models, plan) for plan in (policy.plan, own)}

    def look(
        self, prompt: str, *, num_images_per_prompt: int, generator: Any = None, **call: Any
    ) -> torch.Tensor:
        """The student's first x̂₀ (n, …) of the pictures that the same call would make. No
        generator is advanced.
        """
        kept = {
            name: value
            for name, value in call.items()
            if name not in ("output_type", "callback_on_step_end")
        }
        arguments = {
            **kept,
            "num_images_per_prompt": num_images_per_prompt,
            "output_type": "latent",
        }
        return self._looking(prompt, generator=_copies(generator), **arguments).images

    def plan_for(self, prompt: str, **call: Any) -> Plan:
        """The plan the prompt gets."""
        return self.policy.plan_for(self.look(prompt, **call))

    def __call__(self, prompt: str, *, num_images_per_prompt: int = 8, **call: Any) -> Any:
        """The pictures, by the pipeline of the prompt's plan."""
        if not isinstance(prompt, str):
            raise ValueError(
                f"an adaptive hybrid looks at one prompt at a time, got {type(prompt).__name__}"
            )
        plan = self.plan_for(prompt, num_images_per_prompt=num_images_per_prompt, **call)
        return self._pipes[plan](prompt, num_images_per_prompt=num_images_per_prompt, **call)


def _copies(generator: Any) -> Any:
    """Generators in the same state, so that what is drawn from them is drawn again."""
    if generator is None:
        return None
    if isinstance(generator, list):
        return [_copies(g) for g in generator]
    other = torch.Generator(generator.device)
    other.set_state(generator.get_state())
    return other
