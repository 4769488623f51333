"""Prompt suites by name, read from the files that their authors publish; none is copied here but
the five subjects of the paper's table.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xhat.hooks.naming import nearest
from xhat.zoo.load.hub import is_name

PAPER = ("a sunset beach", "a cute puppy", "a futuristic city", "a person", "Van Gogh art")
"""The subjects of Table 2 of arXiv 2503.10637, as it names them."""
COLUMNS = ("prompt", "prompts", "caption", "text")
LARGEST = 1 << 30


class MissingSuite(ValueError):
    """The file of a suite is not on this machine."""


@dataclass(frozen=True)
class Suite:
    """``prompts``, each once, in a fixed random order, so that a first part of them is a fair one.

    A file's own prompts and the paper's keep their order. ``licence`` and ``source`` as their
    authors state them.
    """

    name: str
    prompts: tuple[str, ...]
    licence: str
    source: str

    def text(self) -> str:
        return f"{self.name}: {len(self.prompts)} prompts, {self.source}; licence: {self.licence}"


@dataclass(frozen=True)
class PublishedSuite:
    """Where a suite's file is published, and how prompts are read from its text."""

    file: str
    url: str
    licence: str
    source: str
    read: Callable[[str, str], Iterable[str]]


def load_suite(name: str) -> Suite:
    """A suite of prompts.

    Parameters
    ----------
    name
        ``paper``; a published suite (:data:`SUITES`), after a colon the file where it lies
        elsewhere than in :func:`folder`; a file of prompts: text with one a line, CSV, TSV, JSON or
        JSONL with a column ``prompt``, ``prompts``, ``caption`` or ``text``; or a file of a data
        set on the hub, ``owner/name/file``, from the cache.

    Returns
    -------
    Suite
        Its prompts, licence and source. Nothing is downloaded.

    Raises
    ------
    ValueError
        For what holds no prompts and for unknown names; as ``MissingSuite``, with the command that
        fetches it, where the file is not on this machine.
    """
    kind, _, path = name.partition(":")
    if kind == "paper" and not path:
        return Suite("paper", PAPER, "facts of a table", "arXiv 2503.10637, Table 2")
    if kind in SUITES:
        return _published(kind, Path(path) if path else folder() / SUITES[kind].file)
    file = Path(name)
    if file.is_file():
        return Suite(file.name, _checked(read_table(_text(file), name), name), "yours", name)
    repo = "/".join(name.split("/")[:2])
    if name.count("/") >= 2 and is_name(repo) and not file.is_absolute():
        cached = _from_hub(repo, name.split("/", 2)[2])
        return Suite(name, _checked(read_table(_text(cached), name), name), "see its card", name)
    near = nearest(name, ["paper", *SUITES])
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(
        f"no suite {name!r}{meant} There are paper, {', '.join(SUITES)}; or name a file of "
        "prompts, or owner/name/file of a data set on the hub"
    )


def folder() -> Path:
    """Where files of published suites are looked for: ``$XHAT_SUITES``, or
    ``~/.cache/xhat/suites``.
    """
    return Path(os.environ.get("XHAT_SUITES") or Path.home() / ".cache" / "xhat" / "suites")


def read_table(text: str, name: str) -> Iterator[str]:
    """Prompts of a text by the ending of its name: a line each, or a column of CSV, TSV, JSON or
    JSONL.
    """
    ending = name.rsplit(".", 1)[-1].lower()
    if ending in ("csv", "tsv"):
        rows: Iterable[Any] = csv.DictReader(
            io.StringIO(text), delimiter="\t" if ending == "tsv" else ","
        )
    elif ending == "jsonl":
        rows = (json.loads(line) for line in text.splitlines() if line.strip())
    elif ending == "json":
        rows = json.loads(text)
    else:
        rows = text.splitlines()
    for row in rows:
        yield row if isinstance(row, str) else _cell(row, name)


def _cell(row: Any, name: str) -> str:
    columns = {str(key).lower(): key for key in row} if isinstance(row, dict) else {}
    for column in COLUMNS:
        if column in columns:
            return str(row[columns[column]])
    raise ValueError(
        f"{name} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}: it has "
        f"{', '.join(map(str, columns)) or type(row).__name__}"
    )


def _coco(text: str, name: str) -> Iterator[str]:
    """One caption a picture, the one of the lowest id."""
    content = json.loads(text)
    if not isinstance(content, dict) or "annotations" not in content:
        raise ValueError(f"{name} is no file of COCO captions: it has no 'annotations'")
    seen = set()
    for row in sorted(content["annotations"], key=lambda row: row["id"]):
        if row["image_id"] not in seen:
            seen.add(row["image_id"])
            yield row["caption"]


def _dimcim(text: str, name: str) -> Iterator[str]:
    """Every coarse prompt, wherever it stands: those that leave the attributes open."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("coarse_prompt"), str):
                yield value["coarse_prompt"]
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                yield from walk(part)

    yield from walk(json.loads(text))


_RAW = "https://raw.githubusercontent.com/"
SUITES = {
    "parti": PublishedSuite(
        "PartiPrompts.tsv",
        _RAW + "google-research/parti/main/PartiPrompts.tsv",
        "Apache-2.0",
        "PartiPrompts, arXiv 2206.10789",
        read_table,
    ),
    "drawbench": PublishedSuite(
        "DrawBench.csv",
        "https://imagen.research.google",
        "none stated by its authors",
        "DrawBench, arXiv 2205.11487, its sheet saved as CSV",
        read_table,
    ),
    "coco": PublishedSuite(
        "captions_val2014.json",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        "CC BY 4.0 (captions)",
        "COCO 2014 validation, arXiv 1405.0312, one caption a picture",
        _coco,
    ),
    "geneval": PublishedSuite(
        "evaluation_metadata.jsonl",
        _RAW + "djghosh13/geneval/main/prompts/evaluation_metadata.jsonl",
        "MIT",
        "GenEval, arXiv 2310.11513",
        read_table,
    ),
    "grade": PublishedSuite(
        "grade_dataset.csv",
        _RAW
        + "RoyiRa/GRADE-Quantifying-sample-diversity-in-text-to-image-models/main/datasets/"
        + "grade_dataset.csv",
        "none stated by its authors",
        "GRADE, arXiv 2410.22592",
        read_table,
    ),
    "dimcim": PublishedSuite(
        "dimcim.json",
        "https://github.com/facebookresearch/DIMCIM",
        "as its repository states",
        "COCO-DIMCIM, arXiv 2506.05108, its coarse prompts",
        _dimcim,
    ),
}
"""Published suites by name."""


def _published(name: str, path: Path) -> Suite:
    entry = SUITES[name]
    if not path.is_file():
        get = f"`curl -L --create-dirs -o {path} {entry.url}`"
        if entry.url.rsplit("/", 1)[-1] != entry.file:  # not the file itself
            get = f"get {entry.file} from {entry.url} and put it there"
        raise MissingSuite(
            f"the suite {name!r} needs {path}: {get}, or name the file, {name}:FILE; licence: "
            f"{entry.licence}"
        )
    label = path.name if path.suffix else entry.file
    prompts = list(_checked(entry.read(_text(path), label), str(path)))
    random.Random(0).shuffle(prompts)
    return Suite(name, tuple(prompts), entry.licence, entry.source)


def _checked(prompts: Iterable[str], name: str) -> tuple[str, ...]:
    try:
        given = [" ".join(str(prompt).split()) for prompt in prompts]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} has not the layout that it is read in: {error!r}") from error
    each = tuple(dict.fromkeys(prompt for prompt in given if prompt))
    if not each:
        raise ValueError(f"{name} holds no prompt")
    return each


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is no file of prompts")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 30} GiB: no file of prompts")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start})") from None


def _from_hub(repo: str, file: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file, repo_type="dataset")
    if not isinstance(path, str):
        raise MissingSuite(
            f"{file} of the data set {repo} is not in the cache of the hub: get it with "
            f"`hf download {repo} {file} --repo-type dataset`"
        )
    return Path(path)
