"""What a LoRA's factors are multiplied by: the alpha that PEFT and diffusers keep beside the
weights.

PEFT writes ``adapter_config.json`` into the folder of ``adapter_model.safetensors``; newer
diffusers writes the same settings into the file's own metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
DENOISERS = ("unet", "transformer")
# Initialisations that take a part out of the base's weights, which the file does not hold.
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings under which the layers compute something else than W·x + s·B·A·x.
_OTHER_LAYERS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "layer_replication",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)


@dataclass(frozen=True)
class Settings:
    """What B·A is multiplied by.

    Parameters
    ----------
    alpha
        alpha of every layer; None where nothing gives one.
    pattern
        End of a layer's name, as a regular expression → alpha there.
    rslora
        alpha/√rank in place of alpha/rank (arXiv 2312.03732).
    """

    alpha: float | None = None
    pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False

    def strength(self, layer: str, rank: int) -> float:
        """What B·A of a layer is multiplied by; 1 where nothing says an alpha."""
        alpha = self.alpha
        for end, value in self.pattern.items():
            if re.match(rf"(.*\.)?({end})$", layer):
                alpha = value
                break
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self.rslora else rank)


def settings_of(path: Path, notes: Mapping[str, str], slots: Sequence[str] = DENOISERS) -> Settings:
    """The settings of a network's part of a LoRA file, from the file's metadata or the PEFT folder
    that it is in. ``slots``: what a pipeline may call the network.

    Raises
    ------
    ValueError
        For settings that cannot be read, and for those of another kind than a plain LoRA.
    """
    beside = path.parent / CONFIG
    if path.name in WEIGHTS and beside.is_file():
        return _settings(_json(beside.read_text(errors="replace"), beside), "", beside)
    entry = _json(notes.get("lora_adapter_metadata", "{}"), path)
    for slot in slots:
        if any(name.startswith(f"{slot}.") for name in entry):
            return _settings(entry, f"{slot}.", path)
    return Settings()


def _settings(entry: Mapping[str, Any], prefix: str, source: Path) -> Settings:
    _check_kind({name.removeprefix(prefix): value for name, value in entry.items()}, source)
    alpha: Any = entry.get(f"{prefix}lora_alpha")
    pattern = entry.get(f"{prefix}alpha_pattern") or {}
    try:
        by_end = {re.compile(end).pattern: float(value) for end, value in pattern.items()}
        return Settings(float(alpha), by_end, bool(entry.get(f"{prefix}use_rslora")))
    except (TypeError, ValueError, OverflowError, AttributeError, re.error):
        raise ValueError(
            f"{source}: expected a number as lora_alpha and ends of names with numbers as "
            f"alpha_pattern, got {alpha!r:.80} and {pattern!r:.200}"
        ) from None


def _check_kind(entry: Mapping[str, Any], source: Path) -> None:
    kind, start = str(entry.get("peft_type") or "LORA"), str(entry.get("init_lora_weights"))
    if kind != "LORA":
        raise ValueError(f"{source} is {kind}, which is not supported: expected a plain LoRA")
    other = [name for name in _OTHER_LAYERS if entry.get(name)]
    if other:
        raise ValueError(
            f"{source} was made with {' and '.join(other)}, which is not supported: expected a "
            "plain LoRA"
        )
    if start.lower().startswith(_OTHER_BASE):
        raise ValueError(
            f"{source} was made with init_lora_weights={start!r}, which changes the base's weights "
            "too, and the file does not hold these: expected a LoRA beside the base as it is. "
            "PEFT can convert it (save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _json(text: Any, source: Path) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the settings of the LoRA in {source} are no JSON: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError(
            f"the settings of the LoRA in {source}: expected names and values, got "
            f"{type(entry).__name__}"
        )
    return entry
