"""The texts that rows are made of: the package's data folder, and a topic's own files of the same names."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError
from minimind_core.files import merged, read_table


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

    def own_text(self, name: str) -> str:
        """Content of the topic's file; empty where there is none."""
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise WorkbookError(f"{path}: 不是 UTF-8 编码。请另存为 UTF-8。") from error

    def lines(self, name: str) -> list[str]:
        """Lines of a text or JSONL file, the package's first, blank ones left out."""
        text = f"{data_text(name)}\n{self.own_text(name)}"
        return [line for line in text.split("\n") if line.strip()]

    def table(self, name: str) -> dict[str, Any]:
        """A TOML file, without its ending."""
        return merged(data_table(name), read_table(self.folder / f"{name}.toml"))
