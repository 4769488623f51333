"""A page of every command, made from its own ``--help`` when the site is built."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from xhat.cli import COMMANDS, _parser

FOLDER, WIDTH = "commands", "96"


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """name → parser of what stands behind a command: ``fit`` of ``xhat policy``."""
    actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: child for action in actions for name, child in action.choices.items()}


def parts(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The help of a command and of what stands behind it, each under its heading."""
    with mock.patch.dict(os.environ, COLUMNS=WIDTH):
        text = parser.format_help().rstrip()
    yield f"```text\n{text}\n```"
    for child, below in subcommands(parser).items():
        yield f"## xhat {name} {child}"
        yield from parts(f"{name} {child}", below)


def pages() -> dict[str, str]:
    """Command → its page, in Markdown."""
    commands = subcommands(_parser())
    return {n: "\n\n".join([f"# xhat {n}", *parts(n, commands[n])]) + "\n" for n in COMMANDS}


def index() -> str:
    """The page that leads to the others."""
    action = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    lines = [f"- [`xhat {a.dest}`]({a.dest}.md): {a.help}" for a in action._choices_actions]
    return "# Commands\n\n`xhat COMMAND --help` prints what stands here.\n\n" + "\n".join(lines)


def on_config(config: Any, **_: Any) -> Any:
    """Puts the pages under "Commands" in the navigation."""
    for entry in config.nav:
        if "Commands" in entry:
            below = [{f"xhat {name}": f"{FOLDER}/{name}.md"} for name in COMMANDS]
            entry["Commands"] = [f"{FOLDER}/index.md", *below]
    return config


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Adds the pages to the site's files."""
    from mkdocs.structure.files import File

    for name, text in {"index": index(), **pages()}.items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text))
    return files
