"""Failures of disks and files, said in one sentence with the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Turns what zarr and its codecs raise over files that were cut or changed into one sentence
    with the way out.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {str(error)[:200]}): bring it back from a copy, or remove it "
            "and trace again"
        ) from error


class readable_failures:
    """Turns a full disk into one sentence with the way out."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no room left for {self.path}: free some, and the same call goes on where it stopped"
            raise OSError(error.errno, message) from error
