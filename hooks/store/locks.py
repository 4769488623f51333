"""One run a store: a lock that dies with the process that holds it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STALE = (
    600.0  # seconds without a sign of life after which a lock on a remote store may be taken over
)


def located(store: str | os.PathLike[str]) -> str:
    """A store's folder, or its URL if that is not of this machine's files.

    >>> located("file:///data/a.zarr"), located("s3://bucket/a.zarr")
    ('/data/a.zarr', 's3://bucket/a.zarr')
    """
    return os.fspath(store).removeprefix("file://")


def is_remote(store: str) -> bool:
    return "://" in store


@contextmanager
def locked(store: str, rank: int = 0) -> Iterator[None]:
    """Hold the lock of process number ``rank`` of a run into ``store``. Raises ValueError where
    another run has it.

    On a local disk the operating system holds it and lets it go when the process ends, however it
    ends. On a remote store it is an object that says who was there last; it is taken over once it
    is older than ten minutes."""
    with _remote(store, rank) if is_remote(store) else _local(store, rank):
        yield


def held(store: str, rank: int) -> bool:
    """Whether another process now holds the lock of ``rank``."""
    try:
        with locked(store, rank):
            return False
    except ValueError:
        return True


def lock_path(store: str, rank: int) -> Path:
    path = Path(store)
    return path.with_name(f".{path.name}.lock{rank or ''}")


@contextmanager
def _local(store: str, rank: int) -> Iterator[None]:
    import fcntl

    path = lock_path(store, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = path.read_text() if path.exists() else ""
            os.close(descriptor)
            raise ValueError(_refusal(store, holder)) from None
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            break  # else it was removed between open and lock: this one guards nothing
        os.close(descriptor)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, _who().encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _remote(store: str, rank: int) -> Iterator[None]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(store)
    path = f"{root.rstrip('/')}.lock{rank or ''}"
    if fs.exists(path):
        holder = fs.cat_file(path).decode()
        if time.time() - json.loads(holder)["seen"] < STALE:
            raise ValueError(_refusal(store, holder))
    fs.pipe_file(path, _who().encode())
    try:
        yield
    finally:
        if fs.exists(path):
            fs.rm_file(path)


def sign_of_life(store: str, rank: int) -> None:
    """Renew a remote lock. A local one needs none."""
    if is_remote(store):
        import fsspec

        fs, root = fsspec.core.url_to_fs(store)
        fs.pipe_file(f"{root.rstrip('/')}.lock{rank or ''}", _who().encode())


def _who() -> str:
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "seen": time.time()})


def _refusal(store: str, holder: str) -> str:
    who: dict[str, Any] = json.loads(holder) if holder else {}
    where = f" (process {who['pid']} on {who['host']})" if who else ""
    return (
        f"another run is writing into {store}{where}: wait for it, or give this one another store"
    )
