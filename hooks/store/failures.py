"""Failures of disks and files, said in one sentence with the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REPAIR = "`xhat trace … --repair`, or xhat.trace(…, repair=True), makes what is damaged again"
COPY = "bring it back from a copy, or remove it and trace again"


class DamagedTrace(ValueError):
    """A store whose files are not those that were written: missing, cut, changed or exchanged."""


@contextmanager
def damage_named(path: str, way_out: str = COPY) -> Iterator[None]:
    """Turns what zarr and its codecs raise over files that were cut or changed into one sentence
    with the way out. What the disk or the network says (OSError) stays as it is.
    """
    try:
        yield
    except (DamagedTrace, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        text = f"{path} is damaged ({type(error).__name__}: {reason}): {way_out}"
        raise DamagedTrace(text) from error


class readable_failures:
    """Turns a full disk into one sentence with the way out."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"no room left for {self.path}: free some, and the same call goes on where it "
                "stopped",
            ) from error
