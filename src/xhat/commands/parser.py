"""A parser whose errors are one line, and say what was meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from xhat.hooks.naming import suggestion

NEGATIVE = re.compile(r"^-\d[\d.:,e-]*$")


class Parser(argparse.ArgumentParser):
    """As argparse's, but an option or command that is mistyped is answered with the nearest one,
    by the command that was called; and ``--seeds -3:2`` is read as a value, not as an option.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = NEGATIVE

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._nearest(rest[0])}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """One line and status 2."""
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"[^', ]+", wrong[2])
            near = suggestion(wrong[1], known) or f"; there are {', '.join(known)}"
            argument = message.partition(":")[0].removeprefix("argument ")
            message = f"unknown {argument} {wrong[1]!r}{near}"
        print(f"{self.prog}: {message} (`{self.prog} --help`)", file=sys.stderr)
        raise SystemExit(2)

    def _nearest(self, option: str) -> str:
        options = [name for action in self._actions for name in action.option_strings]
        return suggestion(option.partition("=")[0], options)
