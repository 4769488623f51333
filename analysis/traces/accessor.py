"""``trace.xhat``: what is asked most often of a trace, as an accessor of ``xarray.DataTree``."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.hooks.naming import UnknownName


def decode(latents: xr.DataArray, pipe: Any) -> xr.DataArray:
    """Latents of a trace as pictures.

    Parameters
    ----------
    latents
        (…, channel, y, x): ``trace["pred_x0"]``, ``trace["final"]``, or a part of them.
    pipe
        A pipeline whose VAE decodes them: the one that was traced, or one of its family.

    Returns
    -------
    DataArray
        uint8 (…, row, col, rgb), with the coordinates of ``latents``.

    Raises
    ------
    ValueError
        For other dimensions, and a pipeline without a VAE.

    Examples
    --------
    >>> import xhat
    >>> pipe = xhat.load_pair("demo").student
    >>> trace = xhat.trace(pipe, "a planet", seeds=[0], progress=False)
    >>> xhat.decode(trace["pred_x0"].isel(step=0), pipe).dims
    ('prompt', 'seed', 'row', 'col', 'rgb')
    """
    from xhat.probes.features import decode_latents as decoded

    if not isinstance(latents, xr.DataArray) or latents.dims[-3:] != ("channel", "y", "x"):
        got = getattr(latents, "dims", type(latents).__name__)
        raise ValueError(
            f"expected latents (…, channel, y, x), such as trace['pred_x0'], got {got}"
        )
    if getattr(pipe, "vae", None) is None:
        raise ValueError(f"{type(pipe).__name__} has no VAE to decode latents with")
    flat = latents.values.reshape(-1, *latents.shape[-3:])
    pictures = rearrange(decoded(pipe.vae, flat), "n rgb row col -> n row col rgb")
    shape = (*latents.shape[:-3], *pictures.shape[1:])
    kept = {name: c for name, c in latents.coords.items() if not {"channel", "y", "x"} & {*c.dims}}
    values = (pictures * 255).round().astype(np.uint8).reshape(shape)
    return xr.DataArray(values, kept, (*latents.dims[:-3], "row", "col", "rgb"))


@xr.register_datatree_accessor("xhat")
class TraceAccessor:
    """Pictures, curves and single noise levels of a trace."""

    def __init__(self, trace: xr.DataTree) -> None:
        self._trace = trace

    def at(self, sigma: float) -> xr.Dataset:
        """Everything but the readings, at the step whose σ is nearest on a logarithmic scale.

        Raises ValueError for a σ that is not above zero.
        """
        if not sigma > 0:
            raise ValueError(f"sigma must be above zero, got {sigma!r}")
        data = self._trace.to_dataset()
        distance = np.abs(np.log(data["sigma"].values / sigma))
        return data.isel(step=int(distance.argmin()))

    def images(self, pipe: Any = None) -> xr.DataArray:
        """Pictures, uint8 (prompt, seed, …, row, col, rgb): the finished ones, or, decoded with the
        VAE of ``pipe``, x̂₀ of every step.
        """
        data = self._trace.to_dataset()
        if pipe is not None:
            return decode(data["pred_x0"], pipe)
        if "images" not in data:
            raise ValueError(
                "the trace has no finished pictures: give a pipeline to decode x̂₀ with, "
                "trace.xhat.images(pipe)"
            )
        return data["images"]

    def curve(self, measure: str = "vendi_q2", **options: Any) -> xr.DataArray:
        """Diversity of x̂₀ across seeds at every step, (step, bound).

        ``measure``: a name of :data:`~xhat.analysis.measures.registry.MEASURES`; ``options``: those
        of :func:`~xhat.analysis.traces.diversity.diversity_by_noise`.
        """
        from xhat.analysis.measures.registry import MEASURES
        from xhat.analysis.traces.diversity import diversity_by_noise

        if measure not in MEASURES:
            raise UnknownName(
                "measure", measure, list(MEASURES), f"there are {', '.join(MEASURES)}"
            )
        found = diversity_by_noise(self._trace, **options)
        if f"{measure}_mean" not in found:
            raise ValueError(
                f"{measure} cannot be told of these features: {', '.join(_told(found))} can"
            )
        return found[f"{measure}_mean"]


def _told(found: xr.Dataset) -> list[str]:
    names = [str(name) for name in found.data_vars]
    return [name.removesuffix("_mean") for name in names if name.endswith("_mean")]
