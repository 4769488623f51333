"""Files of a store by key, on this machine's disks and elsewhere alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from xhat.hooks.store.locks import file_system, is_remote

METADATA = "zarr.json"
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")  # what zarr writes before it gives it its name


def store_at(path: str, *, read_only: bool = False) -> Store:
    """Zarr's store at a path or URL. Raises ValueError where the package for a URL is missing."""
    if is_remote(path):
        file_system(path)
        return FsspecStore.from_url(path, read_only=read_only)
    return LocalStore(path, read_only=read_only)


def read(store: Store, key: str) -> bytes | None:
    value = sync(store.get(key, default_buffer_prototype()))
    return None if value is None else value.to_bytes()


def put(store: Store, key: str, value: Buffer) -> None:
    sync(store.set(key, value))


def put_new(store: Store, key: str, value: Buffer) -> None:
    """Put it there unless something is."""
    sync(store.set_if_not_exists(key, value))


def keys(store: Store, prefix: str = "") -> list[str]:
    async def listed() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sorted(sync(listed()))


def remove_files(path: str, store: Store, names: Iterable[str]) -> None:
    """Delete these files, and the folders that have nothing in them then."""
    folders = {Path(path)}
    for key in names:
        sync(store.delete(key))
        folders |= {Path(path, key).parents[n] for n in range(key.count("/") + 1)}
    if not is_remote(path):
        _remove_empty(folders)


def remove_empty_folders(path: str, prefix: str) -> None:
    """Delete the folders under a prefix that have nothing in them, and its own."""
    if not is_remote(path):
        top = Path(path, prefix)
        _remove_empty([top, *(p for p in top.rglob("*") if p.is_dir())])


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()


def sweep_partial(path: str) -> None:
    """Delete what is left of writes that were killed."""
    if not is_remote(path):
        for file in Path(path).rglob("*.partial"):
            if PARTIAL.search(file.name):
                file.unlink(missing_ok=True)
