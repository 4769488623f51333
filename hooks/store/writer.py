"""Writes batches behind the sampler's back, a bounded number of them, so that memory is set by the
batch.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable
from typing import Any

WAITING = 1  # batches that may wait while one is written and one is sampled


class Writer:
    """A thread that calls ``write`` with what is put, in order. A failure there is raised at the
    next ``put``, or at the end of the block; on an exception inside the block, what is queued is
    still written."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._queue: queue.Queue[tuple[Any, ...] | None] = queue.Queue(maxsize=WAITING)
        self._error: BaseException | None = None
        self._told = False
        self._thread = threading.Thread(target=self._run, name="xhat-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._queue.put(None)
        self._thread.join()
        if exception[0] is None:
            self._raise()

    def put(self, *batch: Any) -> None:
        """Hand over a batch; waits, and says so once, while the queue is full."""
        self._raise()
        if self._queue.full() and not self._told:
            self._told = True
            warnings.warn(
                "sampling waits for the disk: fewer points, stronger reductions or a faster disk "
                "would let it run",
                stacklevel=3,
            )
        self._queue.put(batch)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(*batch)
                except BaseException as error:  # raised in the thread that samples
                    self._error = error
