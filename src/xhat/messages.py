"""Where messages of progress go: to stderr, until the program sets up ``logging`` itself.

``logging.getLogger("xhat").setLevel("WARNING")`` leaves out all but what matters."""

from __future__ import annotations

import logging
import sys


class Stderr(logging.Handler):
    """Writes a record as one line to the stderr of the moment, which notebooks and tests exchange;
    nothing where the root logger has handlers, which get it too.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def to_stderr() -> None:
    """Let the logger ``xhat`` tell progress, unless it was set up before the import."""
    logger = logging.getLogger("xhat")
    if not logger.handlers:
        logger.addHandler(Stderr())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
