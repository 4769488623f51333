"""Checkpoint pairs: published ones by name, and the embedded family, its data, its training, its
judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xhat.lazy import lazily


def list(cards: bool = False) -> None:
    """Print the embedded family and the published checkpoints, a line each: name, steps, guidance,
    what there is.

    With ``cards``, two more for each published one: its model card, and what was read to fill its
    entry in."""
    from xhat.zoo.load.catalogue import bases, published
    from xhat.zoo.load.embedded import DEMO, embedded, embedded_defaults
    from xhat.zoo.load.hub import cached

    print("embedded")
    for name in embedded():
        print(_line(f"{DEMO}/{name}", embedded_defaults(name)))
    print(
        "\npublished: base and checkpoint; * where the weights are in the local Hugging Face cache"
    )
    for base in bases().values():
        print(_line(base.name, base.call, f"{'*' if cached(base.repo) else ' '} {base.repo}"))
        if cards:
            print(f"    {base.source}\n    {base.checked}")
        for entry in published().values():
            if entry.base is base:
                here = "*" if cached(entry.repo, entry.file) else " "
                print(_line(entry.name, entry.call, f"{here} {entry.repo} ({entry.kind})"))
                if cards:
                    print(
                        f"    {entry.source}\n    "
                        f"{'; '.join(filter(None, (entry.checked, entry.note)))}"
                    )


def _line(name: str, call: Mapping[str, Any], rest: str = "") -> str:
    guidance = call.get("guidance_scale", call.get("true_cfg_scale", 1.0))
    steps = call["num_inference_steps"]
    return f"  {name:21} {steps:3} steps  guidance {guidance:<4g} {rest}".rstrip()


_EXPORTS = {
    "load_pair": "xhat.zoo.pairs",
    "load_model": "xhat.zoo.load.checkpoints",
    "load_checkpoint": "xhat.zoo.load.checkpoints",
    "load_judge": "xhat.zoo.family.judge",
    "load_suite": "xhat.zoo.suites",
    "parse_prompt": "xhat.zoo.family.attributes",
    "train_slider": "xhat.zoo.lora.slider",
    "load_slider": "xhat.zoo.lora.loading",
    "set_scales": "xhat.zoo.lora.loading",
    "sliding": "xhat.zoo.lora.loading",
}

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
