"""One call of a pipeline with edits, by either engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xhat.hooks.edits import nnsight_engine
from xhat.hooks.edits.edit import Edit
from xhat.hooks.edits.patch import Patch


def patched(
    pipe: Any,
    edits: Iterable[Edit],
    *,
    backend: str = "native",
    samples: int | None = None,
    **call: Any,
) -> Any:
    """What ``pipe(**call)`` returns when it runs with ``edits``.

    Parameters
    ----------
    pipe
        A diffusers pipeline.
    edits
        Interventions (:mod:`xhat.hooks.edits.edit`).
    backend
        ``"native"``, or ``"nnsight"`` (edits of outputs alone, and pipelines of one network).
    samples
        How many samples the call has, without the halves of guidance, for pipelines that do not
        say whether they are guided.
    **call
        Arguments of the pipeline's call.

    Returns
    -------
    output
        What the pipeline returns.

    Raises
    ------
    ValueError
        As :class:`Patch` does.
    """
    if backend == "nnsight":
        return nnsight_engine.run(pipe, tuple(edits), samples, call)
    if backend != "native":
        raise ValueError(f"backend={backend!r}: expected 'native' or 'nnsight'")
    with Patch(pipe, edits, samples):
        return pipe(**call)
