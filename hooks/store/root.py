"""The root of a store: whose it is, and of which format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xhat.hooks.store.checksums import ROOT
from xhat.hooks.store.failures import damage_named
from xhat.hooks.store.files import PARTIAL, read, store_at
from xhat.hooks.store.locks import is_remote

FORMAT = 2
BOOKKEEPING = ("config", "tiling", "chunks", "seal", "grams", "finished", "xhat_format")


def root_attributes(path: str) -> dict[str, Any] | None:
    """Attributes of the trace at ``path``, None where there is nothing. Raises ValueError for what
    is no trace, or one of another format.
    """
    if Path(path).is_file():
        raise ValueError(f"{path} is a file: a store is a folder, give another name")
    there = is_remote(path) or Path(path).exists()
    data = read(store_at(path, read_only=True), ROOT) if there else None
    if data is None:
        if not is_remote(path) and _holds_something(Path(path)):
            raise ValueError(f"{path} is there already and is no trace: give another store")
        return None
    with damage_named(path):
        node = json.loads(data)
    attrs = node.get("attributes") if isinstance(node, Mapping) else None
    if not isinstance(attrs, Mapping) or "xhat_format" not in attrs:
        raise ValueError(f"{path} is a Zarr store, but not a trace of xhat: give another store")
    _check_format(path, attrs["xhat_format"])
    return dict(attrs)


def _holds_something(folder: Path) -> bool:
    """Whether there is more than what zarr leaves of a file that it was about to make when it was
    killed.
    """
    return folder.is_dir() and any(not PARTIAL.search(p.name) for p in folder.iterdir())


def _check_format(path: str, version: Any) -> None:
    if type(version) is int and version == FORMAT:
        return
    newer = type(version) is int and version > FORMAT
    way_out = (
        "upgrade xhat to read it"
        if newer
        else "read it with the xhat that wrote it, or trace again"
    )
    raise ValueError(
        f"{path} has trace format {version!r}, this xhat writes and reads {FORMAT}: {way_out}"
    )
