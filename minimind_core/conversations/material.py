"""The texts that rows are made of: the package's data folder, and a topic's own files of the same names."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError
from minimind_core.files import merged, read_jsonl, read_table, read_text


@cache
def data_text(name: str) -> str:
    """Content of a file in this package's data folder."""
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


@cache
def data_table(name: str) -> dict[str, Any]:
    """A TOML file of the data folder, without its ending."""
    return tomllib.loads(data_text(f"{name}.toml"))


@dataclass(frozen=True)
class Material:
    """The package's texts together with those of a topic's folder."""

    folder: Path

    def lines(self, name: str) -> list[str]:
        """Lines of a text file, the package's first, blank ones left out."""
        text = f"{data_text(name)}\n{read_text(self.folder / name)}"
        return [line for line in text.split("\n") if line.strip()]

    def rows(self, name: str) -> list[list[str]]:
        """Lists of texts from a JSONL file, the package's first."""
        own = []
        for number, row in read_jsonl(path := self.folder / name):
            if not (isinstance(row, list) and len(row) % 2 == 0 and all(isinstance(t, str) for t in row)):
                raise WorkbookError(f'{path}:{number}: 每行应是成对的文字，例如 ["问", "答"]。请改正。')
            own.append(row)
        return [*map(json.loads, data_text(name).strip().split("\n")), *own]

    def table(self, name: str) -> dict[str, Any]:
        """A TOML file, without its ending."""
        return merged(data_table(name), read_table(self.folder / f"{name}.toml"))
