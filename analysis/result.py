"""What an experiment found, in one form for all: data by figure, a table, sentences, settings."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import xarray as xr

from xhat.analysis.files import (
    DamagedFile,
    ForeignFolder,
    check_folder,
    plain,
    read_dataset,
    write_dataset,
    write_text,
)
from xhat.analysis.table import Table
from xhat.hooks.describe import jsonable

RESULTS, FORMAT = "results.json", 1


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What an experiment found.

    Parameters
    ----------
    name
        Of the experiment, as the command line has it: ``"swaps"``.
    data
        Figure → what it is drawn from; further arrays may stand beside them.
    table
        The numbers that are read first.
    sentences
        What the numbers let one say, the primary contrast first.
    settings
        What was asked for: models, prompts, seeds. In JSON's own types; others are named by
        their class (:func:`xhat.hooks.describe.jsonable`).
    """

    name: str
    data: Mapping[str, xr.Dataset]
    table: Table
    sentences: Sequence[str]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", {name: plain(data) for name, data in self.data.items()})
        object.__setattr__(self, "sentences", tuple(self.sentences))
        object.__setattr__(self, "settings", jsonable(dict(self.settings)))

    def save(self, out: Path | str) -> Path:
        """Write ``OUT/data/<figure>.nc`` and, last, ``OUT/results.json``, each whole or not at all.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ForeignFolder
            Where ``out`` holds the results of another experiment.
        """
        out = claim(out, self.name)
        files = {
            name: write_dataset(data, out / "data" / f"{name}.nc")
            for name, data in self.data.items()
        }
        content = {
            "xhat_result": FORMAT,
            "name": self.name,
            "settings": self.settings,
            "sentences": self.sentences,
            "table": self.table.to_dict(),
            "data": files,
        }
        write_text(out / RESULTS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return out

    @classmethod
    def load(cls, out: Path | str) -> Self:
        """The result that :meth:`save` wrote into ``out``, exactly.

        Raises
        ------
        ForeignFolder
            Where there is no result in ``out``, or one of another version of the format.
        DamagedFile
            Where a file is not what was written; its name is said.
        """
        out = Path(out)
        content = _read(out)
        data = {
            name: _stored(out / "data" / f"{name}.nc", digest)
            for name, digest in content["data"].items()
        }
        table = Table.from_dict(content["table"])
        return cls(content["name"], data, table, tuple(content["sentences"]), content["settings"])

    def identical(self, other: Result) -> bool:
        """Whether all of it is equal, attributes included."""
        return (
            (self.name, self.table, tuple(self.sentences), self.settings)
            == (other.name, other.table, tuple(other.sentences), other.settings)
            and list(self.data) == list(other.data)
            and all(data.identical(other.data[name]) for name, data in self.data.items())
        )

    def __repr__(self) -> str:
        """The table, the sentences and the figures there are data for."""
        figures = f"xhat.analysis.Result {self.name!r}; data: {', '.join(self.data) or 'none'}"
        return "\n\n".join([self.table.to_text(), *self.sentences, figures])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(sentence)}</p>\n" for sentence in self.sentences)
        rows = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(_short(value))}</td></tr>\n"
            for key, value in self.settings.items()
        )
        settings = f"<details><summary>settings</summary><table>{rows}</table></details>"
        names = html.escape(", ".join(self.data))
        return f"{self.table.to_html()}{said}{settings}<p>data: {names}</p>"


def claim(out: Path | str, name: str) -> Path:
    """The folder ``out``, made where it is not there, for results of the experiment ``name``.

    Commands ask before they start, so that no hour's work ends in a refusal.

    Raises
    ------
    ForeignFolder
        Where it holds results of another experiment, or is a file.
    """
    out = Path(out)
    check_folder(out)
    if (out / RESULTS).exists():
        try:
            owner = _read(out)["name"]
        except DamagedFile:
            owner = name  # what cannot be read is written anew
        if owner != name:
            raise ForeignFolder(
                f"{out} holds results of `xhat {owner}`, not of `xhat {name}`: give another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _read(out: Path) -> dict[str, Any]:
    """The content of ``OUT/results.json``."""
    path = out / RESULTS
    if not path.exists():
        raise ForeignFolder(f"no results in {out}: there is no {RESULTS}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged: {error}. Run the command again") from error
    if not isinstance(content, dict) or content.get("xhat_result") != FORMAT:
        raise ForeignFolder(
            f"{path} was not written by this version of xhat: run the command again with "
            "another --out, or remove the folder"
        )
    return content


def _stored(path: Path, digest: str) -> xr.Dataset:
    if not path.exists():
        raise DamagedFile(f"{path} is gone, which the results name: run the command again")
    return read_dataset(path, digest)


def _short(value: Any, most: int = 200) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]} …"
