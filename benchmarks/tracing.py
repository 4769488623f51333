"""What tracing costs: the plain pipeline call, xhat, nnsight and a hand-written hook loop, side by
side in one run.

    python benchmarks/tracing.py                          # the embedded base, and a UNet of SD
    1.5's shape
    python benchmarks/tracing.py --models sdxl --scale 1 --size 128 --device cuda --dtype bfloat16
    python benchmarks/tracing.py --quick

Arms take turns within each round; a ratio is that of an arm to the plain call of its own round, and
the median over rounds is given with its quartiles. Before times are compared, the readings of xhat,
nnsight and the loop are: they must be equal to the bit. nnsight keeps the points alone, the others
the latents and x̂₀ of every step too. To disk go a run of one batch and one of several: the ratio
is that of a further batch, and what is left of the first is the cost of making the store and
opening it, once a run."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from table import arguments, mib, peak_above, publish, ratio, side_by_side, size_on_disk

import xhat
from xhat.hooks.points.names import named_points
from xhat.hooks.points.readings import pick_output

GUIDANCE = 3.0
MORE = ", and more"
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def embedded(args: argparse.Namespace) -> Any:
    return placed(xhat.load_pair("demo").base, args)


def sd15(args: argparse.Namespace) -> Any:
    """Stable Diffusion 1.5's UNet, its widths times ``scale``, random weights; text encoder and VAE
    are small.
    """
    import diffusers
    from transformers import CLIPTextModel

    base = xhat.load_pair("demo").base
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(  # the class's defaults are the first Stable Diffusion's
        sample_size=args.size,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=widths((320, 640, 1280, 1280), args),
    )
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet.eval(),
        text_encoder=CLIPTextModel(text_config(base.tokenizer, 768)).eval(),
        tokenizer=base.tokenizer,
        vae=base.vae,
        scheduler=base.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return placed(pipe, args)


def sdxl(args: argparse.Namespace) -> Any:
    """Stable Diffusion XL's UNet, its widths times ``scale``, random weights; text encoders and VAE
    are small.
    """
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    base = xhat.load_pair("demo").base
    torch.manual_seed(0)
    with torch.device(args.device):
        unet = diffusers.UNet2DConditionModel(
            sample_size=args.size,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=widths((320, 640, 1280), args),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    pipe = diffusers.StableDiffusionXLPipeline(
        unet=unet.eval(),
        text_encoder=CLIPTextModel(text_config(base.tokenizer, 768)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(base.tokenizer, 1280)).eval(),
        tokenizer=base.tokenizer,
        tokenizer_2=base.tokenizer,
        vae=base.vae,
        scheduler=base.scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return placed(pipe, args)


def widths(published: tuple[int, ...], args: argparse.Namespace) -> tuple[int, ...]:
    """Widths of blocks, in whole groups of 32."""
    return tuple(32 * max(1, round(c * args.scale / 32)) for c in published)


def text_config(tokenizer: Any, width: int) -> Any:
    """A CLIP text encoder of one layer that knows the embedded vocabulary."""
    from transformers import CLIPTextConfig

    ids = {name: getattr(tokenizer, name) for name in SPECIAL}
    heads = {"num_hidden_layers": 1, "num_attention_heads": width // 64, "projection_dim": width}
    return CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=width, **heads, **ids)


def placed(pipe: Any, args: argparse.Namespace) -> Any:
    pipe = pipe.to(args.device)
    return pipe if args.dtype == "float32" else pipe.to(getattr(torch, args.dtype))


MODELS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "embedded base": embedded,
    "sd15": sd15,
    "sdxl": sdxl,
}


class Bench:
    """One pipeline, one batch, and the ways to read it."""

    def __init__(self, pipe: Any, args: argparse.Namespace, scratch: Path) -> None:
        self.pipe, self.scratch = pipe, scratch
        self.batch, self.steps, self.batches = args.batch, args.steps, args.batches
        self.every = [p.alias for p in named_points(pipe.unet)]
        self.sixteen = [self.every[i] for i in np.linspace(0, len(self.every) - 1, 16).astype(int)]
        self.path = {p.alias: p.path for p in named_points(pipe.unet)}

    def call(self) -> dict[str, Any]:
        generators = [torch.Generator().manual_seed(s) for s in range(self.batch)]
        same = {
            "num_inference_steps": self.steps,
            "guidance_scale": GUIDANCE,
            "output_type": "latent",
        }
        return {
            "prompt": "a planet",
            "num_images_per_prompt": self.batch,
            "generator": generators,
        } | same

    def plain(self) -> Any:
        return self.pipe(**self.call()).images

    def ours(self, names: list[str], kept: str) -> Any:
        with xhat.Tracer(self.pipe, dict.fromkeys(names, kept)) as tracer:
            self.plain()
        return tracer.trace

    def loop(self, names: list[str], kept: str) -> dict[str, torch.Tensor]:
        """What one writes by hand: a forward hook a point, and a look at what the scheduler
        gives.
        """
        found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        steps: list[tuple[torch.Tensor, ...]] = []

        def hook(name: str) -> Any:
            def keep(module: Any, inputs: Any, output: Any) -> None:
                found[name].append(
                    reduced(pick_output(module, inputs, {}, output), kept).to("cpu", copy=True)
                )

            return keep

        handles = [
            self.pipe.unet.get_submodule(self.path[n]).register_forward_hook(hook(n)) for n in names
        ]
        step = self.pipe.scheduler.step

        def heard(
            model_output: Any,
            timestep: Any,
            sample: Any,
            *rest: Any,
            return_dict: bool = True,
            **more: Any,
        ) -> Any:
            result = step(model_output, timestep, sample, *rest, return_dict=True, **more)
            kept = (sample, model_output, result.pred_original_sample)
            steps.append(tuple(x.to("cpu", copy=True) for x in kept))
            return result if return_dict else (result.prev_sample,)

        self.pipe.scheduler.step = heard
        try:
            self.plain()
        finally:
            del self.pipe.scheduler.step
            for handle in handles:
                handle.remove()
        found |= dict(
            zip(
                ("latents", "model_output", "pred_x0"),
                map(list, zip(*steps, strict=True)),
                strict=True,
            )
        )
        return {n: torch.stack(v, 1) for n, v in found.items()}

    def nnsight(self, names: list[str], kept: str) -> dict[str, torch.Tensor]:
        from xhat.hooks.edits.nnsight_engine import envoy_at, wrapped

        model = wrapped(self.pipe)
        order = {path: i for i, (path, _) in enumerate(self.pipe.unet.named_modules())}
        in_order = self.fired or sorted(names, key=lambda n: order[self.path[n]])
        envoys = [(n, envoy_at(model, self.pipe, self.path[n])) for n in in_order if n in names]
        modules = {n: self.pipe.unet.get_submodule(self.path[n]) for n in names}
        found: dict[str, list[Any]] = {n: [] for n in names}
        with model.generate(**self.call()) as tracer:
            for _ in tracer.iter[0 : self.steps]:
                for n, envoy in envoys:
                    output = pick_output(modules[n], (), {}, envoy.output)
                    found[n].append(reduced(output, kept).to("cpu", copy=True).save())
        return {n: torch.stack(list(v), 1) for n, v in found.items()}

    @property
    def fired(self) -> list[str]:
        """Points in the order in which they fire, which is the only one nnsight reads them in."""
        if not hasattr(self, "_fired"):
            self._fired: list[str] = []
            hooks = [
                self.pipe.unet.get_submodule(path).register_forward_hook(
                    lambda *_, n=n: self._fired.append(n)
                )
                for n, path in self.path.items()
            ]
            self.plain()
            for hook in hooks:
                hook.remove()
            self._fired = list(dict.fromkeys(self._fired))
        return self._fired

    def stored(self, names: list[str], kept: str, batches: int) -> Path:
        """``xhat.trace`` of so many batches into a new store."""
        path = self.scratch / "trace.zarr"
        shutil.rmtree(path, ignore_errors=True)
        call = {
            k: v
            for k, v in self.call().items()
            if k not in ("prompt", "num_images_per_prompt", "generator")
        }
        seeds, hooks = range(self.batch * batches), dict.fromkeys(names, kept)
        batch = {"batch_size": self.batch, "progress": False}
        xhat.trace(self.pipe, "a planet", seeds=seeds, hooks=hooks, store=path, **batch, **call)
        return path

    def saved(self, names: list[str], kept: str) -> Path:
        """The hook loop over a batch, to a file, uncompressed."""
        folder = self.scratch / "loop"
        folder.mkdir(exist_ok=True)
        np.savez(
            folder / "batch.npz",
            **{n: x.float().numpy() for n, x in self.loop(names, kept).items()},
        )
        return folder


def reduced(x: torch.Tensor, kept: str) -> torch.Tensor:
    return x if kept == "full" else x.mean((2, 3) if x.ndim == 4 else (1,)) if x.ndim > 2 else x


def check(bench: Bench, names: list[str]) -> None:
    """Raises SystemExit where the three do not read the same numbers."""
    ours = bench.ours(names, "mean")
    others = {"loop": bench.loop(names, "mean"), "nnsight": bench.nnsight(names, "mean")}
    for name in names:
        mine = ours[f"activations/{name}/value"].values
        for who, found in others.items():
            theirs = found[name].float().numpy().reshape(-1, bench.batch, *found[name].shape[1:])
            theirs = np.moveaxis(theirs, 0, 2) if len(theirs) > 1 else theirs[0]
            if not np.array_equal(mine, theirs):
                raise SystemExit(f"{who} reads other numbers at {name}: times are not compared")
    gap = np.abs(ours["pred_x0"].values - others["loop"]["pred_x0"].float().numpy()).max()
    print(
        json.dumps({"readings": "equal to the bit", "largest difference of x̂₀": float(gap)}),
        flush=True,
    )


def arms_of(bench: Bench) -> dict[str, Callable[[], Any]]:
    """Each is one call of the pipeline, but for those ``MORE``, which are ``bench.batches``
    more.
    """
    arms: dict[str, Callable[[], Any]] = {
        "plain call": bench.plain,
        "xhat, x̂₀ alone": lambda: bench.ours([], "mean"),
    }
    for label, names in (
        ("16 points", bench.sixteen),
        (f"all {len(bench.every)} points", bench.every),
    ):
        for kept in ("mean", "full"):
            said, own = f"{label}, {kept}", {"names": names, "kept": kept}
            arms[f"xhat, {said}"] = partial(bench.ours, **own)
            arms[f"hook loop, {said}"] = partial(bench.loop, **own)
            arms[f"nnsight, {said}"] = partial(bench.nnsight, **own)
            arms[f"xhat to a store, {said}"] = partial(bench.stored, **own, batches=1)
            arms[f"xhat to a store, {said}{MORE}"] = partial(
                bench.stored, **own, batches=1 + bench.batches
            )
            arms[f"hook loop to npz, {said}"] = partial(bench.saved, **own)
    return arms


def measure(bench: Bench, repeats: int, device: str) -> list[dict[str, Any]]:
    check(bench, bench.sixteen)
    arms = arms_of(bench)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = side_by_side(arms, repeats, wait)
    plain = seconds["plain call"]
    rows = []
    for name in (n for n in arms if not n.endswith(MORE)):
        written: list[Any] = []
        peak = peak_above(lambda name=name, written=written: written.append(arms[name]()))  # type: ignore[misc]
        each, once = seconds[name], None
        if name + MORE in arms:
            each = (seconds[name + MORE] - seconds[name]) / bench.batches
            once = float(np.median(seconds[name] - each))
        rows.append(
            {
                "arm": name,
                "ms a step": f"{1e3 * float(np.median(each)) / bench.steps:.2f}",
                "ratio to the plain call (quartiles)": ratio(each, plain),
                "once a run, s": "–" if once is None else f"{once:.2f}",
                "peak memory above rest, MiB": mib(peak),
                "written, MiB": mib(size_on_disk(written[0]))
                if isinstance(written[0], Path)
                else "–",
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=["embedded base", "sd15"]
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=0.5,
        help="widths of a UNet of published shape, 1 for its own",
    )
    parser.add_argument("--size", type=int, default=8, help="its latents, size × size")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--batches", type=int, default=3, help="more than one, that are written in a run to disk"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    args = parser.parse_args()
    if args.quick:
        args.scale, args.batch, args.steps, args.batches, args.repeats = 0.1, 1, 2, 1, 1
    tables = {}
    for name in args.models:
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(MODELS[name](args), args, Path(scratch))
            shape = (
                f", widths × {args.scale:g}, latents {args.size} × {args.size}"
                if name != "embedded base"
                else ""
            )
            caption = (
                f"{name}{shape}: batches of {args.batch} with guidance, {args.steps} steps, "
                f"{args.dtype}"
            )
            tables[f"{caption}, {args.repeats} rounds"] = measure(bench, args.repeats, args.device)
    bound = (
        "a reduced reading costs one pass over the activation and some 20 µs of Python, so small "
        "networks at small "
        "batches pay most; full readings are bound by copying them, and stores by compressing "
        "them on the core that "
        "samples, where there is no other."
    )
    publish(args, "tracing", "Tracing", tables, bound, args.device)


if __name__ == "__main__":
    main()
