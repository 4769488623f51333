"""A set of pictures of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from xhat.hooks.model import with_defaults
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.policy import Policy
from xhat.samplers.rivals.adaptive import Adaptive


def diverse(
    pipe: Any,
    prompt: str,
    n: int = 8,
    *,
    base: Any = None,
    policy: Policy | None = None,
    seeds: Sequence[int] | None = None,
    **call: Any,
) -> Any:
    """``n`` pictures of a prompt, all in one batch, each from noise of its own.

    Parameters
    ----------
    pipe
        Any pipeline that makes several pictures of a prompt: a hybrid, a rival of
        :func:`xhat.rival`; with ``policy``, the student.
    prompt
        One text.
    n
        How many pictures.
    base, policy
        With both, the policy decides: by its plan, and where it was fitted with a look, by the
        prompt's first x̂₀.
    seeds
        One a picture; 0 to n − 1 where left out.
    **call
        Of the pipeline's call, over its defaults.

    Returns
    -------
    images
        As the pipeline gives them.

    Raises
    ------
    ValueError
        For another number of prompts than one, of pictures than one or more, or of seeds than of
        pictures, and for a policy without a base.

    Examples
    --------
    ``xhat.diverse(xhat.rival("group-inference", base, student), "a red planet", 8)``
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a set is of one prompt, a text: got {type(prompt).__name__}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n is the number of pictures, 1 or more: got {n!r}")
    seeds = range(n) if seeds is None else seeds
    if len(seeds) != n or len(set(seeds)) != n:
        raise ValueError(f"expected {n} different seeds, one a picture: got {list(seeds)}")
    sampler = _by_policy(base, pipe, policy)
    generator = [torch.Generator().manual_seed(seed) for seed in seeds]
    arguments = call if isinstance(sampler, Adaptive) else with_defaults(sampler, call)
    return sampler(prompt, num_images_per_prompt=n, generator=generator, **arguments).images


def _by_policy(base: Any, student: Any, policy: Policy | None) -> Any:
    if policy is None and base is None:
        return student
    if policy is None or base is None:
        missing = "policy" if policy is None else "base"
        raise ValueError(f"{missing}= is missing: a policy decides between base and student")
    if policy.look is not None:
        return Adaptive(base, student, policy)
    return hybrid(base, student, policy=policy)
