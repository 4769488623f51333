"""The embedded family: its world of pictures, its networks, the trainers of base and students, its
judge.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "ATTRIBUTES": "xhat.zoo.family.attributes",
    "KINDS": "xhat.zoo.family.attributes",
    "OPEN_PROMPTS": "xhat.zoo.family.attributes",
    "Scene": "xhat.zoo.family.attributes",
    "caption": "xhat.zoo.family.attributes",
    "parse_prompt": "xhat.zoo.family.attributes",
    "sample_caption": "xhat.zoo.family.attributes",
    "sample_scene": "xhat.zoo.family.attributes",
    "Judge": "xhat.zoo.family.judge",
    "load_judge": "xhat.zoo.family.judge",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
