"""One run a store: one name for each store, and a lock that dies with the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import platform
import posixpath
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STALE = 600.0  # seconds without a sign of life, after which a remote lock may be taken over
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

SignOfLife = Callable[[], None]


class StoreInUse(ValueError):
    """Another run is writing into the store, or has taken it over."""


def located(store: str | os.PathLike[str]) -> str:
    """A store's one name: the absolute path of its folder, links followed and ``~`` expanded; or
    its URL if that is not of this machine's files.

    >>> located("file:///data/a.zarr"), located("file:/data/b/../a.zarr/"), located("s3://b/a.zarr/")
    ('/data/a.zarr', '/data/a.zarr', 's3://b/a.zarr')
    """
    text = os.fspath(store)
    if not isinstance(text, str) or not text:
        raise ValueError(f"store={store!r}: expected the path of a folder, or a URL")
    text = re.sub(r"^(file|local):(//(localhost)?(?=/))?(//)?", "", text)
    if is_remote(text):
        protocol, _, path = text.partition("://")
        return f"{protocol.lower()}://{posixpath.normpath(path) if path.strip('/') else path}"
    return os.path.realpath(os.path.expanduser(text))


def is_remote(store: str) -> bool:
    return "://" in store


def file_system(store: str) -> tuple[Any, str]:
    """fsspec's file system of a remote store, and the path on it. Raises ValueError where the
    package for it is not installed, or the protocol is none.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(store)
    except ImportError as error:
        raise ValueError(f"{store}: {error}") from error
    return fs, root.rstrip("/")


@contextmanager
def locked(store: str) -> Iterator[SignOfLife]:
    """Hold the lock of ``store``, a name that :func:`located` gives. Raises
    :class:`StoreInUse` where another run has it.

    On a local disk the operating system holds it and lets it go when the process ends, however it
    ends. On a remote store it is an object that says who was there last; it is taken over once it
    is older than ten minutes. What the block is given renews it, and raises where it was lost."""
    with _remote(store) if is_remote(store) else _local(store) as renew:
        yield renew


def lock_path(store: str) -> Path:
    path = Path(store)
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _local(store: str) -> Iterator[SignOfLife]:
    import filelock

    path = lock_path(store)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path.parent} is no folder, and none can be made: {error}") from error
    lock: filelock.BaseFileLock = filelock.FileLock(path, timeout=0.0)
    try:
        try:
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, TimeoutError) or getattr(error, "errno", None) not in NO_LOCKS:
                raise
            warnings.warn(
                f"{path.parent} is on a file system without locks ({error.strerror}): a file "  # type: ignore[union-attr]
                f"says that {store} is in use. If a run is killed, remove {_marker(path)} by hand",
                stacklevel=4,
            )
            path.unlink(missing_ok=True)
            lock = filelock.SoftFileLock(_marker(path), timeout=0.0)
            lock.acquire()
    except filelock.Timeout:
        _check_writable(path)
        raise StoreInUse(_refusal(store, _read(path))) from None
    try:
        if not isinstance(lock, filelock.SoftFileLock):
            path.write_text(_who())
        yield lambda: None
    finally:
        if not isinstance(lock, filelock.SoftFileLock):
            path.unlink(
                missing_ok=True
            )  # who opened it before locks a file without a name: no lock
        lock.release()


def _check_writable(path: Path) -> None:
    """Raises ValueError where a file that cannot be made is why no lock could be had."""
    if path.exists() or _marker(path).exists():
        return
    try:
        path.touch()
    except OSError as error:
        raise ValueError(f"nothing can be written beside the store: {error}") from error
    path.unlink(missing_ok=True)


def _marker(path: Path) -> Path:
    """What stands for a lock where there are none."""
    return path.with_name(f"{path.name}.held")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def _remote(store: str) -> Iterator[SignOfLife]:
    fs, path = _remote_lock(store)
    token = uuid.uuid4().hex
    try:
        fs.pipe_file(path, _who(token).encode(), mode="create")
    except FileExistsError:
        if _fresh(fs, path):
            raise StoreInUse(_refusal(store, fs.cat_file(path).decode())) from None
        fs.pipe_file(path, _who(token).encode())

    def is_ours() -> bool:
        return bool(fs.exists(path)) and json.loads(fs.cat_file(path))["token"] == token

    def renew() -> None:
        if not is_ours():
            raise StoreInUse(f"another run has taken over {store}: this one stops")
        fs.pipe_file(path, _who(token).encode())

    renew()  # of two that took over an old one at once, the last has it
    try:
        yield renew
    finally:
        if is_ours():
            fs.rm_file(path)


def _remote_lock(store: str) -> tuple[Any, str]:
    fs, root = file_system(store)
    fs.invalidate_cache()
    return fs, f"{root}.lock"


def _fresh(fs: Any, path: str) -> bool:
    if not fs.exists(path):
        return False
    try:
        return bool(time.time() - json.loads(fs.cat_file(path))["seen"] < STALE)
    except (ValueError, KeyError, FileNotFoundError):
        return False  # a lock that cannot be read was not written whole, or is gone


def _who(token: str = "") -> str:
    who = {"host": platform.node(), "pid": os.getpid(), "seen": time.time(), "token": token}
    return json.dumps(who)


def _refusal(store: str, holder: str) -> str:
    try:
        who: dict[str, Any] = json.loads(holder)
        where = f" (process {who['pid']} on {who['host']})"
    except (ValueError, KeyError, TypeError):
        where = ""
    return (
        f"another run is writing into {store}{where}: wait for it, or give this one another store"
    )
