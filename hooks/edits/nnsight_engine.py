"""The nnsight engine of :mod:`xhat.hooks.edits.patch`: the same edits, in nnsight's terms.

What nnsight needs to be told, and is told here alone: a pipeline in memory goes in through a
private wrapper; a run is of one step unless the number is given; the loop over module calls needs
its bound; readings come in forward order."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from torch import nn

from xhat.hooks.edits.edit import Edit
from xhat.hooks.edits.patch import Patch, places, rows_of, with_output
from xhat.hooks.points.names import denoiser_of, denoisers_of, parts_of
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.select import Selection

TESTED = ((0, 8, 1), (0, 9))  # from, and below


def run(pipe: Any, edits: tuple[Edit, ...], samples: int | None, call: dict[str, Any]) -> Any:
    """``pipe(**call)`` with ``edits``, run by nnsight. Raises ValueError for what this engine
    cannot do.
    """
    denoiser = denoiser_of(pipe)
    _check_one_network(pipe)
    placed = places(denoiser, edits)
    other = [s.name for _, s in placed if s.reading != "output"]
    if other:
        raise ValueError(
            f"with nnsight outputs alone are edited, not {other[0]!r}: use backend='native'"
        )
    seen = rehearse(pipe, [s.point for _, s in placed], **call)
    order = {path: i for i, path in enumerate(seen.outputs)}
    placed.sort(key=lambda place: order.get(place[1].point.path, len(order)))
    patch = Patch(pipe, edits, samples)
    return _traced(pipe, denoiser, placed, patch, seen.steps, call)


def _traced(
    pipe: Any,
    denoiser: nn.Module,
    placed: list[tuple[Edit, Selection]],
    patch: Patch,
    steps: int,
    call: dict[str, Any],
) -> Any:
    model = wrapped(pipe)  # anew each time: adapters loaded since would be missing
    envoys = [
        (envoy_at(model, pipe, s.point.path), denoiser.get_submodule(s.point.path), edit)
        for edit, s in placed
    ]

    def edited(module: nn.Module, edit: Edit, output: Any, step: int) -> Any:
        if step == 0:
            patch.start()
        patch.rows = rows_of(pipe, _rows(output), patch.samples)
        return with_output(module, output, lambda x: patch.change(edit, x, step))

    with model.generate(**{"num_inference_steps": steps} | call) as tracer:
        for step in tracer.iter[0:steps]:
            for envoy, module, edit in envoys:
                envoy.output = edited(module, edit, envoy.output, step)
        result = tracer.result.save()  # nnsight runs the block's text: no return may stand in it
    return result  # noqa: RET504


def _rows(output: Any) -> int:
    first = output if hasattr(output, "shape") else output[0]
    return first.shape[0]


def wrapped(pipe: Any) -> Any:
    """nnsight's model of a pipeline that is in memory. Raises ValueError for a version of nnsight
    that is not known to work, and for a pipeline of several networks.
    """
    _check_version()
    _check_one_network(pipe)
    from nnsight.modeling.diffusion import DiffusionModel, _PipelineModule

    return DiffusionModel(_PipelineModule(pipe))


def envoy_at(model: Any, pipe: Any, path: str) -> Any:
    """nnsight's stand-in for the denoiser's module at ``path``."""
    envoy = model.unet if getattr(pipe, "unet", None) is denoiser_of(pipe) else model.transformer
    for name in path.split("."):
        envoy = envoy[int(name)] if name.isdigit() else getattr(envoy, name)
    return envoy


def _check_one_network(pipe: Any) -> None:
    if parts_of(denoisers_of(pipe)) != (denoiser_of(pipe),):
        raise ValueError(
            "nnsight loops over the calls of one network: "
            "run a pipeline of several with backend='native'"
        )


def _check_version() -> None:
    found = version("nnsight")
    numbers = tuple(int(x) for x in found.split(".")[:3] if x.isdigit())
    if not TESTED[0] <= numbers < TESTED[1]:
        raise ValueError(
            f"nnsight {found} is installed: this engine is tested with 0.8.1 and above, below 0.9"
        )
