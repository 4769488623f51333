"""A folder of reference pictures, and their features: what generated pictures are held against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LEAST = 10
SPACE = "inception"


class ReferencedSpace:
    """A feature space, with reference pictures beside it: what is measured of all pictures of an
    arm together.

    Parameters
    ----------
    space
        Where pictures are compared with each other. What else it reads stays.
    vae
        Decodes, where the space does not.
    folder
        Of the reference pictures, those in folders of it included.
    within
        The space of pictures (:data:`~xhat.probes.features.PICTURE_SPACES`) in which they are held
        against generated ones.

    Raises
    ------
    ValueError
        For a folder with fewer than ten pictures, and for a file that is none.
    """

    def __init__(self, space: Any, vae: Any, folder: Path, within: Any) -> None:
        from xhat.probes.features import Decoded

        self.space, self.name, self.within = space, space.name, within
        self.reference = picture_features(folder, within)
        self._images = getattr(space, "images", None) or Decoded(vae).images
        told = {"space": within.name, "pictures": str(len(self.reference)), **_source(within)}
        told["features"] = hashlib.sha256(self.reference.tobytes()).hexdigest()
        said = {f"reference {key}": value for key, value in told.items()}
        self.attrs: Mapping[str, str] = {**space.attrs, **said}

    def __getattr__(self, name: str) -> Any:
        if name == "space":
            raise AttributeError(name)
        return getattr(self.space, name)

    def features(self, latents: np.ndarray) -> np.ndarray:
        return self.space.features(latents)

    def compared(self, latents: np.ndarray) -> np.ndarray:
        """Features (n, d) of generated pictures, where the reference's are."""
        return self.within.of_images(self._images(latents))


def with_reference(space: Any, vae: Any, folder: Path | None, within: str = SPACE) -> Any:
    """``space`` with the pictures of ``folder`` beside it, held against generated ones in the space
    named ``within``; the space itself without a folder.
    """
    if folder is None:
        return space
    from xhat.probes.features import PICTURE_SPACES, feature_space

    kind = within.partition(":")[0]
    if kind not in PICTURE_SPACES:
        raise ValueError(
            f"pictures have no features in the space {within!r}: expected one of "
            f"{', '.join(PICTURE_SPACES)}"
        )
    holder = type("Decoder", (), {"vae": vae})
    return ReferencedSpace(space, vae, Path(folder), feature_space(within, holder))


def picture_features(folder: Path, space: Any, batch_size: int = 64) -> np.ndarray:
    """Features (n, d) of the pictures in a folder, by name, in a space of pictures."""
    files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in ENDINGS)
    if len(files) < LEAST:
        raise ValueError(
            f"{folder} holds {len(files)} pictures ({', '.join(ENDINGS)}): a reference takes "
            f"{LEAST} or more, and some thousands to say much"
        )
    parts, some = [], []
    for file in tqdm(files, desc="reference pictures", unit="picture", disable=len(files) < 256):
        some.append(_picture(file))
        if len(some) == batch_size:
            parts += _embedded(some, space)
            some = []
    return np.concatenate([*parts, *_embedded(some, space)])


def _embedded(pictures: list[np.ndarray], space: Any) -> list[np.ndarray]:
    """Features of pictures, those of one size together."""
    return [
        space.of_images(np.stack(list(alike)))
        for _, alike in groupby(pictures, key=lambda picture: picture.shape)
    ]


def _picture(file: Path) -> np.ndarray:
    """(3, h, w) float32 in [0, 1]."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise ValueError(f"{file} is no picture that can be read: {error}") from None
    return pixels.transpose(2, 0, 1) / 255


def _source(space: Any) -> dict[str, str]:
    return {key: value for key, value in space.attrs.items() if key != "space"}
